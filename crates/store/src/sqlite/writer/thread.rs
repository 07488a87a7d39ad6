//! The writer's thread: takes groups of changes from the queue and commits each group in one transaction.
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
use tokio_util::sync::DropGuard;

use super::change::{Failure, Job};
use crate::{
    sqlite::{ages::Ages, file::Claim, queue::Queue},
    wake_ups::WakeUps,
};

/// The most changes in one commit.
const GROUP_LIMIT: usize = 256;
/// After a group of at least this many changes, the writer waits for the next one to gather.
const CROWD: usize = 4;
/// How long it waits: about as long as a commit takes on a fast disk.
const COALESCE: Duration = Duration::from_millis(1);

/// Starts the thread. It ends when the queue is closed and empty; then it closes the file and drops `claim`, and `ended` last.
///
/// # Errors
/// When no thread can be made.
pub(super) fn spawn(
    committer: Committer,
    queue: Arc<Queue<Box<dyn Job>>>,
    claim: Claim,
    ended: DropGuard,
) -> io::Result<()> {
    let waiting = Waiting(queue);
    let span = tracing::info_span!("store_writer");
    let thread = thread::Builder::new().name("errand-store".to_owned());
    thread.spawn(move || span.in_scope(|| committer.run(waiting, claim, ended)))?;
    Ok(())
}

/// The thread's end of the queue. When the thread ends for any reason, the callers that wait get an error.
struct Waiting(Arc<Queue<Box<dyn Job>>>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if thread::panicking() {
            // Without its store, the server could record no outcome. The next start finds every committed change.
            tracing::error!("the thread that writes the database panicked; the server aborts");
            std::process::abort();
        }
        self.0.clear();
    }
}

/// Commits groups of changes. The thread owns it.
pub(super) struct Committer {
    pub(super) connection: Connection,
    pub(super) ages: Arc<Ages>,
    pub(super) wake_ups: Arc<WakeUps>,
    /// Counts the commits.
    pub(super) commits: Arc<AtomicU64>,
}

impl Committer {
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
