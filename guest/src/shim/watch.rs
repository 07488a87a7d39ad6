//! Searches the output of one task for the watches of one connection, beside the log and never in the command's way.
//!
//! Output is searched while it is still in the buffer that it was copied through. Where it was not copied, or the search has fallen behind, it
//! is read from the log. A search that takes more than a share of the time falls behind on purpose: the command's output is logged at its own
//! rate. What the log has not kept by the time that the search gets there is left out and counted.

use std::time::{Duration, Instant};

use crate::{
    log_reader::{LogReader, Piece},
    task_dir::TaskDir,
};
use errand_proto::bridge::{Matched, Watch, WatchMatches, watch::Kind};
use errand_task::{ArmedWatch, WATCH_LIMIT, WatchPattern};
use errand_watching::{Found, Scanner};

/// The pause after which output counts as complete for now: a match at its end counts, and its last line is shown as it is.
const SETTLED_AFTER: Duration = Duration::from_millis(50);
/// The shortest time between two reports of matches.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// After a search, this many times its duration belongs to everything else.
const OTHERS: u32 = 9;
/// How much of that may be owed: short searches need not wait.
const CREDIT: Duration = Duration::from_millis(20);
/// How long one search of a piece should take at most.
const SLICE: Duration = Duration::from_millis(1);
/// The most and the fewest bytes that are searched at once.
const LARGEST: usize = 64 * 1024;
const SMALLEST: usize = 4 * 1024;
/// How long the end of a command may be delayed to search the rest of its output.
const AT_END: Duration = Duration::from_millis(100);

/// A search for the watches of one connection.
pub(super) struct Watcher {
    scanner: Scanner,
    log: Option<LogReader>,
    pace: Pace,
    /// When output was last searched.
    searched_at: Instant,
    /// Whether the other side takes another report of matches, and from when on.
    may_report: bool,
    report_from: Instant,
    unsearched: u64,
}

impl Watcher {
    /// None when a pattern is not accepted: then the other side searches.
    pub(super) fn new(watches: Vec<Watch>) -> Option<Self> {
        let armed: Vec<_> = watches.into_iter().take(WATCH_LIMIT).map(armed).collect::<Option<_>>()?;
        let (scanner, now) = (Scanner::new(&armed).ok()?, Instant::now());
        Some(Self {
            scanner,
            log: None,
            pace: Pace::new(now),
            searched_at: now,
            may_report: true,
            report_from: now,
            unsearched: 0,
        })
    }

    /// Searches output that was just copied, unless the search is behind.
    pub(super) fn tap(&mut self, position: u64, bytes: &[u8]) {
        if position == self.scanner.position() && self.pace.allows(bytes.len(), Instant::now()) {
            self.search(position, bytes);
        }
    }

    /// Searches output of the log, of which there are `size` bytes, for as long as that may take for now.
    pub(super) fn catch_up(&mut self, task: &TaskDir, size: u64) {
        while self.is_behind(size) && self.pace.allows(0, Instant::now()) && self.read(task, size) {}
    }

    /// Searches the rest of the output at the end of a command.
    pub(super) fn finish(&mut self, task: &TaskDir, size: u64) {
        let until = Instant::now() + AT_END;
        while self.is_behind(size) && self.read(task, size) {
            if Instant::now() >= until {
                self.unsearched += size.saturating_sub(self.scanner.position());
                break;
            }
        }
        self.scanner.settle();
    }

    fn is_behind(&self, size: u64) -> bool {
        self.scanner.position() < size && !self.scanner.is_done()
    }

