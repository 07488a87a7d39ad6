//! Removes old records, in batches small enough to let other changes in between.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rusqlite::Connection;

use super::{ages::Ages, usage, values::micros, writer::Change};
use crate::StoreError;
use errand_task::TenantId;

/// The most bytes of records that one batch removes, not counting its last record.
const BATCH_BYTES: i64 = 4 << 20;

/// Removes tasks that ended long ago, and adds their directories to the removals if the sandbox is still stored.
pub(super) struct RemoveFinished {
    pub(super) older_than: Duration,
    pub(super) limit: u32,
    pub(super) ages: Arc<Ages>,
}

/// A task to remove.
struct Old {
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

    fn apply(&self, connection: &Connection, _now: SystemTime) -> Result<u64, StoreError> {
        let before = self.ages.before(connection, self.older_than)?;
        self.ages.save(connection)?;
        let old = self.old(connection, before)?;
        let mut note = connection.prepare_cached(
            "INSERT OR IGNORE INTO removals (sandbox, task) SELECT id, ? FROM sandboxes WHERE id = ?",
        )?;
        let mut remove = connection.prepare_cached("DELETE FROM tasks WHERE id = ?")?;
        let mut counts: HashMap<&str, (i64, i64)> = HashMap::new();
        for task in &old {
            note.execute((&task.id, &task.sandbox))?;
            remove.execute([&task.id])?;
            let count = counts.entry(&task.tenant).or_default();
            *count = (count.0 + 1, count.1 + task.bytes);
        }
        for (tenant, (tasks, bytes)) in counts {
            usage::add_by_name(connection, tenant, -tasks, -bytes)?;
        }
        Ok(old.len() as u64)
    }
}

impl RemoveFinished {
    fn old(&self, connection: &Connection, before: SystemTime) -> Result<Vec<Old>, StoreError> {
        // `bytes` is 0 in rows of the first schema, and `record` is empty where the record has a row of its own.
        let mut statement = connection.prepare_cached(
            "SELECT id, tenant, sandbox, max(octet_length(record), bytes), bytes FROM tasks INDEXED BY tasks_finished \
             WHERE finished_at < ? ORDER BY finished_at LIMIT ?",
        )?;
        let mut rows = statement.query((micros(before), self.limit))?;
        let (mut old, mut size) = (Vec::new(), 0);
        while size < BATCH_BYTES
            && let Some(row) = rows.next()?
        {
            size += row.get::<_, i64>(3)?;
            old.push(Old { id: row.get(0)?, tenant: row.get(1)?, sandbox: row.get(2)?, bytes: row.get(4)? });
        }
        Ok(old)
    }
}

/// Removes old notifications.
pub(super) struct RemoveNotifications {
    pub(super) acknowledged_for: Duration,
    pub(super) older_than: Duration,
    pub(super) limit: u32,
    pub(super) ages: Arc<Ages>,
}

impl Change for RemoveNotifications {
    type Answer = u64;

    fn tenant(&self) -> Option<&TenantId> {
        None
    }

    fn apply(&self, connection: &Connection, _now: SystemTime) -> Result<u64, StoreError> {
        let old = [
            ("notifications_acknowledged", "acknowledged_at", self.ages.before(connection, self.acknowledged_for)?),
            ("notifications_made", "created_at", self.ages.before(connection, self.older_than)?),
        ];
        self.ages.save(connection)?;
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
