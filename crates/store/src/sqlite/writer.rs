//! The one writer: commits all waiting changes together, so that they share the cost of a flush to disk.
//!
//! Owns the only connection that writes, its thread, and the claim on the database file. Does not know what a change does.
//!
//! While a commit is under way, the next group gathers by itself. After a group of [`CROWD`] or more changes the writer waits [`COALESCE`] for
//! the next one: more changes are then most likely on their way, and the cost of a commit hardly depends on their number. When changes are
//! few, the writer does not wait. It runs a whole group on its own thread, because handing a statement to another thread and back costs more
//! than most statements.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ages::Ages, failed, file::Claim, queue::Queue, shares::Shares};
use crate::{Scope, StoreError, wake_ups::WakeUps};
use errand_task::TenantId;

/// The most changes in one commit.
const GROUP_LIMIT: usize = 256;
/// After a group of at least this many changes, the writer waits for the next one to gather.
const CROWD: usize = 4;
/// How long it waits: about as long as a commit takes on a fast disk.
const COALESCE: Duration = Duration::from_millis(1);
/// The most queued changes of one tenant. Further callers of the tenant wait for a place.
const QUEUE_LIMIT: usize = 1024;

/// A change of the database.
pub(super) trait Change: Send + 'static {
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

/// The handle of the writer's thread.
#[derive(Debug)]
pub(super) struct Writer {
    /// Closed with the store. The thread ends when the queue is closed and empty.
    queue: Arc<Queue<Box<dyn Job>>>,
    shares: Shares,
    wake_ups: Arc<WakeUps>,
    commits: Arc<AtomicU64>,
    /// Cancelled when the thread has closed the file.
    ended: CancellationToken,
}

impl Writer {
    /// Starts the thread that writes. It ends with [`Writer::close`], or when the writer is dropped.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(super) fn start(connection: Connection, claim: Claim, ages: Arc<Ages>) -> io::Result<Self> {
        let writer = Self {
            queue: Arc::new(Queue::new()),
            shares: Shares::new(QUEUE_LIMIT),
            wake_ups: Arc::new(WakeUps::new()),
            commits: Arc::default(),
            ended: CancellationToken::new(),
        };
        let work =
            Work { connection, wake_ups: Arc::clone(&writer.wake_ups), ages, commits: Arc::clone(&writer.commits) };
        let waiting = Waiting(Arc::clone(&writer.queue));
        let ended = writer.ended.clone().drop_guard();
        let span = tracing::info_span!("store_writer");
        let thread = thread::Builder::new().name("errand-store".to_owned());
        thread.spawn(move || span.in_scope(|| work.run(waiting, claim, ended)))?;
        Ok(writer)
    }

    /// Makes a change and returns when it is on disk. Cancel safe: the change is made as a whole or not at all.
    pub(super) async fn submit<C: Change>(&self, change: C) -> Result<C::Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let tenant = change.tenant().cloned();
        let place = match &tenant {
            Some(tenant) => {
                let share = self.shares.of(tenant);
                match Arc::clone(&share).try_acquire_owned() {
                    Ok(place) => Some(place),
                    Err(_) => Some(share.acquire_owned().await.map_err(|_| StoreError::Closed)?),
                }
            }
            None => None,
        };
        if !self.queue.push(tenant, Box::new(Submitted { change, answer: None, reply, _place: place })) {
            return Err(StoreError::Closed);
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// See [`crate::TaskStore::wake_ups`].
    pub(super) fn wake_ups(&self, scope: &Scope) -> watch::Receiver<u64> {
        self.wake_ups.subscribe(scope)
    }

    /// How many commits there were.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// How many changes wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Accepts no more changes, and waits until the accepted ones are on disk and the file is closed.
    pub(super) async fn close(&self) {
        self.queue.close();
        self.ended.cancelled().await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// The thread's end of the queue. When the thread ends for any reason, the callers that wait get an error.
struct Waiting(Arc<Queue<Box<dyn Job>>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if thread::panicking() {
            // A server without its store could keep no promise. The next start finds everything that was committed.
            tracing::error!("the thread that writes the database panicked; the server aborts");
            std::process::abort();
        }
        self.0.clear();
    }
}

/// What the thread owns besides its queue.
struct Work {
    connection: Connection,
    ages: Arc<Ages>,
    wake_ups: Arc<WakeUps>,
    commits: Arc<AtomicU64>,
}

impl Work {
    fn run(self, waiting: Waiting, claim: Claim, ended: DropGuard) {
        let mut group = Vec::new();
        let mut crowded = false;
        while waiting.0.wait(&mut group, GROUP_LIMIT) {
            if crowded {
                thread::sleep(COALESCE);
                waiting.0.fill(&mut group, GROUP_LIMIT);
            }
            crowded = group.len() >= CROWD;
            self.commit(std::mem::take(&mut group));
        }
        // A failure here loses nothing: every commit is on disk already.
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the database was not closed cleanly");
        }
        drop(claim);
        drop(ended);
    }

    fn commit(&self, mut group: Vec<Box<dyn Job>>) {
        let failure = transact(&self.connection, &mut group, self.ages.now()).err();
        let failure = failure
            .map(|error| Failure { cause: Arc::new(error), full: group.iter().any(|job| job.found_disk_full()) });
        if failure.is_some() {
            // Fails when SQLite has already rolled back by itself.
            let _ = run(&self.connection, "ROLLBACK");
        } else {
            self.commits.fetch_add(1, Ordering::Relaxed);
            for scope in group.iter().filter_map(|job| job.wakes()) {
                self.wake_ups.wake(&scope);
            }
        }
        for job in group {
            job.settle(failure.clone());
        }
    }
}