    /// Reads a piece of the log and searches it. False when nothing could be read.
    fn read(&mut self, task: &TaskDir, size: u64) -> bool {
        let position = self.scanner.position();
        if self.log.as_ref().is_none_or(|log| log.position() != position) {
            self.log = LogReader::open(task, position).ok();
        }
        let mut buffer = vec![0; self.pace.slice()];
        let piece = self.log.as_mut().and_then(|log| log.read(&mut buffer).ok().flatten());
        let Some(Piece { offset, size: read, .. }) = piece else {
            // The log ends earlier than its size says: what is missing was not kept.
            self.unsearched += size.saturating_sub(position);
            self.scanner.skip_to(size);
            self.log = None;
            return false;
        };
        self.unsearched += offset.saturating_sub(position);
        self.search(offset, &buffer[..read]);
        true
    }

    fn search(&mut self, position: u64, bytes: &[u8]) {
        let begun = Instant::now();
        self.scanner.push(position, bytes);
        self.searched_at = Instant::now();
        self.pace.took(bytes.len(), self.searched_at - begun, self.searched_at);
    }

    /// When there is something to do next, with a log of `size` bytes.
    pub(super) fn due(&self, size: u64) -> Option<Instant> {
        let searches = if self.is_behind(size) {
            Some(self.pace.next())
        } else {
            self.scanner.is_unsettled().then(|| self.searched_at + SETTLED_AFTER)
        };
        let reports = (self.may_report && self.scanner.has_found()).then_some(self.report_from);
        [searches, reports].into_iter().flatten().min()
    }

    /// Settles the search once nothing more has come for a while.
    pub(super) fn settle(&mut self, size: u64, now: Instant) {
        if !self.is_behind(size) && self.scanner.is_unsettled() && self.searched_at + SETTLED_AFTER <= now {
            self.scanner.settle();
        }
    }

    /// The matches, if it is time to report them; `last`: there is no other time.
    pub(super) fn matched(&mut self, now: Instant, last: bool) -> Option<Matched> {
        let due = last || (self.may_report && self.report_from <= now);
        if !due || !(self.scanner.has_found() || (last && self.unsearched > 0)) {
            return None;
        }
        (self.may_report, self.report_from) = (false, now + REPORT_EVERY);
        let matches = self.scanner.take().into_iter().map(matches).collect();
        Some(Matched { matches, unsearched_bytes: std::mem::take(&mut self.unsearched) })
    }

    /// The other side takes another report.
    pub(super) fn may_report(&mut self) {
        self.may_report = true;
    }
}

fn armed(watch: Watch) -> Option<ArmedWatch> {
    let Watch { index, kind, once, from } = watch;
    let pattern = match kind? {
        Kind::Substring(text) => WatchPattern::Text(text),
        Kind::Regex(pattern) => WatchPattern::Regex(pattern),
    };
    Some(ArmedWatch { index, pattern, once, from })
}

fn matches(found: Found) -> WatchMatches {
    let Found { index, count, offset, next, lines, cut } = found;
    WatchMatches { index, count, offset, next, lines: lines.into(), cut }
}

