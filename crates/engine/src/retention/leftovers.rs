//! Removes task directories that are no longer needed: those of removed tasks, and those without a record.
//!
//! Each sweep spends a bounded time and a bounded number of entries on a sandbox. A sandbox that does not answer, or one that fills its
//! directory to keep the server busy, never blocks a caller.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};

use super::outputs;
use crate::{EngineError, Inner, sandbox::Sandbox};
use errand_bridge::FileError;
use errand_runtime::RuntimeError;
use errand_store::StoreError;
use errand_task::{FileKind, FilePath, Nonce, SandboxId, SandboxRecord, TaskId};

/// How old a directory without a record must be to count as an orphan. This leaves enough time to store a task that is just being accepted.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);
/// How many sandboxes are read from the store at a time, and how many are cleaned concurrently.
const PAGE: u32 = 100;
const CONCURRENCY: usize = 4;
/// How long cleaning one sandbox may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How many directories one call removes.
const BATCH: u32 = 256;
/// The most entries of a task root that one sweep examines.
const ENTRIES: usize = 4096;

/// Why a sandbox was not cleaned.
#[derive(Debug, thiserror::Error)]
enum NotCleared {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Files(#[from] FileError),
    #[error(transparent)]
    Sandbox(#[from] EngineError),
}

/// Cleans every running sandbox.
pub(super) async fn sweep(inner: &Arc<Inner>) -> Result<(), EngineError> {
    let mut after = None;
    loop {
        let page = inner.store.sandboxes(None, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.id);
        stream::iter(page)
            .for_each_concurrent(CONCURRENCY, |sandbox| async move {
                let clearing = async {
                    let handle = inner.sandboxes.handle(&sandbox)?;
                    if !is_running(&handle).await {
                        return Ok(());
                    }
                    remove_noted(inner, sandbox.id, &handle).await?;
                    remove_orphans(inner, sandbox.id, &handle).await?;
                    Ok(outputs::sweep(inner, &handle, sandbox.id).await?)
                };
                in_time(&sandbox, clearing).await;
            })
            .await;
    }
}

/// Removes the directories noted for removal in a sandbox that was just reached.
pub(super) async fn remove_pending(inner: &Arc<Inner>, sandbox: &SandboxRecord) {
    in_time(sandbox, async { remove_noted(inner, sandbox.id, &inner.sandboxes.handle(sandbox)?).await }).await;
}

async fn in_time(sandbox: &SandboxRecord, clearing: impl Future<Output = Result<(), NotCleared>>) {
    match tokio::time::timeout(LIMIT, clearing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, sandbox = %sandbox.id, "old task directories are still there"),
        Err(_) => tracing::warn!(sandbox = %sandbox.id, "old task directories could not be removed in time"),
    }
}

/// Retention never starts a sandbox that does not run.
async fn is_running(sandbox: &Sandbox) -> bool {
    sandbox.inspect().await.is_ok_and(|found| found.running && !found.paused)
}

async fn remove_noted(inner: &Inner, id: SandboxId, sandbox: &Sandbox) -> Result<(), NotCleared> {
    loop {
        let tasks = inner.store.pending_removals(id, BATCH).await?;
        if tasks.is_empty() {
            return Ok(());
        }
        sandbox.bridge.remove(&tasks).await?;
        inner.store.removed(id, &tasks).await?;
        tracing::debug!(tasks = tasks.len(), sandbox = %id, "removed the directories of old tasks");
    }
}

/// Removes directories that are named like old tasks and have neither a record nor a process. Leaves everything else in place.
async fn remove_orphans(inner: &Inner, id: SandboxId, sandbox: &Sandbox) -> Result<(), NotCleared> {
    // Any id will do: a task's log is in the task's directory, which is in the root.
    let log = sandbox.bridge.output_file(TaskId::new());
    let Some(root) = log.rsplitn(3, '/').nth(2) else { return Ok(()) };
    let path = FilePath { path: root.to_owned(), root: None };
    let entries = match sandbox.bridge.list_directory(&path).await {
        Ok(entries) => entries,
        // There is no task root: no command ever ran in this sandbox.
        Err(FileError::Refused(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut entries = entries.take(ENTRIES);
    let mut named = Vec::new();
    while let Some(entry) = entries.next().await.transpose()? {
        if entry.kind == FileKind::Directory
            && let Some(task) = task_id(&entry.name)
            && inner.live(task).is_none()
        {
            named.push(task);
        }
    }
    drop(entries);
    for ids in named.chunks(BATCH as usize) {
        let unknown = inner.store.unknown_tasks(ids, ORPHAN_AGE).await?;
        if unknown.is_empty() {
            continue;
        }
        // If a record was lost, processes of its command may still run. Their owner ends them, together with the sandbox.
        let asked: Vec<_> = unknown.iter().map(|id| (*id, Nonce::new())).collect();
        let findings = sandbox.bridge.probe(&asked, false).await?;
        let over = unknown.iter().zip(&findings).filter(|(_, finding)| !finding.alive && !finding.supervised);
        let orphans: Vec<TaskId> = over.map(|(id, _)| *id).collect();
        if !orphans.is_empty() {
            sandbox.bridge.remove(&orphans).await?;
            tracing::info!(tasks = orphans.len(), sandbox = %id, "removed task directories that no record names");
        }
    }
    Ok(())
}

/// The task whose directory has this name. Accepts only names in the form that the server writes.
fn task_id(name: &[u8]) -> Option<TaskId> {
    let name = std::str::from_utf8(name).ok()?;
    let id: TaskId = name.parse().ok()?;
    (id.to_string() == name && id.uuid().get_version_num() == 7).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_task_ids_count_as_task_directories() {
        let id = TaskId::new();
        assert_eq!(task_id(id.to_string().as_bytes()), Some(id));
        let upper = id.to_string().to_uppercase();
        let random = Nonce::new().to_string();
        for other in [".bridge", ".spare", "", "x", &upper, &random, &format!("{id}x"), &id.uuid().simple().to_string()]
        {
            assert_eq!(task_id(other.as_bytes()), None, "{other}");
        }
    }
}
