//! A log as a stream: read from the sandbox while the reader is behind, and from memory once it has caught up.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    EngineError, Inner,
    live::LiveTask,
    masking::StreamMasking,
    output::{Follower, Next},
    supervision::Supervision,
};
use errand_bridge::{LogPiece, LogReader, OutputPiece, PackedPiece, Piece};
use errand_runtime::RuntimeError;
use errand_task::Task;

/// How often to retry when the log cannot be reached, and how long to wait before the first retry. The wait grows with each retry.
const BREAKS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);

/// What a stream yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamItem {
    /// Output of one stream, in order. Never empty. Its offset jumps only where the log has a gap.
    Output(OutputPiece),
    /// Output still compressed, as it came from the log.
    Packed(PackedPiece),
    /// The task has finished, and all of its output was yielded. This is the last item.
    Finished(Box<Task>),
}

/// A log from an offset on. Holds at most one piece at a time, so a slow reader delays only itself.
pub struct OutputStream {
    inner: Arc<Inner>,
    task: Task,
    live: Option<Arc<LiveTask>>,
    follower: Option<Follower>,
    /// The open log in the sandbox.
    reader: Option<LogReader>,
    position: u64,
    /// How often reading the log failed since something was last read.
    breaks: u32,
    /// The position at which memory last turned out to begin further on.
    behind_at: Option<u64>,
    follow: bool,
    /// Where to end, if known: the size of the log of a finished task, or without following, the size when the stream was opened.
    end: Option<u64>,
    done: bool,
    /// Hides secrets in what is yielded; none: nothing is hidden.
    masking: Option<StreamMasking>,
}

impl OutputStream {
    pub(super) async fn open(inner: Arc<Inner>, task: Task, offset: u64, follow: bool) -> Result<Self, EngineError> {
        let (task, live) = match inner.supervision(task.clone()).await? {
            Supervision::Here(live) => (task, Some(live)),
            Supervision::Finished(task) => (*task, None),
            Supervision::Elsewhere => return Err(EngineError::SupervisedElsewhere),
        };
        let masks = inner.masks_of(&task).await?.of_reads();
        // A secret may have begun before.
        let from = offset.saturating_sub(masks.margin() as u64);
        let mut stream = Self {
            inner,
            task,
            live,
            follower: None,
            reader: None,
            position: from,
            breaks: 0,
            behind_at: None,
            follow,
            end: None,
            done: false,
            masking: (!masks.is_empty()).then(|| StreamMasking::new(masks, from, offset)),
        };
        match stream.live.clone() {
            Some(live) => {
                let size = live.output.end();
                if offset > size {
                    return Err(EngineError::PastTheEnd { offset, size });
                }
                stream.follower = Some(live.output.follower(from));
                stream.end = (!follow).then_some(size);
            }
            None if stream.task.state.started_at().is_none() => {
                if offset > 0 {
                    return Err(EngineError::PastTheEnd { offset, size: 0 });
                }
                stream.end = Some(0);
            }
            None => {
                let reader = stream.open_log().await?;
                if offset > reader.size {
                    return Err(EngineError::PastTheEnd { offset, size: reader.size });
                }
                stream.end = Some(reader.size);
                stream.reader = Some(reader);
            }
        }
        Ok(stream)
    }

    /// The task when the stream was opened.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Size of all output in bytes, as far as is known.
    pub(super) fn size(&self) -> Option<u64> {
        self.live.as_ref().map(|live| live.output.end()).or(self.end)
    }

    /// True when there is output that was not yielded yet, or when that is not known.
    pub(super) fn is_behind(&self) -> bool {
        let holds = self.masking.as_ref().is_some_and(StreamMasking::holds);
        holds || self.live.as_ref().is_none_or(|live| self.position < live.output.end())
    }

    /// Opens the log at the current position. Retries a few times while the sandbox cannot be reached, so that a follower does not notice a
    /// short outage.
    async fn open_log(&mut self) -> Result<LogReader, EngineError> {
        loop {
            match self.try_open_log().await {
                Err(EngineError::Runtime(RuntimeError::Unavailable { detail })) if self.breaks < BREAKS => {
                    tracing::debug!(detail, "a log cannot be opened; trying again");
                    self.breaks += 1;
                    tokio::time::sleep(PAUSE * self.breaks).await;
                }
                opened => return opened,
            }
        }
    }

    async fn try_open_log(&mut self) -> Result<LogReader, EngineError> {
        let piece = Piece::From { offset: self.position, limit: i64::MAX as u64 };
        self.inner.open_log(&self.task, piece).await
    }

