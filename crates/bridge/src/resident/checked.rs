//! The one place where a guest's message becomes a checked value. Commands in the sandbox can replace the guest. So each field, list and
//! rate has a bound here; a message that exceeds one is a [`Breach`], and the connection is closed. `docs/bounds.md` lists the bounds.
//!
//! A value that can only harm the sandbox's own tasks, such as a time or a name, is cut to its bound instead.

mod scan;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::proto;
use crate::{LogPiece, OutputPiece, PORTS_LIMIT, PackedPiece, Piece};
use errand_task::{Stream, WATCH_LIMIT};
pub(super) use scan::{SCAN_MESSAGE, scanned};

/// The largest message of a followed task or of a log, in bytes. The guest sends pieces of 128 KiB.
pub(super) const STREAM_MESSAGE: usize = 256 * 1024;
/// The largest message with a file's content, in bytes. The guest sends pieces of 256 KiB.
pub(super) const CONTENT_MESSAGE: usize = 320 * 1024;
/// The largest message with entries of a directory, in bytes. The guest sends about 64 KiB at most. An entry takes up to 80 times its
/// encoded size in memory.
pub(super) const ENTRIES_MESSAGE: usize = 128 * 1024;
/// The largest other message, in bytes.
pub(super) const SMALL_MESSAGE: usize = 8 * 1024;
/// The largest message with listening ports, in bytes. 4096 ports take 12 KiB.
pub(super) const PORTS_MESSAGE: usize = 16 * 1024;
/// How many more bytes a probe's answer may have for each task: an exit file is at most 1 KiB.
pub(super) const FINDING: usize = 2 * 1024;
/// The largest headers of an answer, in bytes. They carry the status and its details.
pub(super) const HEADERS: u32 = 16 * 1024;
/// The largest process id of Linux (PID_MAX_LIMIT).
const LAST_PID: u32 = 1 << 22;
/// The longest time that a task's age or a command's silence may have.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
/// The most CPU time accepted: 4096 cores for a year.
const MOST_CPU: Duration = Duration::from_secs(4096 * 366 * 24 * 3600);
/// The longest version, in bytes.
const VERSION: usize = 64;
/// The longest name of a process, in characters. The kernel keeps 15.
const COMMAND: usize = 64;
/// The longest message text from the guest, in characters.
const WORDS: usize = 1024;
/// The largest result, in bytes. An exit file that holds one is no larger.
const RESULT: usize = 1024;
/// The most bytes of lines in a report of matches, over all watches.
const LINES: usize = 8 * 1024;
/// The longest name of a file, in bytes. Linux allows 255 on its own file systems and up to three times as many on foreign ones.
const FILE_NAME: usize = 765;
/// The longest target of a link, in bytes (PATH_MAX).
const LINK_TARGET: usize = 4096;
/// The most directory entries in one message.
const ENTRIES: usize = 256;
/// The most changes in one message.
const CHANGES: usize = 256;
/// The longest path of a changed file, in bytes (PATH_MAX).
const CHANGED_PATH: usize = 4096;
/// The most entries in a directory.
const ALL_ENTRIES: u64 = 4 * 1024 * 1024;
/// Reports without output: this many at once, then this many per second. A guest examines a silent command every few seconds.
const REPORTS: Budget = Budget { most: 256.0, a_second: 20.0 };
/// Small pieces of output: as above. Pieces over the rate are not refused but read more slowly.
const SMALL_OUTPUTS: Budget = Budget { most: 2048.0, a_second: 1000.0 };
/// A piece of output with fewer bytes than this is small.
const SMALL: usize = 4096;

/// A bound that the guest exceeded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Breach(pub(super) String);

