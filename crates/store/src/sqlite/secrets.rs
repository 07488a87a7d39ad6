//! The table of encrypted secrets.

use rusqlite::{Connection, OptionalExtension as _};

use crate::{SealedSecrets, StoreError};
use errand_task::{Task, TaskId, TaskState};

/// Adds the secrets of a task that was just added.
pub(super) fn insert(connection: &Connection, task: TaskId, secrets: &SealedSecrets) -> Result<(), StoreError> {
    if secrets.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO secrets (task, launch, \"values\", keep_values) VALUES (?, ?, ?, ?)";
    let SealedSecrets { launch, values, keep_values } = secrets;
    connection.prepare_cached(sql)?.execute((task.to_string(), launch, values, keep_values))?;
    Ok(())
}

pub(super) fn of_task(connection: &Connection, task: TaskId) -> Result<SealedSecrets, StoreError> {
    let sql = "SELECT launch, \"values\", keep_values FROM secrets WHERE task = ?";
    let found = connection.prepare_cached(sql)?.query_row([task.to_string()], |row| {
        Ok(SealedSecrets { launch: row.get(0)?, values: row.get(1)?, keep_values: row.get(2)? })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// Removes what the task, in its new state, needs no longer. `more`: output of the finished task is still to be retained, and masked for that.
pub(super) fn forget(connection: &Connection, task: &Task, more: bool) -> Result<(), StoreError> {
    if !task.spec.has_secrets() {
        return Ok(());
    }
    let id = task.id.to_string();
    match task.state {
        TaskState::AwaitingRoom | TaskState::Queued | TaskState::Starting { .. } => {}
        TaskState::Running { .. } | TaskState::Stopping { .. } => {
            let sql = "UPDATE secrets SET launch = NULL WHERE task = ? AND launch IS NOT NULL";
            connection.prepare_cached(sql)?.execute([id])?;
        }
        TaskState::Finished { .. } => {
            if more || !forget_finished(connection, &id)? {
                connection.prepare_cached("UPDATE secrets SET launch = NULL WHERE task = ?")?.execute([id])?;
            }
        }
    }
    Ok(())
}

/// Removes the secrets of a finished task, unless its values are to be kept. Returns whether it did.
pub(super) fn forget_finished(connection: &Connection, task: &str) -> Result<bool, StoreError> {
    let sql = "DELETE FROM secrets WHERE task = ? AND (NOT keep_values OR \"values\" IS NULL)";
    Ok(connection.prepare_cached(sql)?.execute([task])? > 0)
}
