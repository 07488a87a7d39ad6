//! A change of the database, and a change together with the caller that waits for it.

use std::{sync::Arc, time::SystemTime};

use errand_task::TenantId;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{Scope, StoreError, sqlite::failed};

/// A change of the database.
pub(in crate::sqlite) trait Change: Send + 'static {
    /// What the caller gets once the change is on disk.
    type Answer: Send + 'static;

    /// Makes the change within the group's transaction, which happens at `now`. On an error everything it did is undone.
    fn apply(&self, connection: &Connection, now: SystemTime) -> Result<Self::Answer, StoreError>;

    /// The tenant on whose behalf the change is made; none: the server itself.
    fn tenant(&self) -> Option<&TenantId>;

    /// The scope whose subscribers the commit wakes.
    fn wakes(&self, _answer: &Self::Answer) -> Option<Scope> {
        None
    }
}

/// A change of any type, with its caller.
pub(super) trait Job: Send {
    /// Makes the change and keeps the answer. False when it failed and must be undone.
    fn apply(&mut self, connection: &Connection, now: SystemTime) -> bool;
    /// The scope whose subscribers the commit wakes.
    fn wakes(&self) -> Option<Scope>;
    /// True when the change failed because the disk is full: SQLite then rolls back the whole group.
    fn found_disk_full(&self) -> bool;
    /// Answers the caller. `failure` is that of the whole group.
    fn settle(self: Box<Self>, failure: Option<Failure>);
}

/// Why a group was not committed.
#[derive(Clone)]
pub(super) struct Failure {
    pub(super) cause: Arc<rusqlite::Error>,
    /// True if the disk is full.
    pub(super) full: bool,
}

/// A change in the queue.
pub(super) struct Submitted<C: Change> {
    change: C,
    answer: Option<Result<C::Answer, StoreError>>,
    reply: oneshot::Sender<Result<C::Answer, StoreError>>,
    /// Held until the change is made.
    _place: Option<OwnedSemaphorePermit>,
}

impl<C: Change> Submitted<C> {
    /// A change that was not made yet. `reply` gets its answer; `place` is its place in its tenant's share.
    pub(super) fn new(
        change: C,
        reply: oneshot::Sender<Result<C::Answer, StoreError>>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { change, answer: None, reply, _place: place }
    }
}

impl<C: Change> Job for Submitted<C> {
    fn apply(&mut self, connection: &Connection, now: SystemTime) -> bool {
        let answer = self.change.apply(connection, now);
        // A refusal has changed nothing, so the group need not be repeated.
        let done = answer.as_ref().map_or_else(StoreError::is_refusal, |_| true);
        self.answer = Some(answer);
        done
    }

    fn wakes(&self) -> Option<Scope> {
        match &self.answer {
            Some(Ok(answer)) => self.change.wakes(answer),
            Some(Err(_)) | None => None,
        }
    }

    fn found_disk_full(&self) -> bool {
        matches!(self.answer, Some(Err(StoreError::DiskFull)))
    }

    fn settle(self: Box<Self>, failure: Option<Failure>) {
        let result = match (failure, self.answer) {
            (None, Some(answer)) => answer,
            // The error of the change itself says more than the error of its group.
            (Some(_), Some(Err(StoreError::Database(cause)))) => Err(StoreError::Database(cause)),
            // A refused change fails too: another change of the group, which is undone now, may be the reason for the refusal.
            (Some(Failure { full: true, .. }), _) => Err(StoreError::DiskFull),
            (Some(Failure { cause, .. }), _) => Err(failed(cause)),
            (None, None) => Err(StoreError::Closed),
        };
        // Fails when the receiver is gone: then the result is discarded.
        let _ = self.reply.send(result);
    }
}
