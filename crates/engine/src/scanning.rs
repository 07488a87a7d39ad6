//! Searches the output of a task for its watches on the server, where nothing in the sandbox does: with the direct bridge, and with an older
//! guest.
//!
//! Reads the output like any other follower, so that it delays the task's supervisor only briefly, and reads the log when it falls behind. A
//! search that may take long runs on a thread of its own, like the searches of waiting callers.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{EngineError, Inner, OutputStream, StreamItem};
use errand_task::{ArmedWatch, Task, WatchLines, WatchMatches, WatchPattern};
use errand_watching::{Found, Scanner};

/// The pause after which output counts as complete for now.
const SETTLED_AFTER: Duration = Duration::from_millis(50);
/// The most bytes that are searched at once.
const STEP: usize = 16 * 1024;

/// A search in progress. Dropping it ends it.
pub(super) struct Scan {
    found: mpsc::Receiver<(Vec<WatchMatches>, u64)>,
    task: AbortHandle,
}

impl Scan {
    /// Begins to search the output of an unfinished task.
    pub(super) fn begin(inner: &Arc<Inner>, task: Task, watches: Vec<ArmedWatch>) -> Self {
        // While nothing is received, matches are counted up in the search.
        let (tell, found) = mpsc::channel(1);
        let searching = Arc::clone(inner);
        let running = inner.tracker.spawn(async move {
            let ended = tokio::select! {
                () = searching.leave.cancelled() => return,
                ended = scan(&searching, task, &watches, &tell) => ended,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "output cannot be searched for watches");
            }
        });
        Self { found, task: running.abort_handle() }
    }

    /// The next matches, and how many bytes could not be searched. Never returns once the search has ended. Cancel safe.
    pub(super) async fn next(&mut self) -> (Vec<WatchMatches>, u64) {
        match self.found.recv().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn scan(
    inner: &Arc<Inner>,
    task: Task,
    watches: &[ArmedWatch],
    tell: &mpsc::Sender<(Vec<WatchMatches>, u64)>,
) -> Result<(), EngineError> {
    let quick = watches.iter().all(|watch| matches!(watch.pattern, WatchPattern::Text(_)));
    let tenant = task.owner.tenant.clone();
    let Ok(mut scanner) = Scanner::new(watches) else { return Ok(()) };
    let mut stream = OutputStream::open(Arc::clone(inner), task, scanner.position(), true).await?;
    let (mut unsearched, mut settles_at) = (0, None);
    loop {
        let item = tokio::select! {
            biased;
            slot = tell.reserve(), if scanner.has_found() => {
                let Ok(slot) = slot else { return Ok(()) };
                let found = scanner.take().into_iter().map(matches).collect();
                slot.send((found, std::mem::take(&mut unsearched)));
                continue;
            }
            item = stream.next() => item,
            () = until(settles_at) => {
                settles_at = None;
                scanner.settle();
                continue;
            }
        };
        let piece = match item.transpose()? {
            Some(StreamItem::Output(piece)) => piece,
            Some(StreamItem::Packed(piece)) => piece.unpack()?,
            Some(StreamItem::Finished(_)) | None => return Ok(()),
        };
        unsearched += piece.offset.saturating_sub(scanner.position());
        let (mut offset, mut bytes) = (piece.offset, piece.bytes);
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(STEP));
            let at = offset;
            offset += part.len() as u64;
            if quick {
                scanner.push(at, &part);
                tokio::task::yield_now().await;
            } else {
                let slots = inner.searches.acquire(&tenant).await;
                let searched = tokio::task::spawn_blocking(move || {
                    scanner.push(at, &part);
                    drop(slots);
                    scanner
                });
                scanner = searched.await.map_err(|_| EngineError::Defect)?;
            }
        }
        settles_at = scanner.is_unsettled().then(|| Instant::now() + SETTLED_AFTER);
    }
}

fn matches(found: Found) -> WatchMatches {
    let Found { index, count, offset, next, lines, cut } = found;
    WatchMatches { index, count, offset, next, lines: WatchLines::of(&lines, cut) }
}

/// Waits until `due`; for ever when there is none.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