/// Returns a breach if the condition is false.
fn holds(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Breach> {
    if holds { Ok(()) } else { Err(Breach(otherwise())) }
}

/// Makes text safe to show and to log: without control characters, and at most `most` characters long.
pub(super) fn text(said: &str, most: usize) -> String {
    said.chars().filter(|letter| !letter.is_control()).take(most).collect()
}

/// A message text from the guest, made safe.
pub(super) fn words(said: &str) -> String {
    text(said, WORDS)
}

/// The name of a process, made safe.
pub(super) fn command(said: &str) -> String {
    text(said, COMMAND)
}

/// A time span, cut to what a command can have lasted.
pub(super) fn span(told: Duration) -> Duration {
    told.min(LONGEST)
}

/// CPU time.
pub(super) fn cpu(microseconds: u64) -> Duration {
    Duration::from_micros(microseconds).min(MOST_CPU)
}

/// A position in output, or a size, cut to the largest possible file size.
pub(super) fn position(told: u64) -> u64 {
    told.min(i64::MAX as u64)
}

/// Checks how the guest describes itself.
pub(super) fn hello(hello: &proto::HelloResponse) -> Result<(), Breach> {
    let printable = hello.version.bytes().all(|byte| byte.is_ascii_graphic());
    holds(hello.version.len() <= VERSION && printable, || {
        format!("a version of {} bytes, more than {VERSION} or not printable", hello.version.len())
    })?;
    holds(hello.ticks_per_second <= 1_000_000, || format!("{} clock ticks in a second", hello.ticks_per_second))
}

/// Checks a process.
pub(super) fn process(process: proto::Process) -> Result<proto::Process, Breach> {
    pid(process.pid)?;
    Ok(proto::Process { start_ticks: position(process.start_ticks), ..process })
}

fn pid(pid: u32) -> Result<(), Breach> {
    holds((1..=LAST_PID).contains(&pid), || format!("{pid} as a process id"))
}

/// Checks that the findings answer `asked` questions with possible values. An impossible process is not a breach here but ignored where it
/// is read: it comes from a file that any command may change.
pub(super) fn findings(found: &[proto::Finding], asked: usize) -> Result<(), Breach> {
    holds(found.len() == asked, || format!("{} findings about {asked} tasks", found.len()))?;
    for finding in found {
        let size = finding.exit_file.as_ref().map_or(0, |file| file.len());
        holds(size <= RESULT, || format!("an exit file of {size} bytes, more than {RESULT}"))?;
    }
    Ok(())
}

/// Checks the number of processes that were signalled.
pub(super) fn members(members: u32) -> Result<u32, Breach> {
    holds(members <= LAST_PID, || format!("{members} processes of a task")).map(|()| members)
}

/// Checks the listening ports: each once, in order.
pub(super) fn ports(told: &[u32]) -> Result<BTreeSet<u16>, Breach> {
    holds(told.len() <= PORTS_LIMIT, || format!("{} listening ports, more than {PORTS_LIMIT}", told.len()))?;
    holds(told.is_sorted_by(|one, next| one < next), || "listening ports out of order".to_owned())?;
    let port = |port: &u32| u16::try_from(*port).map_err(|_| Breach(format!("{port} as a port")));
    told.iter().map(port).collect()
}

/// Checks the number of bytes of input that a command has taken in all.
pub(super) fn taken(taken: u64) -> Result<u64, Breach> {
    holds(taken <= i64::MAX as u64, || format!("{taken} bytes of input that were taken")).map(|()| taken)
}

/// The bounds of a stream of reports on one task.
#[derive(Debug)]
pub(super) struct Reports {
    position: u64,
    reports: Tokens,
    outputs: Tokens,
}

impl Reports {
    /// Bounds for reports whose output begins at `position`.
    pub(super) fn from(position: u64) -> Self {
        Self { position, reports: Tokens::of(REPORTS), outputs: Tokens::of(SMALL_OUTPUTS) }
    }

    /// How long to wait before the next report is read. [`Reports::paused`] adds what is earned in the meantime.
    pub(super) fn pause(&self) -> Duration {
        self.outputs.debt()
    }

    /// Accounts for the time that has passed.
    pub(super) fn paused(&mut self) {
        self.outputs.earn();
    }

    /// Checks a report.
    pub(super) fn check(&mut self, report: Option<&proto::Report>) -> Result<(), Breach> {
        use proto::report::Kind;
        let kind = report.and_then(|report| report.kind.as_ref());
        if let Some(Kind::Output(output)) = kind {
            let size = output.data.len();
            holds(size > 0 && output.unpacked == 0, || "a report of output that is empty or packed".to_owned())?;
            self.forward(output.offset)?;
            self.position = position(output.offset).saturating_add(size as u64);
            if size < SMALL {
                self.outputs.take();
            }
            return Ok(());
        }
        self.reports.take();
        holds(self.reports.debt().is_zero(), || {
            format!("more than {} reports and {} a second", REPORTS.most, REPORTS.a_second)
        })?;
        match kind {
            Some(Kind::Skipped(skipped)) => {
                self.forward(skipped.to)?;
                self.position = skipped.to;
            }
            Some(Kind::Started(started)) => {
                started.process.map(process).transpose()?;
            }
            Some(Kind::Activity(activity)) => {
                activity.waiting.as_ref().map_or(Ok(()), |waiting| pid(waiting.pid))?;
            }
            Some(Kind::Ended(ended)) => holds(ended.result.len() <= RESULT, || {
                format!("a result of {} bytes, more than {RESULT}", ended.result.len())
            })?,
            Some(Kind::Matched(matched)) => matches(matched)?,
            Some(Kind::Output(_) | Kind::Claimed(_) | Kind::Over(_) | Kind::Watching(_)) | None => {}
        }
        Ok(())
    }

    fn forward(&self, to: u64) -> Result<(), Breach> {
        holds((self.position..=i64::MAX as u64).contains(&to), || {
            format!("output at {to} after output up to {}", self.position)
        })
    }
}

/// Checks matches: each watch once and in order. Whether they lie in the output that is known is decided where they are told: a command may
/// have removed its log, and with it the output that was to be reported before.
fn matches(matched: &proto::Matched) -> Result<(), Breach> {
    let found = &matched.matches;
    holds(found.len() <= WATCH_LIMIT, || format!("matches of {} watches, more than {WATCH_LIMIT}", found.len()))?;
    let in_order = found.is_sorted_by(|one, next| one.index < next.index);
    let known = found.last().is_none_or(|last| (last.index as usize) < WATCH_LIMIT);
    holds(in_order && known, || "matches of watches out of order or beyond the last".to_owned())?;
    let lines: usize = found.iter().map(|matches| matches.lines.len()).sum();
    holds(lines <= LINES, || format!("{lines} bytes of lines in matches, more than {LINES}"))?;
    for proto::WatchMatches { count, offset, next, .. } in found {
        let possible = offset < next && *next <= i64::MAX as u64 && (1..=next - offset).contains(count);
        holds(possible, || format!("{count} matches from {offset} to {next}"))?;
    }
    Ok(())
}

/// The bounds of a part of a log.
#[derive(Debug)]
pub(super) struct Log {
    position: u64,
    left: u64,
}

impl Log {
    /// Checks the head of a log for the requested part.
    pub(super) fn open(head: &proto::LogHead, asked: Piece) -> Result<Self, Breach> {
        let (start, limit) = match asked {
            Piece::From { offset, limit } => (offset, limit),
            Piece::Tail { limit } => (head.size.saturating_sub(limit), limit),
        };
        holds(head.start == start && head.size <= i64::MAX as u64, || {
            format!("a log of {} bytes from {} where {asked:?} was asked for", head.size, head.start)
        })?;
        Ok(Self { position: start, left: limit.min(head.size.saturating_sub(start)) })
    }

    /// Checks the next output. It is a breach if it exceeds the request, repeats an earlier position or unpacks to too many bytes.
    pub(super) fn take(&mut self, output: proto::Output) -> Result<LogPiece, Breach> {
        let size = if output.unpacked == 0 { output.data.len() } else { output.unpacked as usize };
        holds((1..=PackedPiece::LIMIT).contains(&size), || format!("{size} bytes in one piece of a log"))?;
        holds((self.position..=i64::MAX as u64).contains(&output.offset), || {
            format!("a log's output at {} after output up to {}", output.offset, self.position)
        })?;
        holds(size as u64 <= self.left, || {
            format!("{size} bytes of a log where {} are left of what was asked", self.left)
        })?;
        self.left -= size as u64;
        self.position = output.offset.saturating_add(size as u64);
        let (offset, stream) = (output.offset, stream(output.stream()));
        Ok(match output.unpacked {
            0 => LogPiece::Plain(OutputPiece { offset, stream, bytes: output.data }),
            _ => LogPiece::Packed(PackedPiece { offset, stream, size, block: output.data }),
        })
    }
}

pub(super) fn stream(stream: proto::Stream) -> Stream {
    match stream {
        proto::Stream::Unspecified => Stream::Both,
        proto::Stream::Stdout => Stream::Stdout,
        proto::Stream::Stderr => Stream::Stderr,
    }
}

/// Checks a file in a directory.
pub(super) fn file(file: &proto::FileEntry) -> Result<(), Breach> {
    holds(file.name.len() <= FILE_NAME, || {
        format!("a file's name of {} bytes, more than {FILE_NAME}", file.name.len())
    })?;
    holds(file.link_target.len() <= LINK_TARGET, || {
        format!("a link's target of {} bytes, more than {LINK_TARGET}", file.link_target.len())
    })
}

/// Checks a batch of a directory's entries, of which there were `before` already; returns how many there are now.
pub(super) fn batch(entries: &[proto::FileEntry], before: u64) -> Result<u64, Breach> {
    let size = entries.len();
    holds((1..=ENTRIES).contains(&size), || format!("{size} entries of a directory in one message"))?;
    let all = before.saturating_add(size as u64);
    holds(all <= ALL_ENTRIES, || format!("more than {ALL_ENTRIES} entries of a directory"))?;
    entries.iter().try_for_each(file).map(|()| all)
}

/// Checks changes in a watched directory.
pub(super) fn changes(changes: &[proto::FileChange]) -> Result<(), Breach> {
    let size = changes.len();
    holds((1..=CHANGES).contains(&size), || format!("{size} changes of files in one message"))?;
    changes.iter().try_for_each(|change| {
        let longest = change.path.len().max(change.old_path.len());
        holds(longest <= CHANGED_PATH, || format!("a path of {longest} bytes in a change"))
    })
}

/// Checks a piece of a file of which `left` bytes are still to come; returns how many are left after it.
pub(super) fn content(size: usize, left: u64) -> Result<u64, Breach> {
    holds(size > 0 && size as u64 <= left, || {
        format!("{size} bytes of a file where {left} are left of what was asked")
    })?;
    Ok(left - size as u64)
}

/// A rate limit.
#[derive(Debug, Clone, Copy)]
struct Budget {
    most: f64,
    a_second: f64,
}

/// What is left of a budget.
#[derive(Debug)]
struct Tokens {
    budget: Budget,
    left: f64,
    at: Instant,
}

impl Tokens {
    fn of(budget: Budget) -> Self {
        Self { budget, left: budget.most, at: Instant::now() }
    }

    fn take(&mut self) {
        self.earn();
        self.left -= 1.0;
    }

    fn earn(&mut self) {
        let now = Instant::now();
        let earned = now.duration_since(self.at).as_secs_f64() * self.budget.a_second;
        self.left = (self.left + earned).min(self.budget.most);
        self.at = now;
    }

    /// How long it takes to earn back what was overspent.
    fn debt(&self) -> Duration {
        Duration::from_secs_f64((-self.left).max(0.0) / self.budget.a_second)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;
    use proto::report::Kind;

    fn output(offset: u64, size: usize, unpacked: u32) -> proto::Output {
        proto::Output { offset, data: vec![b'x'; size].into(), unpacked, ..proto::Output::default() }
    }

    fn head(size: u64, start: u64) -> proto::LogHead {
        proto::LogHead { size, start, gap: None }
    }

    #[test]
    fn log_never_exceeds_the_requested_range() {
        let asked = Piece::From { offset: 10, limit: 100 };
        let open = || Log::open(&head(1000, 10), asked).unwrap();
        let mut log = open();
        assert!(matches!(log.take(output(10, 60, 0)), Ok(LogPiece::Plain(piece)) if piece.end() == 70));
        // Positions may jump over a gap.
        assert!(matches!(log.take(output(500, 9, 40)), Ok(LogPiece::Packed(piece)) if piece.end() == 540));
        assert!(log.take(output(540, 1, 0)).is_err());
        let limit = u32::try_from(PackedPiece::LIMIT).unwrap();
        for lie in [
            output(9, 1, 0),
            output(10, 0, 0),
            output(10, 101, 0),
            output(10, 1, 101),
            output(u64::MAX, 1, 0),
            output(10, 1, limit + 1),
            output(10, 1, u32::MAX),
        ] {
            assert!(open().take(lie.clone()).is_err(), "{lie:?}");
        }
        let mut whole = Log::open(&head(1 << 40, 0), Piece::From { offset: 0, limit: 1 << 40 }).unwrap();
        assert!(whole.take(output(0, 9, limit)).is_ok() && whole.take(output(1, 9, limit)).is_err());
    }

    #[test]
    fn log_head_must_match_the_request() {
        let tail = Piece::Tail { limit: 100 };
        assert!(Log::open(&head(1000, 900), tail).is_ok() && Log::open(&head(50, 0), tail).is_ok());
        for (size, start) in [(1000, 0), (1000, 1000), (u64::MAX, u64::MAX - 100)] {
            assert!(Log::open(&head(size, start), tail).is_err(), "{size} {start}");
        }
        assert!(Log::open(&head(1000, 0), Piece::From { offset: 10, limit: 1 }).is_err());
    }

    #[test]
    fn reports_must_advance_and_are_rate_limited() {
        let report = |kind| proto::Report { kind: Some(kind) };
        let mut reports = Reports::from(5);
        assert!(reports.check(Some(&report(Kind::Output(output(5, 3, 0))))).is_ok());
        for lie in [output(7, 1, 0), output(8, 0, 0), output(8, 1, 9), output(u64::MAX, 1, 0)] {
            assert!(reports.check(Some(&report(Kind::Output(lie)))).is_err());
        }
        assert!(reports.check(Some(&report(Kind::Skipped(proto::Skipped { to: 3 })))).is_err());
        let ended = proto::Ended { result: "x".repeat(RESULT + 1), usage: None };
        assert!(reports.check(Some(&report(Kind::Ended(ended)))).is_err());
        let empty = (0..10_000).map(|_| reports.check(None)).filter(Result::is_ok).count();
        assert!(empty <= 300, "{empty}");
        // Output is slowed down and never refused.
        for at in 0..10_000 {
            assert!(reports.check(Some(&report(Kind::Output(output(8 + at, 1, 0))))).is_ok());
        }
        assert!(reports.pause() > Duration::from_secs(1), "{:?}", reports.pause());
    }

    #[test]
    fn matches_have_possible_positions_and_counts() {
        let one = |index, count, offset, next, lines: usize| proto::WatchMatches {
            index,
            count,
            offset,
            next,
            lines: vec![b'x'; lines].into(),
            cut: false,
        };
        let told = |matches: Vec<proto::WatchMatches>| {
            let mut reports = Reports::from(0);
            let output = proto::Report { kind: Some(Kind::Output(output(0, 100, 0))) };
            reports.check(Some(&output)).unwrap();
            let matched = Kind::Matched(proto::Matched { matches, unsearched_bytes: u64::MAX });
            reports.check(Some(&proto::Report { kind: Some(matched) }))
        };
        assert!(told(vec![one(0, 1, 0, 5, LINES), one(7, 90, 10, 100, 0)]).is_ok() && told(vec![]).is_ok());
        for lie in [
            vec![one(8, 1, 0, 5, 0)],
            vec![one(1, 1, 0, 5, 0), one(0, 1, 0, 5, 0)],
            vec![one(1, 1, 0, 5, 0), one(1, 1, 0, 5, 0)],
            vec![one(0, 1, 0, u64::MAX, 0)],
            vec![one(0, 6, 0, 5, 0)],
            vec![one(0, 0, 0, 5, 0)],
            vec![one(0, 1, 5, 5, 0)],
            vec![one(0, 1, u64::MAX, 3, 0)],
            vec![one(0, 1, 0, 5, LINES), one(1, 1, 0, 5, 1)],
            (0..9).map(|index| one(index, 1, 0, 5, 0)).collect(),
        ] {
            assert!(told(lie.clone()).is_err(), "{lie:?}");
        }
    }

    #[test]
    fn fields_keep_their_bounds() {
        let version =
            |version: &str| hello(&proto::HelloResponse { version: version.to_owned(), ..Default::default() });
        assert!(version("0.2.0-rc.1+7").is_ok());
        assert!(version(&"1".repeat(VERSION + 1)).is_err() && version("0.1\u{1b}[2J").is_err());
        for (id, good) in [(0, false), (1, true), (LAST_PID, true), (LAST_PID + 1, false), (u32::MAX, false)] {
            assert_eq!(process(proto::Process { pid: id, start_ticks: u64::MAX }).is_ok(), good, "{id}");
        }
        assert_eq!(command(&"\u{1b}[2Jx\n".repeat(1000)).chars().count(), COMMAND);
        assert!(!command("a\u{1b}[2J\n").contains(['\u{1b}', '\n']));
        assert_eq!(span(Duration::MAX), LONGEST);
        assert_eq!(cpu(u64::MAX), MOST_CPU);
        assert!(findings(&[], 1).is_err() && findings(&[proto::Finding::default()], 1).is_ok());
        let large = proto::Finding { exit_file: Some(vec![0; RESULT + 1].into()), ..Default::default() };
        assert!(findings(&[large], 1).is_err());
        assert!(taken(9).is_ok() && taken(u64::MAX).is_err());
        assert_eq!(ports(&[80, 443]), Ok(BTreeSet::from([80, 443])));
        let many: Vec<u32> = (1..=4097).collect();
        assert!(ports(&many[..4096]).is_ok() && ports(&many).is_err());
        assert!(ports(&[443, 80]).is_err() && ports(&[80, 80]).is_err() && ports(&[65_536]).is_err());
    }

    #[test]
    fn directories_and_files_keep_their_bounds() {
        let named = |size: usize| proto::FileEntry { name: vec![b'n'; size].into(), ..Default::default() };
        assert_eq!(batch(&[named(255)], 7), Ok(8));
        assert!(batch(&[named(FILE_NAME + 1)], 0).is_err() && batch(&[], 0).is_err());
        assert!(batch(&vec![named(1); ENTRIES + 1], 0).is_err() && batch(&[named(1)], ALL_ENTRIES).is_err());
        assert_eq!(content(5, 5), Ok(0));
        assert!(content(6, 5).is_err() && content(0, 5).is_err());
    }
}
