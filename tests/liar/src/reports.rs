//! Lies about a task in the reports that a follower gets.

use std::pin::Pin;

use bytes::Bytes;
use errand_proto::bridge::{
    Activity, Claimed, Ended, Gap, Matched, Output, Over, Process, Report, Skipped, Started, Usage, Waiting,
    WatchMatches, Watching, report::Kind,
};
use futures_util::{
    Stream, StreamExt as _,
    stream::{iter, once, pending, repeat_with},
};
use tokio::sync::watch;

/// The identity of the task's process.
pub(crate) const PROCESS: Process = Process { pid: 4321, start_ticks: 1 };

type Reports = Pin<Box<dyn Stream<Item = Kind> + Send>>;

/// The reports of a task: those of the lie, or else true ones until the task is killed.
pub(crate) fn reports(
    lie: &str,
    from: u64,
    killed: watch::Receiver<bool>,
) -> Pin<Box<dyn Stream<Item = Option<Report>> + Send>> {
    if lie == "empty_reports" {
        return Box::pin(repeat_with(|| None));
    }
    let mut at = from;
    let said: Reports = match lie {
        "activity_flood" => then(started(), repeat_with(|| activity(3_600_000, 4321))),
        "resume_flood" => {
            let mut busy = false;
            then(
                started(),
                repeat_with(move || {
                    busy = !busy;
                    let Kind::Activity(seen) = activity(3_600_000, 4321) else { return started() };
                    Kind::Activity(Activity { busy, waiting: seen.waiting.filter(|_| !busy), ..seen })
                }),
            )
        }
        "start_flood" => then(started(), repeat_with(started)),
        "output_flood" | "tiny_output_flood" => {
            let piece = Bytes::from(vec![b'x'; if lie == "output_flood" { 128 * 1024 } else { 1 }]);
            then(
                started(),
                repeat_with(move || {
                    let next = output(at, piece.clone());
                    at += piece.len() as u64;
                    next
                }),
            )
        }
        "jumping_output" => then(
            started(),
            repeat_with(move || {
                at += 1 << 40;
                output(at, Bytes::from_static(b"x"))
            }),
        ),
        "huge_output" => then(started(), iter([output(at, vec![b'x'; 64 << 20].into())]).chain(pending())),
        "packed_output" => {
            let Kind::Output(plain) = output(at, vec![b'x'; 64].into()) else { return Box::pin(pending()) };
            then(started(), iter([Kind::Output(Output { unpacked: u32::MAX, ..plain })]).chain(pending()))
        }
        "contradictory" => Box::pin(iter([
            started(),
            Kind::Started(Started { process: Some(Process { pid: 77, start_ticks: 9 }), age_us: 0 }),
            output(at, Bytes::from_static(b"before")),
            ended("exited 0".to_owned()),
            ended("exited 1".to_owned()),
            output(at + 6, Bytes::from_static(b"after")),
            started(),
            Kind::Over(Over { bytes: 5, ..Over::default() }),
            Kind::Over(Over { bytes: 1, incomplete: true, gap: Some(Gap { start: 9, end: 3 }) }),
            Kind::Claimed(Claimed {}),
            output(at, Bytes::from_static(b"again")),
        ])),
        "replayed" => then(started(), repeat_with(move || output(from, Bytes::from_static(b"again and again")))),
        "backwards" => {
            then(started(), iter([Kind::Skipped(Skipped { to: 1 << 40 }), Kind::Skipped(Skipped { to: 0 })]))
        }
        // No report about this task: the lie is in the findings, which are another task's.
        "another_tasks" | "many_findings" | "huge_findings" => Box::pin(iter([Kind::Claimed(Claimed {})])),
        "impossible_times" => Box::pin(iter([
            Kind::Started(Started { process: Some(Process { pid: 9, start_ticks: u64::MAX }), age_us: u64::MAX }),
            activity(u64::MAX, 1),
            Kind::Ended(Ended {
                result: format!("timed_out {}", u64::MAX),
                usage: Some(Usage {
                    user_cpu_us: u64::MAX,
                    system_cpu_us: u64::MAX,
                    peak_memory_bytes: u64::MAX,
                    read_bytes: u64::MAX,
                    written_bytes: u64::MAX,
                    oom_kills: u64::MAX,
                }),
            }),
            Kind::Over(Over { bytes: u64::MAX, incomplete: true, gap: Some(Gap { start: u64::MAX, end: 0 }) }),
        ])),
        "impossible_processes" => Box::pin(repeat_with(|| {
            Kind::Started(Started { process: Some(Process { pid: u32::MAX, start_ticks: u64::MAX }), age_us: 0 })
        })),
        "impossible_matches" => then(
            started(),
            iter([
                Kind::Watching(Watching {}),
                output(at, Bytes::from_static(b"word\n")),
                matched(0, at, at + 5, 5),
                matched(0, u64::MAX - 9, u64::MAX, 9),
            ])
            .chain(pending()),
        ),
        "match_flood" => {
            let first = iter([Kind::Watching(Watching {}), output(at, vec![b'x'; 100_000].into())]);
            let mut next = at;
            let flood = repeat_with(move || {
                next += 1;
                matched(0, next, next + 1, 8 * 1024)
            });
            then(started(), first.chain(flood))
        }
        "huge_names" => {
            let Kind::Activity(seen) = activity(60_000, 1) else { return Box::pin(pending()) };
            let waiting = Waiting { pid: 1, command: "\u{1b}[2J\u{7}x".repeat(30_000), terminal: true };
            then(
                started(),
                repeat_with(move || Kind::Activity(Activity { waiting: Some(waiting.clone()), ..seen.clone() })),
            )
        }
        "huge_result" => then(started(), iter([ended(format!("failed OTHER 0 {}", "x".repeat(200_000)))])),
        "strange_result" => then(started(), iter([ended("exited 4096\nexited 0".to_owned())]).chain(pending())),
        "forgotten" => Box::pin(iter([])),
        "immortal" | "deaf" => then(started(), pending()),
        _ => return Box::pin(honest(at, killed).map(|kind| Some(Report { kind: Some(kind) }))),
    };
    Box::pin(said.map(|kind| Some(Report { kind: Some(kind) })))
}

