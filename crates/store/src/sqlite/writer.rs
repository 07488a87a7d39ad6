//! The one writer: takes the changes that are waiting and commits them together, so that they share the cost of reaching the disk.
//!
//! Owns the only connection that writes, the thread that uses it, and the claim on the database file. Knows nothing of what a change does.
//! While one commit is under way, the next group gathers by itself, and where changes are few nobody waits for others. After a crowded group
//! more are most likely on their way: it gives them a moment, since what a commit costs hardly depends on how many share it. Otherwise the
//! thread waits for changes and for the disk alone: each way to another thread and back costs more than most statements.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{failed, file::Claim, queue::Queue, shares::Shares};
use crate::{Scope, StoreError, signs::Signs};
use errand_task::TenantId;

/// The most changes in one commit.
const GROUP_LIMIT: usize = 256;
/// After a group of so many changes, the next one is given a moment to gather.
const CROWD: usize = 4;
/// That moment: about as long as a commit takes where the disk is a fast one.
const GATHER: Duration = Duration::from_millis(1);
/// The most changes of one tenant that wait; its further callers wait to get in.
const QUEUE_LIMIT: usize = 1024;

/// Something to be written.
pub(super) trait Change: Send + 'static {
    /// What the caller is told once it is on disk.
    type Answer: Send + 'static;

    /// Makes the change within the group's transaction. On an error everything it did is undone.
    fn apply(&self, connection: &Connection) -> Result<Self::Answer, StoreError>;

    /// On whose behalf it is made; none: the server's own.
    fn tenant(&self) -> Option<&TenantId>;

    /// Whose subscribers have to look again after this.
    fn wakes(&self, _answer: &Self::Answer) -> Option<Scope> {
        None
    }
}

/// The way to the writer.
#[derive(Debug)]
pub(super) struct Writer {
    /// Closed with the store. The thread ends when it is, and empty.
    queue: Arc<Queue<Box<dyn Job>>>,
    shares: Shares,
    signs: Arc<Signs>,
    commits: Arc<AtomicU64>,
    /// Cancelled when the file is let go.
    ended: CancellationToken,
}

impl Writer {
    /// Starts the thread that writes. It ends with [`Writer::close`], or when the writer is dropped.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(super) fn start(connection: Connection, claim: Claim) -> io::Result<Self> {
        let writer = Self {
            queue: Arc::new(Queue::new()),
            shares: Shares::new(QUEUE_LIMIT),
            signs: Arc::new(Signs::new()),
            commits: Arc::default(),
            ended: CancellationToken::new(),
        };
        let work = Work { connection, signs: Arc::clone(&writer.signs), commits: Arc::clone(&writer.commits) };
        let waiting = Waiting(Arc::clone(&writer.queue));
        let ended = writer.ended.clone().drop_guard();
        let span = tracing::info_span!("store_writer");
        let thread = thread::Builder::new().name("errand-store".to_owned());
        thread.spawn(move || span.in_scope(|| work.run(waiting, claim, ended)))?;
        Ok(writer)
    }

    /// Makes a change and returns when it is on disk. Cancel safe: the change is made whole or not at all.
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

    /// Changes after every commit that wakes subscribers of this scope.
    pub(super) fn notified(&self, scope: &Scope) -> watch::Receiver<u64> {
        self.signs.watch(scope)
    }

    /// How many commits there were.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// How many changes wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Takes no more changes, and waits until the accepted ones are on disk and the file is let go.
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

/// The thread's end of the queue. When the thread ends, however that comes, nobody waits for it any more.
struct Waiting(Arc<Queue<Box<dyn Job>>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if thread::panicking() {
            // Without its store the server would answer and keep no promise. The next start finds everything that was committed.
            tracing::error!("the thread that writes the database broke down; the server ends");
            std::process::abort();
        }
        self.0.clear();
    }
}

/// What the thread owns beside its queue.
struct Work {
    connection: Connection,
    signs: Arc<Signs>,
    commits: Arc<AtomicU64>,
}

impl Work {
    fn run(self, waiting: Waiting, claim: Claim, ended: DropGuard) {
        let mut group = Vec::new();
        let mut crowded = false;
        while waiting.0.wait(&mut group, GROUP_LIMIT) {
            if crowded {
                thread::sleep(GATHER);
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
        let failure = transact(&self.connection, &mut group).err();
        let failure = failure
            .map(|error| Failure { cause: Arc::new(error), full: group.iter().any(|job| job.found_disk_full()) });
        if failure.is_some() {
            // Fails when SQLite has rolled back by itself, which is as good.
            let _ = run(&self.connection, "ROLLBACK");
        } else {
            self.commits.fetch_add(1, Ordering::Relaxed);
            for scope in group.iter().filter_map(|job| job.wakes()) {
                self.signs.give(&scope);
            }
        }
        for job in group {
            job.settle(failure.clone());
        }
    }
}

/// Runs a group in one transaction. A change that fails harms no other: then all is done again, each in its own savepoint, which costs as
/// much as a change does.
///
/// Plain statements instead of rusqlite's transactions: SQLite rolls everything back by itself when the disk is full, and then there is
/// nothing to be undone any more.
fn transact(connection: &Connection, group: &mut [Box<dyn Job>]) -> Result<(), rusqlite::Error> {
    run(connection, "BEGIN IMMEDIATE")?;
    if group.iter_mut().all(|job| job.apply(connection)) {
        return run(connection, "COMMIT");
    }
    // Fails when there is no transaction any more, because a change broke it: then so did the group.
    run(connection, "ROLLBACK")?;
    if group.len() == 1 {
        return Ok(());
    }
    run(connection, "BEGIN IMMEDIATE")?;
    for job in group {
        run(connection, "SAVEPOINT change")?;
        if !job.apply(connection) {
            // Fails when there is no transaction any more: the group must not go on without one.
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
    /// Makes the change and keeps the answer. False when it failed and has to be undone.
    fn apply(&mut self, connection: &Connection) -> bool;
    fn wakes(&self) -> Option<Scope>;
    /// True when it failed because the disk is full, at which SQLite gives up the whole group.
    fn found_disk_full(&self) -> bool;
    /// Tells the caller. `failure` is that of the whole group.
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
    /// Its place among those of its tenant, until it is made.
    _place: Option<OwnedSemaphorePermit>,
}

impl<C: Change> Job for Submitted<C> {
    fn apply(&mut self, connection: &Connection) -> bool {
        let answer = self.change.apply(connection);
        // A refusal has changed nothing, so there is nothing to be undone: it costs the neighbours nothing.
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
            // The change that broke the group knows more than what followed from it.
            (Some(_), Some(Err(StoreError::Database(cause)))) => Err(StoreError::Database(cause)),
            // Also for a change that was refused: it may have been judged by a neighbour that was never committed.
            (Some(Failure { full: true, .. }), _) => Err(StoreError::DiskFull),
            (Some(Failure { cause, .. }), _) => Err(failed(cause)),
            (None, None) => Err(StoreError::Closed),
        };
        // A caller that went away needs no answer.
        let _ = self.reply.send(result);
    }
}
