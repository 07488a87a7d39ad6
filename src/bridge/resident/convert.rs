//! From the domain to the bridge's messages, and back.

use std::time::Duration;

use super::{connections::Bridge, proto};
use crate::{
    bridge::{Activity, Finding, LaunchSettings, LogPiece, OutputPiece, PackedPiece, Report, clock},
    runtime::RuntimeError,
    task::{
        Gap, Nonce, ProcessIdentity, Program, Reads, ResourceUsage, Stdin, Stream, TaskId, TaskSpec, TerminalSize,
        Waiting, sentinel,
    },
};

pub(super) fn launch(task: TaskId, nonce: Nonce, spec: &TaskSpec, settings: LaunchSettings) -> proto::LaunchRequest {
    use proto::launch_request::Program as Wire;
    proto::LaunchRequest {
        task_id: task.to_string(),
        nonce: nonce.to_string(),
        program: Some(match &spec.program {
            Program::Shell { text, shell } => {
                Wire::Shell(proto::ShellText { text: text.clone(), shell: shell.clone().unwrap_or_default() })
            }
            Program::Argv(arguments) => Wire::Argv(proto::Argv { arguments: arguments.clone() }),
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
    }
}

pub(super) fn size(size: TerminalSize) -> proto::TerminalSize {
    proto::TerminalSize { rows: size.rows.into(), columns: size.columns.into() }
}

pub(super) fn process(process: ProcessIdentity) -> proto::Process {
    proto::Process { pid: process.pid, start_ticks: process.start_ticks }
}

/// A report; none for one that this server does not know.
pub(super) fn report(report: proto::Report) -> Option<Report> {
    use proto::report::Kind;
    Some(match report.kind? {
        Kind::Claimed(_) => Report::Claimed,
        Kind::Started(started) => {
            Report::Started { process: identity(started.process?), age: Duration::from_micros(started.age_us) }
        }
        Kind::Output(piece) => Report::Output(output(piece)),
        Kind::Skipped(skipped) => Report::Skipped { to: position(skipped.to) },
        Kind::Activity(activity) => Report::Activity(Activity {
            silent_for: Duration::from_millis(activity.silent_ms),
            busy: activity.busy,
            waiting: activity.waiting.map(|waiting| Waiting {
                pid: waiting.pid,
                command: waiting.command,
                reads: if waiting.terminal { Reads::Terminal } else { Reads::Stdin },
            }),
        }),
        Kind::Ended(ended) => Report::Ended {
            ending: sentinel::parse_result(&ended.result)?,
            usage: ended.usage.map(usage),
            oom_kills: oom_kills(ended.usage.as_ref()),
        },
        Kind::Over(over) => {
            Report::Over { bytes: position(over.bytes), incomplete: over.incomplete, gap: over.gap.map(gap) }
        }
    })
}

/// Output of a log, packed or not. What would be larger than allowed when it is unpacked goes no further.
pub(super) fn log_piece(output: proto::Output) -> Result<LogPiece, RuntimeError> {
    match output.unpacked as usize {
        0 => Ok(LogPiece::Plain(self::output(output))),
        size if size > PackedPiece::LIMIT => {
            Err(RuntimeError::Refused { detail: format!("the bridge packs {size} bytes into one block") })
        }
        size => Ok(LogPiece::Packed(PackedPiece {
            offset: position(output.offset),
            stream: stream(output.stream()),
            size,
            block: output.data,
        })),
    }
}

fn output(output: proto::Output) -> OutputPiece {
    OutputPiece { offset: position(output.offset), stream: stream(output.stream()), bytes: output.data }
}

fn stream(stream: proto::Stream) -> Stream {
    match stream {
        proto::Stream::Unspecified => Stream::Both,
        proto::Stream::Stdout => Stream::Stdout,
        proto::Stream::Stderr => Stream::Stderr,
    }
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
        process: finding.process.map(made),
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

/// A position in output, or a size of it. No file is larger than what it can be at most.
pub(super) fn position(told: u64) -> u64 {
    told.min(i64::MAX as u64)
}

pub(super) fn gap(gap: proto::Gap) -> Gap {
    let start = position(gap.start);
    Gap { start, end: position(gap.end).max(start) }
}

fn identity(process: proto::Process) -> ProcessIdentity {
    ProcessIdentity { pid: process.pid, start_ticks: process.start_ticks }
}

fn usage(usage: proto::Usage) -> ResourceUsage {
    ResourceUsage {
        user_cpu: Duration::from_micros(usage.user_cpu_us),
        system_cpu: Duration::from_micros(usage.system_cpu_us),
        peak_memory_bytes: usage.peak_memory_bytes,
        read_bytes: usage.read_bytes,
        written_bytes: usage.written_bytes,
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
    fn positions_are_those_of_a_file() {
        let last = i64::MAX as u64;
        let told = |start, end| gap(proto::Gap { start, end });
        assert_eq!(told(3, 9), Gap { start: 3, end: 9 });
        assert_eq!(told(9, 3), Gap { start: 9, end: 9 });
        assert_eq!(told(u64::MAX, 0), Gap { start: last, end: last });
        let piece = output(proto::Output { offset: u64::MAX, data: "end".into(), ..proto::Output::default() });
        assert_eq!(piece.end(), last + 3);
    }

    #[test]
    fn blocks_are_passed_on_up_to_their_limit() {
        let output = |unpacked| proto::Output { offset: 7, data: "x".into(), stream: 1, unpacked };
        let limit = u32::try_from(PackedPiece::LIMIT).unwrap();
        assert!(matches!(log_piece(output(0)), Ok(LogPiece::Plain(piece)) if piece.end() == 8));
        assert!(matches!(log_piece(output(limit)), Ok(LogPiece::Packed(piece)) if piece.size == PackedPiece::LIMIT));
        for unpacked in [limit + 1, u32::MAX] {
            assert!(matches!(log_piece(output(unpacked)), Err(RuntimeError::Refused { .. })), "{unpacked}");
        }
    }
}
