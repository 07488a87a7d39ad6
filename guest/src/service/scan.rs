//! Finds lines in a log, beside the log.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tonic::Status;

use super::open_log;
use crate::{
    log_reader::{LogReader, Piece},
    task_dir::TaskDir,
};
use errand_proto::bridge::{
    ScanGrep, ScanLogRequest, ScanLogResponse, ScannedLine, Stream as Message, scan_grep,
    scan_log_request::Query as Asked,
};
use errand_reading::{CONTEXT_LIMIT, Grep, LINES_LIMIT, Line, MATCHES_LIMIT, Pattern, Query, Scan, Scanned, Scanner};
use errand_task::Stream;

/// The longest scan.
const LONGEST: Duration = Duration::from_secs(60);
/// How much is scanned at a time: whether to go on is decided in between.
const STEP: usize = 32 * 1024;
/// The niceness of a scan's thread: it must not slow down the command that writes the log.
const NICE: i32 = 10;
/// The stack of that thread in bytes.
const STACK: usize = 512 * 1024;
/// The most scans at the same time. Others wait.
static PLACES: Semaphore = Semaphore::const_new(2);

/// Scans a log. If the caller is dropped, the scan ends soon.
pub(super) async fn scan(task: &TaskDir, request: ScanLogRequest) -> Result<ScanLogResponse, Status> {
    let time = Duration::from_millis(request.time_ms).min(LONGEST);
    let scan = asked(request)?;
    let place = PLACES.acquire().await.map_err(|_| Status::unavailable("the bridge ends"))?;
    let log = open_log(task, 0)?;
    let gap = task.gap();
    let size = task.output_bytes(gap.as_ref());
    let scanning =
        Scanning { scanner: Scanner::new(&scan), log, size, end: Instant::now() + time, buffer: vec![0; STEP] };
    let (scanned, cut_short) = run(scanning, place).await.map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => Status::cancelled("the caller has gone"),
        _ => Status::data_loss(format!("the log cannot be read: {error}")),
    })?;
    let Scanned { lines, total_lines, matching_lines, left_out, position } = scanned;
    let lines = lines.into_iter().map(line).collect();
    Ok(ScanLogResponse { size, gap: task.gap(), position, cut_short, total_lines, matching_lines, left_out, lines })
}