/// Runs a group in one transaction. If a change fails, rolls back and repeats the group with a savepoint for each change, so that the others
/// still succeed. Not always with savepoints, because a savepoint costs as much as a change.
///
/// Plain statements instead of rusqlite's transactions: SQLite rolls back by itself when the disk is full, and then there is no transaction
/// to undo.
fn transact(connection: &Connection, group: &mut [Box<dyn Job>], now: SystemTime) -> Result<(), rusqlite::Error> {
    run(connection, "BEGIN IMMEDIATE")?;
    if group.iter_mut().all(|job| job.apply(connection, now)) {
        return run(connection, "COMMIT");
    }
    // Fails when a failed change has ended the transaction: then the whole group has failed.
    run(connection, "ROLLBACK")?;
    if group.len() == 1 {
        return Ok(());
    }
    run(connection, "BEGIN IMMEDIATE")?;
    for job in group {
        run(connection, "SAVEPOINT change")?;
        if !job.apply(connection, now) {
            // Fails when there is no transaction any more: the group must not continue without one.
            run(connection, "ROLLBACK TO change")?;
        }
        run(connection, "RELEASE change")?;
    }
    run(connection, "COMMIT")
}

fn run(connection: &Connection, sql: &str) -> Result<(), rusqlite::Error> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// A change of any type, with its caller.
trait Job: Send {
    /// Makes the change and keeps the answer. False when it failed and must be undone.
    fn apply(&mut self, connection: &Connection, now: SystemTime) -> bool;
    fn wakes(&self) -> Option<Scope>;
    /// True when the change failed because the disk is full: SQLite then rolls back the whole group.
    fn found_disk_full(&self) -> bool;
    /// Answers the caller. `failure` is that of the whole group.
    fn settle(self: Box<Self>, failure: Option<Failure>);
}

/// Why a group was not committed.
#[derive(Clone)]
struct Failure {
    cause: Arc<rusqlite::Error>,
    full: bool,
}

struct Submitted<C: Change> {
    change: C,
    answer: Option<Result<C::Answer, StoreError>>,
    reply: oneshot::Sender<Result<C::Answer, StoreError>>,
    /// The change's place in its tenant's share, until it is made.
    _place: Option<OwnedSemaphorePermit>,
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
            // The change that failed first knows the cause best.
            (Some(_), Some(Err(StoreError::Database(cause)))) => Err(StoreError::Database(cause)),
            // Also for a refused change: the reason may be a neighbour that was not committed.
            (Some(Failure { full: true, .. }), _) => Err(StoreError::DiskFull),
            (Some(Failure { cause, .. }), _) => Err(failed(cause)),
            (None, None) => Err(StoreError::Closed),
        };
        // A caller that went away needs no answer.
        let _ = self.reply.send(result);
    }
}
