//! What is forgotten, and when: finished tasks some time after their end, with their files; notifications after theirs.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{EngineError, Inner};
use crate::task::{Task, TaskId};

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How many tasks are removed in one transaction.
const BATCH: u32 = 256;

/// Removes what is due, now and every hour, until the server ends.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        if let Err(error) = sweep(&inner).await {
            tracing::error!(error = &error as &dyn std::error::Error, "old tasks could not be removed");
        }
        tokio::select! {
            () = inner.leave.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn sweep(inner: &Inner) -> Result<(), EngineError> {
    let now = SystemTime::now();
    let before = |age: Duration| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    loop {
        let removed = inner.store.remove_finished_tasks(before(inner.settings.retention), BATCH).await?;
        if removed.is_empty() {
            break;
        }
        tracing::info!(tasks = removed.len(), "removed old tasks");
        remove_files(inner, &removed).await;
    }
    let acknowledged = before(inner.settings.retention);
    let unread = before(inner.settings.notification_retention);
    inner.store.remove_notifications(acknowledged, unread).await?;
    Ok(())
}

/// Removes task directories where the sandbox still is; elsewhere they went with it.
async fn remove_files(inner: &Inner, tasks: &[Task]) {
    let mut by_sandbox: HashMap<String, Vec<TaskId>> = HashMap::new();
    for task in tasks {
        if let Ok(sandbox) = inner.sandboxes.runtime_id(task).await {
            by_sandbox.entry(sandbox).or_default().push(task.id);
        }
    }
    for (sandbox, tasks) in by_sandbox {
        if let Err(error) = inner.bridge.remove(&sandbox, &tasks).await {
            tracing::debug!(%error, %sandbox, "task directories could not be removed");
        }
    }
}
