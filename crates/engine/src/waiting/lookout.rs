//! Looks for a pattern in the output of one task: in the log first, then in new output as it arrives.
//!
//! Works in small steps, so that a long log delays no other caller. A step that may take long runs on a thread of its own; a tenant has one
//! such step at a time, and all tenants together have a few.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::search::{Found, OutputMatch, OutputPattern, Search};
use crate::{EngineError, Inner, OutputStream, StreamItem, masking::TaskMasks, permits::Pool};
use errand_bridge::OutputPiece;
use errand_task::{Task, TenantId};

/// The most bytes that one step searches.
const STEP: usize = 16 * 1024;
/// How long output must pause before a match at its end counts.
const SETTLED_AFTER: Duration = Duration::from_millis(50);
/// How many steps may run on threads of their own, over all tenants.
const THREADS: usize = 4;

/// Who may search on a thread of its own.
pub(crate) struct SearchPermits {
    tenants: Pool<TenantId>,
    all: Arc<Semaphore>,
}

impl Default for SearchPermits {
    fn default() -> Self {
        Self { tenants: Pool::new(1), all: Arc::new(Semaphore::new(THREADS)) }
    }
}

impl SearchPermits {
    /// Waits until a step of this tenant may run on a thread of its own. The step holds what is returned. Cancel safe.
    pub(crate) async fn acquire(&self, tenant: &TenantId) -> impl Send + use<> {
        let of_tenant = self.tenants.acquire(tenant).await;
        (of_tenant, Arc::clone(&self.all).acquire_owned().await)
    }
}

/// What came of one step.
#[derive(Debug)]
pub(super) enum Step {
    /// The output matches.
    Matched(OutputMatch),
    /// No match yet.
    GoOn,
    /// The task has finished, and all of its output was searched.
    End,
}

/// A search of one task's output.
pub(super) struct Lookout {
    inner: Arc<Inner>,
    tenant: TenantId,
    /// Hides the task's secrets in the lines that matches are in.
    masks: TaskMasks,
    quick: bool,
    stream: OutputStream,
    /// Output that was read and is still to be searched.
    pending: VecDeque<OutputPiece>,
    state: State,
    /// No match begins before this position.
    position: u64,
    /// A match at the end of the output, and when it counts.
    at_the_end: Option<(OutputMatch, Instant)>,
    ended: bool,
}

enum State {
    Ready(Search),
    /// The search runs on a thread of its own.
    Away(JoinHandle<(Search, Found)>),
    /// The thread was lost with the search.
    Lost,
}

impl Lookout {
    /// Begins to look for `pattern` in a task's output from `offset` on.
    ///
    /// # Errors
    /// As for [`crate::Engine::stream_output`].
    pub(super) async fn open(
        inner: &Arc<Inner>,
        task: &Task,
        pattern: &OutputPattern,
        offset: u64,
    ) -> Result<Self, EngineError> {
        let (search, from) = Search::new(pattern.clone(), offset);
        let stream = OutputStream::open(Arc::clone(inner), task.clone(), from, true).await?;
        if let Some(size) = stream.size().filter(|size| offset > *size) {
            return Err(EngineError::PastTheEnd { offset, size });
        }
        Ok(Self {
            inner: Arc::clone(inner),
            tenant: task.owner.tenant.clone(),
            masks: inner.masks_of(task).await?,
            quick: pattern.is_quick(),
            stream,
            pending: VecDeque::new(),
            state: State::Ready(search),
            position: offset,
            at_the_end: None,
            ended: false,
        })
    }

    /// No match begins before this position.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// True when all output that there is was searched.
    pub(super) fn is_caught_up(&self) -> bool {
        let idle = matches!(self.state, State::Ready(_)) && self.pending.is_empty() && self.at_the_end.is_none();
        idle && !self.stream.is_behind()
    }

    /// Makes the next step. Cancel safe.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(super) async fn step(&mut self) -> Result<Step, EngineError> {
        if let State::Away(thread) = &mut self.state {
            let done = thread.await;
            self.state = State::Lost;
            let (search, found) = done.map_err(|_| EngineError::Defect)?;
            return Ok(self.searched(search, found));
        }
        if let Some(piece) = self.pending.front().cloned() {
            self.at_the_end = None;
            return self.search(piece).await;
        }
        if self.ended {
            return Ok(self.at_the_end.take().map_or(Step::End, |(found, _)| Step::Matched(found)));
        }
        let settled_at = self.at_the_end.as_ref().map(|(_, at)| *at);
        let item = tokio::select! {
            biased;
            item = self.stream.next() => item,
            () = until(settled_at) => {
                return Ok(self.at_the_end.take().map_or(Step::GoOn, |(found, _)| Step::Matched(found)));
            }
        };
        match item.transpose()? {
            Some(StreamItem::Output(piece)) => self.take(piece),
            Some(StreamItem::Packed(piece)) => self.take(piece.unpack()?),
            Some(StreamItem::Finished(_)) | None => self.ended = true,
        }
        Ok(Step::GoOn)
    }

    /// Splits a piece into steps.
    fn take(&mut self, piece: OutputPiece) {
        let OutputPiece { mut offset, stream, mut bytes } = piece;
        while !bytes.is_empty() {
            let part: Bytes = bytes.split_to(bytes.len().min(STEP));
            let next = offset + part.len() as u64;
            self.pending.push_back(OutputPiece { offset, stream, bytes: part });
            offset = next;
        }
    }

    /// Searches the first pending piece.
    async fn search(&mut self, piece: OutputPiece) -> Result<Step, EngineError> {
        let slots = if self.quick { None } else { Some(self.inner.searches.acquire(&self.tenant).await) };
        // Nothing below waits: a caller that is dropped has not lost the piece.
        let State::Ready(mut search) = std::mem::replace(&mut self.state, State::Lost) else {
            return Err(EngineError::Defect);
        };
        self.pending.pop_front();
        if let Some(slots) = slots {
            self.state = State::Away(tokio::task::spawn_blocking(move || {
                search.push(&piece);
                let found = search.find();
                drop(slots);
                (search, found)
            }));
            return Ok(Step::GoOn);
        }
        search.push(&piece);
        let found = search.find();
        let step = self.searched(search, found);
        if matches!(step, Step::GoOn) {
            tokio::task::yield_now().await;
        }
        Ok(step)
    }

    fn searched(&mut self, search: Search, found: Found) -> Step {
        self.position = self.position.max(search.position());
        self.state = State::Ready(search);
        match found {
            Found::Nothing => Step::GoOn,
            Found::Match(mut found) => {
                self.masks.part(&mut found.line);
                Step::Matched(found)
            }
            Found::AtTheEnd(mut found) => {
                self.masks.part(&mut found.line);
                self.at_the_end = Some((found, Instant::now() + SETTLED_AFTER));
                Step::GoOn
            }
        }
    }
}

/// Waits until `due`; for ever when there is none.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
