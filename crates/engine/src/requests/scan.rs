//! Finding lines in a task's output: in the sandbox where something there can do that, otherwise here.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::TaskRef;
use crate::{Engine, EngineError, Inner, OutputStream, StreamItem};
use errand_bridge::{OutputPiece, SCAN_TIME, ScannedLog};
use errand_reading::{Query, Scan, Scanner};
use errand_task::{Gap, Task};

/// The most bytes that one step on a thread of its own scans.
const STEP: usize = 64 * 1024;

impl Engine {
    /// Finds lines in the output so far. A tenant has a few scans at the same time; others wait.
    ///
    /// # Errors
    /// As for [`Engine::read_output`]; [`EngineError::StreamsTogether`], [`EngineError::ScanTooLong`].
    pub async fn scan_output(&self, reference: &TaskRef, scan: &Scan) -> Result<ScannedLog, EngineError> {
        let task = self.task(reference).await?;
        if scan.stream.is_some() && !task.spec.separate_stderr {
            return Err(EngineError::StreamsTogether);
        }
        if task.state.started_at().is_none() {
            // The command never started: it printed nothing, and there may be no log.
            return Ok(ScannedLog::default());
        }
        let _place = self.inner.scans.acquire(&task.owner.tenant).await;
        let masks = self.inner.masks_of(&task).await?.of_reads();
        let in_sandbox = match self.inner.sandboxes.of_task(&task).await {
            // The sandbox would search what must stay hidden, and whether there is a match would tell what that is.
            Ok(_) if !masks.is_empty() => Ok(None),
            Ok(sandbox) => sandbox.bridge.scan(task.id, scan).await.map_err(EngineError::from),
            Err(error) => Err(error),
        };
        let scanned = match in_sandbox {
            Ok(Some(scanned)) => scanned,
            Ok(None) => scan_here(&self.inner, task, scan).await?,
            // What is retained of the output needs no sandbox.
            Err(_) if task.retained.is_some() => scan_here(&self.inner, task, scan).await?,
            Err(error) => return Err(error),
        };
        match scan.query {
            // The last lines of a part are not the last lines.
            Query::Lines { offset, .. } if offset < 0 && scanned.cut_short => {
                Err(EngineError::ScanTooLong { limit: SCAN_TIME, read: scanned.found.position, size: scanned.size })
            }
            _ => Ok(scanned),
        }
    }
}

/// Reads the output of a task and looks for the lines, in steps that share the threads with other searches.
async fn scan_here(inner: &Arc<Inner>, task: Task, scan: &Scan) -> Result<ScannedLog, EngineError> {
    let end = Instant::now() + SCAN_TIME;
    let tenant = task.owner.tenant.clone();
    let mut output = OutputStream::open(Arc::clone(inner), task, 0, false).await?;
    let size = output.size().unwrap_or_default();
    let mut scanner = Scanner::new(scan);
    let (mut position, mut gap, mut cut_short) = (0, None, false);
    while !cut_short {
        let piece = match timeout_at(end, output.next()).await {
            Err(_) => {
                cut_short = true;
                break;
            }
            Ok(None | Some(Ok(StreamItem::Finished(_)))) => break,
            Ok(Some(Err(error))) => return Err(error),
            Ok(Some(Ok(StreamItem::Output(piece)))) => piece,
            Ok(Some(Ok(StreamItem::Packed(piece)))) => piece.unpack()?,
        };
        if piece.offset > position {
            gap = Some(Gap { start: position, end: piece.offset });
        }
        let OutputPiece { mut offset, stream, mut bytes } = piece;
        position = offset + bytes.len() as u64;
        while !bytes.is_empty() && !cut_short {
            let part: Bytes = bytes.split_to(bytes.len().min(STEP));
            let next = offset + part.len() as u64;
            let permit = inner.searches.acquire(&tenant).await;
            let step = tokio::task::spawn_blocking(move || {
                scanner.push(offset, stream, &part);
                drop(permit);
                scanner
            });
            scanner = step.await.map_err(|_| EngineError::Defect)?;
            offset = next;
            cut_short = Instant::now() >= end && offset < size;
        }
    }
    if !cut_short && position < size {
        gap = Some(Gap { start: position, end: size });
    }
    Ok(ScannedLog { found: scanner.finish(), size, gap, cut_short })
}
