//! Retention: removes finished tasks and their files some time after their end, and notifications after their own retention.
//!
//! Owns the sweeps. The store decides how old a record is, by its own clock. The files in sandboxes are the business of [`leftovers`].

mod leftovers;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, mpsc};

use super::{EngineError, Inner};
use errand_store::{StoreError, TaskStore};
use errand_task::SandboxRecord;

/// How often to sweep.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How many rows one transaction removes: few enough to let other writes in between.
const BATCH: u32 = 64;
/// How many reached sandboxes can be queued for cleaning. The next sweep cleans the rest.
const REACHED: usize = 256;

/// What retention shares with the rest of the engine.
pub(super) struct Retention {
    /// Locked by the one sweeper that runs.
    reached: Mutex<mpsc::Receiver<SandboxRecord>>,
}

impl Retention {
    /// Also returns the sender on which sandboxes are announced when they are reached.
    pub(super) fn new() -> (Self, mpsc::Sender<SandboxRecord>) {
        let (sender, reached) = mpsc::channel(REACHED);
        (Self { reached: Mutex::new(reached) }, sender)
    }
}

/// Removes what is due, now and every hour, until the server ends. Also cleans sandboxes when they are reached.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut reached = inner.retention.reached.lock().await;
    let mut due = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = inner.leave.cancelled() => return,
            () = tokio::time::sleep_until(due) => {
                due = tokio::time::Instant::now() + INTERVAL;
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
    let settings = &inner.settings;
    remove_records(&*inner.store, settings.retention, settings.notification_retention).await?;
    leftovers::sweep(inner).await
}

async fn remove_records(store: &dyn TaskStore, retention: Duration, unread: Duration) -> Result<(), StoreError> {
    let mut tasks = 0;
    loop {
        match store.remove_finished_tasks(retention, BATCH).await? {
            0 => break,
            removed => tasks += removed,
        }
    }
    if tasks > 0 {
        tracing::info!(tasks, "removed old tasks");
    }
    while store.remove_notifications(retention, unread, BATCH).await? > 0 {}
    Ok(())
}
