//! Converts between the domain's types and the guest's messages.

use std::time::Duration;

use super::{
    checked::{self, command, cpu, position, span, stream, words},
    connection::Bridge,
    proto,
};
use crate::{Activity, Finding, LaunchSettings, OutputPiece, Report, clock};
use errand_task::{
    ArmedWatch, Gap, Nonce, ProcessIdentity, Program, Reads, ResourceUsage, Stdin, TaskId, TaskSpec, TerminalSize,
    Waiting, WatchLines, WatchMatches, WatchPattern, sentinel,
};

pub(super) fn launch(
    task: TaskId,
    nonce: Nonce,
    spec: &TaskSpec,
    settings: LaunchSettings,
    watches: &[ArmedWatch],
) -> proto::LaunchRequest {
    use proto::launch_request::Program as Message;
    proto::LaunchRequest {
        task_id: task.to_string(),
        nonce: nonce.to_string(),
        program: Some(match &spec.program {
            Program::Shell { text, shell } => {
                Message::Shell(proto::ShellText { text: text.clone(), shell: shell.clone().unwrap_or_default() })
            }
            Program::Argv(arguments) => Message::Argv(proto::Argv { arguments: arguments.clone() }),
        }),
        workdir: spec.workdir.clone().unwrap_or_default(),
        env: spec.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        clean_env: spec.clean_env,
        user: spec.user.clone().unwrap_or_default(),
        limits: Some(proto::ResourceLimits {
            open_files: spec.limits.open_files,
            processes: spec.limits.processes,
            file_bytes: spec.limits.file_bytes,
            cpu_seconds: spec.limits.cpu_seconds,
            address_space_bytes: spec.limits.address_space_bytes,
            core_bytes: spec.limits.core_bytes,
            stack_bytes: spec.limits.stack_bytes,
        }),
        nice: spec.nice.into(),
        stdin: spec.stdin == Stdin::Open,
        terminal: spec.terminal.map(size),
        separate_stderr: spec.separate_stderr,
        output_limit: spec.output_limit,
        timeout_ms: milliseconds(spec.timeout),
        grace_ms: milliseconds(settings.grace),
        quiet_after_ms: milliseconds(settings.quiet_after),
        look_every_ms: milliseconds(settings.look_every),
        may_skip: true,
        watches: watches.iter().map(watch).collect(),
    }
}

pub(super) fn watch(watch: &ArmedWatch) -> proto::Watch {
    let ArmedWatch { index, pattern, once, from } = watch;
    let kind = Some(match pattern {
        WatchPattern::Text(text) => proto::watch::Kind::Substring(text.clone()),
        WatchPattern::Regex(pattern) => proto::watch::Kind::Regex(pattern.clone()),
    });
    proto::Watch { index: *index, kind, once: *once, from: *from }
}

pub(super) fn size(size: TerminalSize) -> proto::TerminalSize {
    proto::TerminalSize { rows: size.rows.into(), columns: size.columns.into() }
}

pub(super) fn process(process: ProcessIdentity) -> proto::Process {
    proto::Process { pid: process.pid, start_ticks: process.start_ticks }
}

/// Converts a report; none for a kind that this server does not know.
pub(super) fn report(report: proto::Report) -> Option<Report> {
    use proto::report::Kind;
    Some(match report.kind? {
        Kind::Claimed(_) => Report::Claimed,
        Kind::Started(started) => {
            Report::Started { process: identity(started.process?), age: span(Duration::from_micros(started.age_us)) }
        }
        Kind::Output(piece) => Report::Output(output(piece)),
        Kind::Skipped(skipped) => Report::Skipped { to: position(skipped.to) },
        Kind::Activity(activity) => Report::Activity(Activity {
            silent_for: span(Duration::from_millis(activity.silent_ms)),
            busy: activity.busy,
            waiting: activity.waiting.map(|waiting| Waiting {
                pid: waiting.pid,
                command: command(&waiting.command),
                reads: if waiting.terminal { Reads::Terminal } else { Reads::Stdin },
            }),
        }),
        Kind::Ended(ended) => Report::Ended {
            ending: sentinel::parse_result(&words(&ended.result))?,
            usage: ended.usage.map(usage),
            oom_kills: oom_kills(ended.usage.as_ref()),
        },
        Kind::Watching(_) => Report::Watching,
        Kind::Matched(matched) => Report::Matched {
            matches: matched.matches.into_iter().map(matches).collect(),
            unsearched: position(matched.unsearched_bytes),
        },
        Kind::Over(over) => {
            Report::Over { bytes: position(over.bytes), incomplete: over.incomplete, gap: over.gap.map(gap) }
        }
    })
}

fn matches(matches: proto::WatchMatches) -> WatchMatches {
    let proto::WatchMatches { index, count, offset, next, lines, cut } = matches;
    WatchMatches { index, count, offset, next, lines: WatchLines::of(&lines, cut) }
}

fn output(output: proto::Output) -> OutputPiece {
    OutputPiece { offset: position(output.offset), stream: stream(output.stream()), bytes: output.data }
}

pub(super) fn finding(bridge: &Bridge, uptime: Duration, finding: proto::Finding, nonce: Nonce) -> Finding {
    let made = |process: proto::Process| {
        let since_boot = process.start_ticks.saturating_mul(1000) / u64::from(bridge.ticks_per_second);
        let since_boot = Duration::from_millis(since_boot);
        let made =
            if uptime.is_zero() { clock::moment(bridge.boot, since_boot) } else { clock::ago(uptime, since_boot) };
        (identity(process), made)
    };
    Finding {
        directory: finding.directory,
        started: finding.started,
        process: finding.process.and_then(|told| checked::process(told).ok()).map(made),
        alive: finding.alive,
        supervised: finding.supervised,
        sentinel: sentinel::read(finding.exit_file.as_deref(), nonce),
        output_bytes: position(finding.output_bytes),
        incomplete: finding.incomplete,
        gap: finding.gap.map(gap),
        usage: finding.usage.map(usage),
        oom_kills: oom_kills(finding.usage.as_ref()),
    }
}

pub(super) fn gap(gap: proto::Gap) -> Gap {
    let start = position(gap.start);
    Gap { start, end: position(gap.end).max(start) }
}

fn identity(process: proto::Process) -> ProcessIdentity {
    ProcessIdentity { pid: process.pid, start_ticks: position(process.start_ticks) }
}

fn usage(usage: proto::Usage) -> ResourceUsage {
    ResourceUsage {
        user_cpu: cpu(usage.user_cpu_us),
        system_cpu: cpu(usage.system_cpu_us),
        peak_memory_bytes: position(usage.peak_memory_bytes),
        read_bytes: position(usage.read_bytes),
        written_bytes: position(usage.written_bytes),
    }
}

fn oom_kills(usage: Option<&proto::Usage>) -> u32 {
    usage.map_or(0, |usage| u32::try_from(usage.oom_kills).unwrap_or(u32::MAX))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn positions_are_clamped_to_file_offsets() {
        let last = i64::MAX as u64;
        let told = |start, end| gap(proto::Gap { start, end });
        assert_eq!(told(3, 9), Gap { start: 3, end: 9 });
        assert_eq!(told(9, 3), Gap { start: 9, end: 9 });
        assert_eq!(told(u64::MAX, 0), Gap { start: last, end: last });
        let piece = output(proto::Output { offset: u64::MAX, data: "end".into(), ..proto::Output::default() });
        assert_eq!(piece.end(), last + 3);
    }
}