    /// The next item; none after the last one. Cancel safe.
    ///
    /// # Errors
    /// When the log cannot be read. The stream has ended then.
    pub async fn next(&mut self) -> Option<Result<StreamItem, EngineError>> {
        loop {
            let due = match &mut self.masking {
                None => return self.next_unmasked().await,
                Some(masking) => match masking.next() {
                    Ok(ended_or_item) => return ended_or_item.map(Ok),
                    Err(due) => due,
                },
            };
            let item = tokio::select! {
                biased;
                item = self.next_unmasked() => Some(item),
                () = until(due) => None,
            };
            // Nothing waits below: a caller that is dropped has lost no output.
            let Some(masking) = &mut self.masking else { continue };
            match item {
                Some(Some(Ok(item))) => {
                    if let Err(error) = masking.take(item) {
                        return Some(Err(masking.failed(error.into())));
                    }
                }
                Some(Some(Err(error))) => return Some(Err(masking.failed(error))),
                Some(None) => masking.finish(),
                None => masking.release(),
            }
        }
    }

    /// The next item as the command printed it. Cancel safe.
    async fn next_unmasked(&mut self) -> Option<Result<StreamItem, EngineError>> {
        if self.done {
            return None;
        }
        let item = self.step().await;
        match &item {
            Ok(Some(StreamItem::Output(piece))) => self.position = piece.end(),
            Ok(Some(StreamItem::Packed(piece))) => self.position = piece.end(),
            Ok(Some(StreamItem::Finished(_)) | None) | Err(_) => self.done = true,
        }
        item.transpose()
    }

    async fn step(&mut self) -> Result<Option<StreamItem>, EngineError> {
        loop {
            if self.end.is_some_and(|end| self.position >= end) {
                return Ok(self.last());
            }
            if let Some(reader) = &mut self.reader {
                match reader.next_as_it_is().await {
                    Some(Err(RuntimeError::Unavailable { detail })) if self.breaks < BREAKS => {
                        tracing::debug!(detail, "reading a log broke off; going on from there");
                        self.breaks += 1;
                        (self.reader, self.behind_at) = (None, None);
                        self.reader = Some(self.open_log().await?);
                    }
                    Some(piece) => {
                        self.breaks = 0;
                        if let Some(item) = self.logged(piece?)? {
                            return Ok(Some(item));
                        }
                    }
                    None => {
                        self.position = reader.gap.map_or(self.position, |gap| gap.past(self.position));
                        self.reader = None;
                        if self.live.is_none() {
                            // The log ends here, whatever size was reported before.
                            self.end = Some(self.position);
                        }
                    }
                }
                continue;
            }
            let Some(live) = self.live.clone() else {
                self.reader = Some(self.open_log().await?);
                continue;
            };
            let follower = self.follower.get_or_insert_with(|| live.output.follower(self.position));
            match follower.next(self.position).await {
                Next::Output(piece) => {
                    if let Some(item) = self.output(piece) {
                        return Ok(Some(item));
                    }
                }
                // The log had nothing from this position on: it was truncated, and the missing bytes exist nowhere.
                Next::Behind if self.behind_at == Some(self.position) => return Err(EngineError::LogGone),
                Next::Behind => {
                    self.behind_at = Some(self.position);
                    self.follower = None;
                    self.reader = Some(self.open_log().await?);
                }
                Next::End => {
                    self.task = live.finished().await;
                    self.end = Some(self.position);
                }
            }
        }
    }

    /// The part of `piece` before the end. Compressed output stays compressed if all of it is before the end.
    fn logged(&mut self, piece: LogPiece) -> Result<Option<StreamItem>, EngineError> {
        Ok(match piece {
            LogPiece::Plain(piece) => self.output(piece),
            LogPiece::Packed(piece) if self.end.is_none_or(|end| piece.end() <= end) => Some(StreamItem::Packed(piece)),
            LogPiece::Packed(piece) => self.output(piece.unpack()?),
        })
    }

    /// The part of `piece` before the end.
    fn output(&mut self, piece: OutputPiece) -> Option<StreamItem> {
        let offset = piece.offset;
        let piece = piece.up_to(self.end.unwrap_or(u64::MAX));
        if piece.is_none() {
            // The remaining output up to the end was not kept.
            self.position = self.position.max(offset);
        }
        piece.map(StreamItem::Output)
    }

    fn last(&self) -> Option<StreamItem> {
        let finished = self.task.status().is_terminal() && (self.follow || self.live.is_none());
        finished.then(|| StreamItem::Finished(Box::new(self.task.clone())))
    }
}

/// Waits until `due`; for ever when there is none.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
