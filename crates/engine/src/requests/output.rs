//! Reading a task's output.

use std::sync::Arc;

use super::{OutputSlice, ReadSelection, TaskRef};
use crate::{Engine, EngineError, OutputStream, live::LiveTask, masking::mask_pieces, supervision::Supervision};
use errand_bridge::{OutputPiece, Piece};
use errand_masks::{Cut, Masks};
use errand_task::Task;

/// A part of a log: size of all output, position of the part's first byte, and its pieces.
type Part = (u64, u64, Vec<OutputPiece>);

impl Engine {
    /// Reads parts of a log, masked by the tenant's policy.
    ///
    /// # Errors
    /// As for [`Engine::task`]; [`EngineError::PastTheEnd`], [`EngineError::LogGone`], [`EngineError::SandboxNotRunning`].
    pub async fn read_output(&self, reference: &TaskRef, selection: ReadSelection) -> Result<OutputSlice, EngineError> {
        let task = self.task(reference).await?;
        let terminal_rows = task.spec.terminal.map(|size| size.rows);
        if task.state.started_at().is_none() {
            // The command never started: it printed nothing, and there may be no log.
            return match selection {
                ReadSelection::Range { offset, .. } if offset > 0 => Err(EngineError::PastTheEnd { offset, size: 0 }),
                _ => Ok(OutputSlice { finished: task.status().is_terminal(), ..OutputSlice::default() }),
            };
        }
        let (task, live, finished) = match self.inner.supervision(task.clone()).await? {
            Supervision::Here(live) => (task, Some(live), false),
            Supervision::Finished(task) => (*task, None, true),
            Supervision::Elsewhere => return Err(EngineError::SupervisedElsewhere),
        };
        let masks = self.inner.masks_of(&task).await?.of_reads();
        let piece = match selection {
            ReadSelection::Range { offset, limit } => Piece::From { offset, limit },
            ReadSelection::Tail { limit } => Piece::Tail { limit },
            ReadSelection::HeadTail { tail, .. } => Piece::Tail { limit: tail },
        };
        let reading = Reading { engine: self, task: &task, live: live.as_deref(), masks };
        let (total, start, pieces) = reading.piece(piece).await?;
        if let ReadSelection::Range { offset, .. } = selection
            && offset > total
        {
            return Err(EngineError::PastTheEnd { offset, size: total });
        }
        let mut parts = Vec::new();
        if let ReadSelection::HeadTail { head, .. } = selection
            && start > 0
        {
            let limit = head.min(start);
            let head = reading.masked(self.read_log(&task, Piece::From { offset: 0, limit }).await?).await?.2;
            // Where the head has a gap, the read returns later bytes instead; cut those that the tail already contains.
            parts.extend(head.into_iter().filter_map(|piece| piece.up_to(start)));
        }
        parts.extend(pieces);
        Ok(OutputSlice { parts, total, finished, terminal_rows })
    }

    async fn read_log(&self, task: &Task, piece: Piece) -> Result<Part, EngineError> {
        let reader = self.inner.open_log(task, piece).await?;
        let (size, start) = (reader.size, reader.start);
        Ok((size, start, reader.collect().await?))
    }

    /// Opens a log at an offset. What is yielded is masked by the tenant's policy.
    ///
    /// # Errors
    /// As for [`Engine::read_output`].
    pub async fn stream_output(
        &self,
        reference: &TaskRef,
        offset: u64,
        follow: bool,
    ) -> Result<OutputStream, EngineError> {
        let task = self.task(reference).await?;
        OutputStream::open(Arc::clone(&self.inner), task, offset, follow).await
    }
}

/// Reads parts of one task's output.
struct Reading<'a> {
    engine: &'a Engine,
    task: &'a Task,
    live: Option<&'a LiveTask>,
    masks: Masks,
}

impl Reading<'_> {
    /// A part of the output, masked.
    async fn piece(&self, piece: Piece) -> Result<Part, EngineError> {
        self.masked(self.raw(piece).await?).await
    }

    async fn raw(&self, piece: Piece) -> Result<Part, EngineError> {
        match self.live.and_then(|live| live.output.piece(piece)) {
            Some(found) => Ok(found),
            None => self.engine.read_log(self.task, piece).await,
        }
    }

    /// Masks a part. Also reads the output around it, which decides what of the part belongs to a secret.
    async fn masked(&self, (total, start, pieces): Part) -> Result<Part, EngineError> {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return Ok((total, start, pieces)) };
        if self.masks.is_empty() {
            return Ok((total, start, pieces));
        }
        let (from, to, margin) = (first.offset, last.end(), self.masks.margin() as u64);
        let before = from.saturating_sub(margin);
        let mut around = Vec::new();
        if before < from {
            let read = self.raw(Piece::From { offset: before, limit: from - before }).await?.2;
            // Where the log has a gap, the read returns later bytes instead.
            around.extend(read.into_iter().filter_map(|piece| piece.up_to(from)));
        }
        let (first, count) = (around.len(), pieces.len());
        around.extend(pieces);
        if margin > 0 && to < total {
            around.extend(self.raw(Piece::From { offset: to, limit: margin }).await?.2);
        }
        mask_pieces(&mut around, &self.masks, Cut { start: before > 0, end: true });
        Ok((total, start, around.drain(first..first + count).collect()))
    }
}