fn then(first: Kind, rest: impl Stream<Item = Kind> + Send + 'static) -> Reports {
    Box::pin(iter([first]).chain(rest))
}

/// A command that prints one line and is then silent until it is killed.
fn honest(from: u64, mut killed: watch::Receiver<bool>) -> impl Stream<Item = Kind> + Send {
    let word = (from == 0).then(|| output(0, Bytes::from_static(b"word\n")));
    let over = once(async move {
        // The sender lives as long as the connection.
        let _ = killed.wait_for(|killed| *killed).await;
        iter([ended("signaled 9".to_owned()), Kind::Over(Over { bytes: 5, ..Over::default() })])
    });
    iter([started()]).chain(iter(word)).chain(over.flatten())
}

fn started() -> Kind {
    Kind::Started(Started { process: Some(PROCESS), age_us: 1000 })
}

fn activity(silent_ms: u64, pid: u32) -> Kind {
    let waiting = Some(Waiting { pid, command: "cat".to_owned(), terminal: false });
    Kind::Activity(Activity { silent_ms, busy: false, waiting })
}

fn output(offset: u64, data: Bytes) -> Kind {
    Kind::Output(Output { offset, data, ..Output::default() })
}

fn matched(index: u32, offset: u64, next: u64, lines: usize) -> Kind {
    let lines = "\u{1b}[2J<".repeat(lines / 5).into_bytes().into();
    let matches = vec![WatchMatches { index, count: 1, offset, next, lines, cut: false }];
    Kind::Matched(Matched { matches, unsearched_bytes: u64::MAX })
}

fn ended(result: String) -> Kind {
    Kind::Ended(Ended { result, usage: None })
}
