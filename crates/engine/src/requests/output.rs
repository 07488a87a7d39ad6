//! Reading a task's output.

use std::sync::Arc;

use super::{OutputSlice, ReadSelection, TaskRef};
use crate::{Engine, EngineError, OutputStream, supervision::Supervision};
use errand_bridge::{OutputPiece, Piece};
use errand_task::Task;

impl Engine {
    /// Reads parts of a log.
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
        let piece = match selection {
            ReadSelection::Range { offset, limit } => Piece::From { offset, limit },
            ReadSelection::Tail { limit } => Piece::Tail { limit },
            ReadSelection::HeadTail { tail, .. } => Piece::Tail { limit: tail },
        };
        let (total, start, pieces) = match live.as_ref().and_then(|live| live.output.piece(piece)) {
            Some(found) => found,
            None => self.read_log(&task, piece).await?,
        };
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
            let head = self.read_log(&task, Piece::From { offset: 0, limit }).await?.2;
            // Where the head has a gap, the read returns later bytes instead; cut those that the tail already contains.
            parts.extend(head.into_iter().filter_map(|piece| piece.up_to(start)));
        }
        parts.extend(pieces);
        Ok(OutputSlice { parts, total, finished, terminal_rows })
    }

    async fn read_log(&self, task: &Task, piece: Piece) -> Result<(u64, u64, Vec<OutputPiece>), EngineError> {
        let reader = self.inner.open_log(task, piece).await?;
        let (size, start) = (reader.size, reader.start);
        Ok((size, start, reader.collect().await?))
    }

    /// Opens a log at an offset.
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