/// Limits the share of time that a search takes.
struct Pace {
    /// Until then, the time belongs to everything else.
    free_at: Instant,
    /// How long a search of 1 KiB last took.
    per_kib: Duration,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { free_at: now, per_kib: Duration::ZERO }
    }

    /// Whether so many bytes may be searched now.
    fn allows(&self, bytes: usize, now: Instant) -> bool {
        now >= self.next() && (bytes <= SMALLEST || self.estimate(bytes) <= 2 * SLICE)
    }

    /// When something may be searched.
    fn next(&self) -> Instant {
        self.free_at.checked_sub(CREDIT).unwrap_or(self.free_at)
    }

    fn estimate(&self, bytes: usize) -> Duration {
        self.per_kib * u32::try_from(bytes / 1024).unwrap_or(u32::MAX)
    }

    /// How many bytes to search at once.
    fn slice(&self) -> usize {
        let kib = SLICE.as_nanos() / self.per_kib.as_nanos().max(1);
        usize::try_from(kib).unwrap_or(LARGEST).saturating_mul(1024).clamp(SMALLEST, LARGEST)
    }

    fn took(&mut self, bytes: usize, time: Duration, now: Instant) {
        self.free_at = self.free_at.max(now) + time * OTHERS;
        if bytes >= SMALLEST {
            self.per_kib = time / u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::FileExt as _,
        path::Path,
    };

    use super::*;

    fn watcher(text: &str) -> Watcher {
        let kind = Some(Kind::Substring(text.to_owned()));
        Watcher::new(vec![Watch { kind, ..Watch::default() }]).expect("a pattern")
    }

    fn task(root: &Path, log: &[u8]) -> TaskDir {
        let task = TaskDir::new(root, "t").expect("an id");
        fs::create_dir(task.path()).expect("made");
        File::create(task.file("output.log")).expect("made").write_all_at(log, 0).expect("written");
        task
    }

    fn counts(matched: Option<Matched>) -> (u64, u64) {
        let matched = matched.expect("matches");
        (matched.matches.iter().map(|matches| matches.count).sum(), matched.unsearched_bytes)
    }

    #[test]
    fn tapped_and_logged_output_are_one_search() {
        let root = tempfile::tempdir().expect("a directory");
        let log = b"a needle and another nee";
        let task = task(root.path(), log);
        let mut watcher = watcher("needle");
        watcher.tap(100, b"out of turn needle");
        watcher.catch_up(&task, log.len() as u64);
        watcher.tap(log.len() as u64, b"dle\n");
        assert_eq!(counts(watcher.matched(Instant::now(), false)), (2, 0));
        assert!(watcher.matched(Instant::now(), false).is_none());
    }

    #[test]
    fn reports_wait_for_the_other_side() {
        let mut watcher = watcher("x");
        watcher.tap(0, b"x\n");
        let now = Instant::now();
        assert_eq!(counts(watcher.matched(now, false)), (1, 0));
        watcher.tap(2, b"x\nx\n");
        assert_eq!((watcher.due(6), watcher.matched(now + REPORT_EVERY, false)), (None, None));
        watcher.may_report();
        assert!(watcher.matched(now, false).is_none(), "too early");
        assert_eq!(watcher.due(6), Some(now + REPORT_EVERY));
        assert_eq!(counts(watcher.matched(now + REPORT_EVERY, false)), (2, 0));
    }

    #[test]
    fn output_that_was_not_kept_is_counted() {
        let root = tempfile::tempdir().expect("a directory");
        let task = task(root.path(), b"needle");
        fs::write(task.file("gap"), "3 90\n").expect("written");
        File::options()
            .write(true)
            .open(task.file("output.log"))
            .expect("open")
            .write_all_at(b" needle\n", 90)
            .expect("written");
        let mut watcher = watcher("needle");
        watcher.finish(&task, 98);
        assert_eq!(counts(watcher.matched(Instant::now(), true)), (1, 87));
    }

    #[test]
    fn slow_searches_leave_most_of_the_time() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert!(pace.allows(LARGEST, now) && pace.slice() == LARGEST);
        pace.took(LARGEST, Duration::from_millis(64), now);
        assert!(!pace.allows(0, now) && pace.slice() == SMALLEST);
        let later = now + Duration::from_millis(64) * OTHERS;
        assert!(pace.allows(SMALLEST, later) && !pace.allows(LARGEST, later));
        // Half a minute of searches as fast as they may come.
        let (mut at, mut spent) = (later, Duration::ZERO);
        while at < later + Duration::from_secs(30) {
            at = at.max(pace.next()) + Duration::from_millis(4);
            spent += Duration::from_millis(4);
            pace.took(SMALLEST, Duration::from_millis(4), at);
        }
        assert!(spent < Duration::from_secs(4), "{spent:?}");
    }

    #[test]
    fn unknown_patterns_are_left_to_the_server() {
        assert!(Watcher::new(vec![Watch::default()]).is_none());
        let kind = Some(Kind::Regex("(".to_owned()));
        assert!(Watcher::new(vec![Watch { kind, ..Watch::default() }]).is_none());
    }
}