/// Runs on a thread of its own, or on the async runtime in a sandbox at its limit of processes.
async fn run(scanning: Scanning, place: SemaphorePermit<'static>) -> io::Result<(Scanned, bool)> {
    let caller = Caller::default();
    let gone = Arc::clone(&caller.gone);
    let (answer, answered) = oneshot::channel();
    let (hand_over, taken) = std::sync::mpsc::sync_channel::<(Scanning, SemaphorePermit<'static>)>(1);
    let thread = std::thread::Builder::new().name("errand-scan".to_owned()).stack_size(STACK).spawn(move || {
        let _ = rustix::process::nice(NICE);
        if let Ok((mut scanning, _place)) = taken.recv() {
            let scanned = loop {
                match scanning.step() {
                    _ if gone.load(Ordering::Relaxed) => break Err(io::ErrorKind::Interrupted.into()),
                    Ok(None) => {}
                    Ok(Some(cut_short)) => break Ok((scanning.scanner.finish(), cut_short)),
                    Err(error) => break Err(error),
                }
            };
            // If nobody waits for it any more, it is dropped.
            let _ = answer.send(scanned);
        }
    });
    if thread.is_ok() {
        // The thread waits for just this value.
        let _ = hand_over.send((scanning, place));
        return answered.await.unwrap_or_else(|_| Err(io::Error::other("the scan broke off")));
    }
    let mut scanning = scanning;
    loop {
        if let Some(cut_short) = scanning.step()? {
            return Ok((scanning.scanner.finish(), cut_short));
        }
        tokio::task::yield_now().await;
    }
}

/// Waits for a scan. Once this is dropped, the result is not wanted any more.
#[derive(Default)]
struct Caller {
    gone: Arc<AtomicBool>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// A scan in progress.
struct Scanning {
    scanner: Scanner,
    log: LogReader,
    /// Where the scan ends.
    size: u64,
    /// When it ends, wherever it is.
    end: Instant,
    buffer: Vec<u8>,
}

impl Scanning {
    /// Scans the next part of the log. At the end returns whether there was more.
    fn step(&mut self) -> io::Result<Option<bool>> {
        let left = self.size.saturating_sub(self.log.position());
        if left == 0 {
            return Ok(Some(false));
        }
        if Instant::now() >= self.end {
            return Ok(Some(true));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
        let Some(Piece { offset, stream, size }) = self.log.read(&mut self.buffer[..most])? else {
            return Ok(Some(false));
        };
        // Output may be discarded meanwhile; what comes after it is newer than the scan.
        let size = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(size).min(size);
        if size == 0 {
            return Ok(Some(false));
        }
        let stream = match stream {
            Message::Unspecified => Stream::Both,
            Message::Stdout => Stream::Stdout,
            Message::Stderr => Stream::Stderr,
        };
        self.scanner.push(offset, stream, &self.buffer[..size]);
        Ok(None)
    }
}

/// What the server asks for.
fn asked(request: ScanLogRequest) -> Result<Scan, Status> {
    let refused = |what: &str| Status::invalid_argument(what.to_owned());
    let most = |given: u32, limit: usize| usize::try_from(given).unwrap_or(limit).min(limit);
    let stream = match request.stream.map(|_| request.stream()) {
        None => None,
        Some(Message::Unspecified) => Some(Stream::Both),
        Some(Message::Stdout) => Some(Stream::Stdout),
        Some(Message::Stderr) => Some(Stream::Stderr),
    };
    let query = match request.query {
        None => return Err(refused("query: missing")),
        Some(Asked::Lines(lines)) => {
            let farthest = i64::try_from(LINES_LIMIT).unwrap_or(i64::MAX);
            Query::Lines { offset: lines.offset.max(-farthest), limit: most(lines.limit, LINES_LIMIT) }
        }
        Some(Asked::Grep(ScanGrep { pattern, ignore_case, before, after, most: matches })) => {
            let pattern = match pattern {
                None => return Err(refused("pattern: missing")),
                Some(scan_grep::Pattern::Text(text)) => Pattern::text(&text, ignore_case),
                Some(scan_grep::Pattern::Regex(regex)) => Pattern::regex(&regex, ignore_case),
            };
            Query::Grep(Grep {
                pattern: pattern.map_err(|error| refused(&format!("pattern: {error}")))?,
                before: most(before, CONTEXT_LIMIT),
                after: most(after, CONTEXT_LIMIT),
                most: most(matches, MATCHES_LIMIT),
            })
        }
    };
    Ok(Scan { query, stream })
}

fn line(line: Line) -> ScannedLine {
    let Line { number, offset, end, text, left_out, matched, stream } = line;
    let stream = match stream {
        Stream::Both => Message::Unspecified,
        Stream::Stdout => Message::Stdout,
        Stream::Stderr => Message::Stderr,
    };
    ScannedLine { number, offset, end, text, left_out, matched, stream: stream.into() }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::FileExt as _};

    use super::*;
    use errand_proto::bridge::{Gap, ScanLines, scan_log_request::Query};

    fn request(query: Query, time_ms: u64) -> ScanLogRequest {
        ScanLogRequest { task_id: "t".to_owned(), query: Some(query), stream: None, time_ms }
    }

    fn grep(text: &str) -> Query {
        let pattern = Some(scan_grep::Pattern::Text(text.to_owned()));
        Query::Grep(ScanGrep { pattern, most: 10, ..ScanGrep::default() })
    }

    fn task(root: &std::path::Path) -> TaskDir {
        let task = TaskDir::new(root, "t").expect("an id");
        fs::create_dir(task.path()).expect("made");
        task
    }

    #[tokio::test]
    async fn lines_on_both_sides_of_a_gap_are_found() {
        let root = tempfile::tempdir().expect("a directory");
        let task = task(root.path());
        let log = fs::File::create(task.file("output.log")).expect("made");
        log.write_all_at(b"needle 1\nlost needle", 0).expect("written");
        log.write_all_at(b"eedle\nneedle 2\n", 1000).expect("written");
        fs::write(task.file("gap"), "13 1000\n").expect("written");
        let found = scan(&task, request(grep("needle"), 9000)).await.expect("scanned");
        let told: Vec<_> = found.lines.iter().map(|line| (line.number, line.offset, line.text.as_str())).collect();
        assert_eq!(told, [(1, 0, "needle 1"), (4, 1006, "needle 2")]);
        assert_eq!((found.size, found.gap, found.cut_short), (1015, Some(Gap { start: 13, end: 1000 }), false));
        assert_eq!((found.total_lines, found.matching_lines, found.position), (4, 2, 1015));
    }

    #[test]
    fn output_newer_than_the_scan_is_not_scanned() {
        let root = tempfile::tempdir().expect("a directory");
        let task = task(root.path());
        fs::write(task.file("output.log"), "line\n".repeat(200)).expect("written");
        let scan = asked(request(grep("line"), 9)).expect("a scan");
        let (scanner, log) = (Scanner::new(&scan), LogReader::open(&task, 0).expect("a log"));
        let end = Instant::now() + Duration::from_secs(60);
        let mut scanning = Scanning { scanner, log, size: 500, end, buffer: vec![0; 100] };
        assert!(matches!(scanning.step(), Ok(None)));
        // Written only now: everything that is still to be scanned is discarded, and what comes after it is newer.
        fs::write(task.file("gap"), "100 700 \n").expect("written");
        assert!(matches!(scanning.step(), Ok(Some(false))));
        let found = scanning.scanner.finish();
        assert_eq!((found.position, found.total_lines), (100, 20));
    }

    #[tokio::test]
    async fn scan_ends_when_its_time_is_up() {
        let root = tempfile::tempdir().expect("a directory");
        let task = task(root.path());
        fs::write(task.file("output.log"), "line\n".repeat(100_000)).expect("written");
        let lines = || Query::Lines(ScanLines { offset: 0, limit: 3 });
        let found = scan(&task, request(lines(), 0)).await.expect("scanned");
        assert_eq!((found.cut_short, found.position, found.size), (true, 0, 500_000));
        let found = scan(&task, request(lines(), 60_000)).await.expect("scanned");
        assert_eq!(
            (found.cut_short, found.position, found.total_lines, found.lines.len()),
            (false, 500_000, 100_000, 3)
        );
    }

    #[tokio::test]
    async fn scans_of_dropped_callers_end_soon() {
        let root = tempfile::tempdir().expect("a directory");
        let task = task(root.path());
        // A log without end, as far as the scans are concerned.
        fs::File::create(task.file("output.log")).and_then(|log| log.set_len(1 << 40)).expect("made");
        for _ in 0..2 {
            let scan = scan(&task, request(grep("needle"), 60_000));
            assert!(tokio::time::timeout(Duration::from_millis(50), scan).await.is_err(), "it takes long");
        }
        // Both places are free again long before the time of the scans is up.
        let next = tokio::time::timeout(Duration::from_secs(20), PLACES.acquire_many(2)).await;
        assert!(next.is_ok_and(|places| places.is_ok()));
    }

    #[tokio::test]
    async fn malformed_scans_are_refused() {
        let root = tempfile::tempdir().expect("a directory");
        let task = task(root.path());
        let code = async |request| scan(&task, request).await.expect_err("refused").code();
        assert_eq!(code(request(grep(""), 9)).await, tonic::Code::InvalidArgument);
        assert_eq!(code(request(Query::Grep(ScanGrep::default()), 9)).await, tonic::Code::InvalidArgument);
        assert_eq!(code(request(grep("x"), 9)).await, tonic::Code::NotFound);
    }
}
