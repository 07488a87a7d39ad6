//! What is forgotten, in batches that are small enough for other changes to come between them; and what is still to be removed for it.

use std::{collections::HashMap, time::SystemTime};

use rusqlite::{Connection, OptionalExtension as _};

use super::{
    usage,
    values::{micros, time},
    writer::Change,
};
use crate::StoreError;
use errand_task::{SandboxId, TaskId, TenantId};

/// The most bytes of records that one batch removes, beside its first.
const BATCH_BYTES: i64 = 4 << 20;

/// Removes tasks that are over for long, and notes their directories for removal where their sandbox still is.
pub(super) struct RemoveFinished {
    pub(super) before: SystemTime,
    pub(super) limit: u32,
}

/// A task that goes.
struct Going {
    id: String,
    tenant: String,
    sandbox: String,
    bytes: i64,
}

impl Change for RemoveFinished {
    type Answer = u64;

    fn tenant(&self) -> Option<&TenantId> {
        None
    }

    fn apply(&self, connection: &Connection) -> Result<u64, StoreError> {
        let going = self.going(connection)?;
        let mut note = connection.prepare_cached(
            "INSERT OR IGNORE INTO removals (sandbox, task) SELECT id, ? FROM sandboxes WHERE id = ?",
        )?;
        let mut remove = connection.prepare_cached("DELETE FROM tasks WHERE id = ?")?;
        let mut counts: HashMap<&str, (i64, i64)> = HashMap::new();
        for task in &going {
            note.execute((&task.id, &task.sandbox))?;
            remove.execute([&task.id])?;
            let count = counts.entry(&task.tenant).or_default();
            *count = (count.0 + 1, count.1 + task.bytes);
        }
        for (tenant, (tasks, bytes)) in counts {
            usage::add_by_name(connection, tenant, -tasks, -bytes)?;
        }
        Ok(going.len() as u64)
    }
}

impl RemoveFinished {
    fn going(&self, connection: &Connection) -> Result<Vec<Going>, StoreError> {
        let mut statement = connection.prepare_cached(
            "SELECT id, tenant, sandbox, octet_length(record), bytes FROM tasks INDEXED BY tasks_finished \
             WHERE finished_at < ? ORDER BY finished_at LIMIT ?",
        )?;
        let mut rows = statement.query((micros(self.before), self.limit))?;
        let (mut going, mut size) = (Vec::new(), 0);
        while size < BATCH_BYTES
            && let Some(row) = rows.next()?
        {
            size += row.get::<_, i64>(3)?;
            going.push(Going { id: row.get(0)?, tenant: row.get(1)?, sandbox: row.get(2)?, bytes: row.get(4)? });
        }
        Ok(going)
    }
}

/// Removes old notifications.
pub(super) struct RemoveNotifications {
    pub(super) acknowledged_before: SystemTime,
    pub(super) made_before: SystemTime,
    pub(super) limit: u32,
}

impl Change for RemoveNotifications {
    type Answer = u64;

    fn tenant(&self) -> Option<&TenantId> {
        None
    }

    fn apply(&self, connection: &Connection) -> Result<u64, StoreError> {
        let old = [
            ("notifications_acknowledged", "acknowledged_at", self.acknowledged_before),
            ("notifications_made", "created_at", self.made_before),
        ];
        let mut counts: HashMap<String, i64> = HashMap::new();
        let mut removed = 0;
        for (index, column, before) in old {
            let mut statement = connection.prepare_cached(&format!(
                "DELETE FROM notifications WHERE sequence IN \
                 (SELECT sequence FROM notifications INDEXED BY {index} WHERE {column} < ? ORDER BY {column} LIMIT ?) \
                 RETURNING tenant, bytes"
            ))?;
            let mut rows = statement.query((micros(before), i64::from(self.limit) - removed))?;
            while let Some(row) = rows.next()? {
                *counts.entry(row.get(0)?).or_default() += row.get::<_, i64>(1)?;
                removed += 1;
            }
        }
        for (tenant, bytes) in counts {
            usage::add_by_name(connection, &tenant, 0, -bytes)?;
        }
        Ok(removed.unsigned_abs())
    }
}

/// Strikes directories off that are removed.
pub(super) struct Removed {
    pub(super) sandbox: SandboxId,
    pub(super) tasks: Vec<TaskId>,
}

impl Change for Removed {
    type Answer = ();

    fn tenant(&self) -> Option<&TenantId> {
        None
    }

    fn apply(&self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached("DELETE FROM removals WHERE sandbox = ? AND task = ?")?;
        for task in &self.tasks {
            statement.execute((self.sandbox.to_string(), task.to_string()))?;
        }
        Ok(())
    }
}

/// Directories in a sandbox that are to be removed.
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

/// Keeps a fact.
pub(super) struct PutMeta {
    pub(super) key: &'static str,
    pub(super) value: String,
}

impl Change for PutMeta {
    type Answer = ();

    fn tenant(&self) -> Option<&TenantId> {
        None
    }

    fn apply(&self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )?;
        statement.execute((self.key, &self.value))?;
        Ok(())
    }
}

/// A fact that was kept.
pub(super) fn meta(connection: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE key = ?")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

/// The newest of the times before `before` at which a task ended or a notification was made.
pub(super) fn newest_time(connection: &Connection, before: SystemTime) -> Result<Option<SystemTime>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT max(newest) FROM (\
         SELECT max(finished_at) AS newest FROM tasks INDEXED BY tasks_finished WHERE finished_at < ?1 UNION ALL \
         SELECT max(created_at) FROM notifications INDEXED BY notifications_made WHERE created_at < ?1)",
    )?;
    let newest: Option<i64> = statement.query_row([micros(before)], |row| row.get(0))?;
    Ok(newest.map(time))
}
