//! The table of removals: directories in sandboxes that removed tasks have left.

use std::time::SystemTime;

use rusqlite::Connection;

use super::writer::Change;
use crate::StoreError;
use errand_task::{SandboxId, TaskId, TenantId};

/// Strikes off directories that are removed.
pub(super) struct Removed {
    pub(super) sandbox: SandboxId,
    pub(super) tasks: Vec<TaskId>,
}

impl Change for Removed {
    type Answer = ();

    fn tenant(&self) -> Option<&TenantId> {
        None
    }

    fn apply(&self, connection: &Connection, _now: SystemTime) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached("DELETE FROM removals WHERE sandbox = ? AND task = ?")?;
        for task in &self.tasks {
            statement.execute((self.sandbox.to_string(), task.to_string()))?;
        }
        Ok(())
    }
}

/// Directories to remove in a sandbox.
pub(super) fn pending(connection: &Connection, sandbox: SandboxId, limit: u32) -> Result<Vec<TaskId>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT task FROM removals WHERE sandbox = ? ORDER BY task LIMIT ?")?;
    let mut rows = statement.query((sandbox.to_string(), limit))?;
    let mut pending = Vec::new();
    while let Some(row) = rows.next()? {
        pending.extend(row.get_ref(0)?.as_str().ok().and_then(|id| id.parse::<TaskId>().ok()));
    }
    Ok(pending)
}
