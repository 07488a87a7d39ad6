//! Retention: removes finished tasks with their files and notifications some time after their end and its acknowledgement.
//!
//! Owns the sweeps. The store decides how old a record is, by its own clock. The files in sandboxes are the business of [`leftovers`], and
//! output that outlives them that of [`outputs`].

mod leftovers;
pub(super) mod outputs;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Mutex, mpsc};

use super::{EngineError, Inner};
use errand_store::{RemovedTasks, StoreError};
use errand_task::SandboxRecord;

/// How often to sweep.
const INTERVAL: Duration = Duration::from_secs(3600);
/// The same where the retention is very short.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// How many rows one transaction removes: few enough to let other writes in between.
const BATCH: u32 = 64;
/// How many reached sandboxes can be queued for cleaning. The next sweep cleans the rest.
const REACHED: usize = 256;

/// What retention shares with the rest of the engine.
pub(super) struct Retention {
    /// Locked by the one sweeper that runs.
    reached: Mutex<mpsc::Receiver<SandboxRecord>>,
    pub(super) readers: outputs::Readers,
    /// How many tasks were removed although nobody had acknowledged their end.
    unacknowledged: AtomicU64,
}

impl Retention {
    /// Also returns the sender on which sandboxes are announced when they are reached.
    pub(super) fn new() -> (Self, mpsc::Sender<SandboxRecord>) {
        let (sender, reached) = mpsc::channel(REACHED);
        let reached = Mutex::new(reached);
        (Self { reached, readers: outputs::Readers::default(), unacknowledged: AtomicU64::new(0) }, sender)
    }
}

/// Removes what is due, now and every hour, or more often if the retention is shorter, until the server ends. Also cleans sandboxes when they
/// are reached.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut reached = inner.retention.reached.lock().await;
    let mut due = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = inner.leave.cancelled() => return,
            () = tokio::time::sleep_until(due) => {
                due = tokio::time::Instant::now() + INTERVAL.min(inner.settings.retention.max(SHORTEST_INTERVAL));
                tokio::select! {
                    () = inner.leave.cancelled() => return,
                    swept = sweep(&inner) => {
                        if let Err(error) = swept {
                            tracing::error!(error = &error as &dyn std::error::Error, "old tasks could not be removed");
                        }
                    }
                }
            }
            Some(sandbox) = reached.recv() => {
                tokio::select! {
                    () = inner.leave.cancelled() => return,
                    () = leftovers::remove_pending(&inner, &sandbox) => {}
                }
            }
        }
    }
}

async fn sweep(inner: &Arc<Inner>) -> Result<(), EngineError> {
    remove_records(inner).await?;
    leftovers::sweep(inner).await
}

async fn remove_records(inner: &Inner) -> Result<(), StoreError> {
    let (acknowledged, unacknowledged) = (inner.settings.retention, inner.settings.notification_retention);
    let retention = errand_store::Retention { acknowledged, unacknowledged };
    let mut removed = RemovedTasks::default();
    loop {
        let more = inner.store.remove_finished_tasks(retention, BATCH).await?;
        if more.tasks == 0 {
            break;
        }
        removed.tasks += more.tasks;
        removed.unacknowledged += more.unacknowledged;
    }
    if removed.tasks > 0 {
        tracing::info!(tasks = removed.tasks, "removed old tasks");
    }
    if removed.unacknowledged > 0 {
        let count = &inner.retention.unacknowledged;
        let so_far = count.fetch_add(removed.unacknowledged, Ordering::Relaxed) + removed.unacknowledged;
        tracing::warn!(tasks = removed.unacknowledged, so_far, "removed old tasks whose end nobody had acknowledged");
    }
    Ok(())
}
