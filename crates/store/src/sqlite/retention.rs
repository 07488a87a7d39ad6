//! Removes old tasks with everything about them, in batches small enough to let other changes in between.
//!
//! A task goes with its notifications and its retained output. The notification of its end says when: so two indexes of notifications lead
//! to what is due, and a third one to tasks that ended without a notification.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OptionalExtension as _};

use super::{ages::Ages, usage, values::micros, writer::Change};
use crate::{RemovedTasks, Retention, StoreError};
use errand_task::TenantId;

/// The most bytes of records that one batch removes, not counting its last task.
const BATCH_BYTES: i64 = 4 << 20;

/// Tasks whose completion was acknowledged before ?1. A late outcome that was not acknowledged before that holds its task back, unless it
/// was told before ?2.
const ACKNOWLEDGED: &str = "SELECT task FROM notifications INDEXED BY notifications_settled \
    WHERE kind = 'completed' AND acknowledged_at IS NOT NULL AND acknowledged_at < ?1 AND NOT EXISTS \
    (SELECT 1 FROM notifications AS late INDEXED BY notifications_of_task WHERE late.task = notifications.task \
     AND late.kind = 'late_outcome' AND (late.acknowledged_at >= ?1 OR (late.acknowledged_at IS NULL AND late.created_at >= ?2))) \
    ORDER BY acknowledged_at LIMIT ?3";
/// Tasks that ended before ?1 without a notification.
const UNANNOUNCED: &str = "SELECT id FROM tasks INDEXED BY tasks_unannounced \
    WHERE unannounced = 1 AND finished_at < ?1 AND ?2 IS NOT NULL ORDER BY finished_at LIMIT ?3";
/// Tasks whose completion was told before ?2 and never acknowledged. One whose late outcome was told after that waits.
const UNACKNOWLEDGED: &str = "SELECT task FROM notifications INDEXED BY notifications_unsettled \
    WHERE kind = 'completed' AND acknowledged_at IS NULL AND created_at < ?2 AND ?1 IS NOT NULL \
    AND NOT EXISTS \
    (SELECT 1 FROM notifications AS late INDEXED BY notifications_of_task WHERE late.task = notifications.task \
     AND late.kind = 'late_outcome' AND late.acknowledged_at IS NULL AND late.created_at >= ?2) ORDER BY created_at LIMIT ?3";

/// Removes tasks that are due, and adds their directories to the removals if the sandbox is still stored.
pub(super) struct RemoveFinished {
    pub(super) retention: Retention,
    pub(super) limit: u32,
    pub(super) ages: Arc<Ages>,
}

impl Change for RemoveFinished {
    type Answer = RemovedTasks;

    fn tenant(&self) -> Option<&TenantId> {
        None
    }

    fn apply(&self, connection: &Connection, _now: SystemTime) -> Result<RemovedTasks, StoreError> {
        let before = |age: Duration| self.ages.before(connection, age).map(micros);
        let before = (before(self.retention.acknowledged)?, before(self.retention.unacknowledged)?);
        self.ages.save(connection)?;
        let (mut removed, mut batch) = (RemovedTasks::default(), Batch::default());
        for (due, unacknowledged) in [(ACKNOWLEDGED, false), (UNANNOUNCED, false), (UNACKNOWLEDGED, true)] {
            let left = i64::from(self.limit) - i64::try_from(removed.tasks).unwrap_or(i64::MAX);
            let mut statement = connection.prepare_cached(due)?;
            let rows = statement.query_map((before.0, before.1, left), |row| row.get(0))?;
            for task in rows.collect::<Result<Vec<String>, _>>()? {
                if batch.size >= BATCH_BYTES {
                    break;
                }
                batch.remove(connection, &task)?;
                removed.tasks += 1;
                removed.unacknowledged += u64::from(unacknowledged);
            }
        }
        for (tenant, (tasks, bytes)) in batch.counts {
            usage::add_by_name(connection, &tenant, -tasks, -bytes)?;
        }
        Ok(removed)
    }
}

/// What one batch has removed.
#[derive(Default)]
struct Batch {
    size: i64,
    /// Tasks and bytes of each tenant.
    counts: HashMap<String, (i64, i64)>,
}

impl Batch {
    fn count(&mut self, tenant: String, tasks: i64, bytes: i64) {
        let count = self.counts.entry(tenant).or_default();
        *count = (count.0 + tasks, count.1 + bytes);
    }

    /// Removes everything about a task. The task itself may be gone already: an older server removed it before its notifications.
    fn remove(&mut self, connection: &Connection, task: &str) -> Result<(), StoreError> {
        // `bytes` is 0 in rows of the first schema, and `record` is empty where the record has a row of its own.
        let mut statement = connection.prepare_cached(
            "SELECT tenant, sandbox, bytes, max(octet_length(record), bytes) FROM tasks WHERE id = ?",
        )?;
        type Columns = (String, String, i64, i64);
        let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let found: Option<Columns> = statement.query_row([task], columns).optional()?;
        if let Some((tenant, sandbox, bytes, size)) = found {
            let mut note = connection.prepare_cached(
                "INSERT OR IGNORE INTO removals (sandbox, task) SELECT id, ? FROM sandboxes WHERE id = ?",
            )?;
            note.execute((task, sandbox))?;
            connection.prepare_cached("DELETE FROM tasks WHERE id = ?")?.execute([task])?;
            self.size += size;
            self.count(tenant, 1, bytes);
        }
        let mut statement = connection.prepare_cached(
            "DELETE FROM notifications INDEXED BY notifications_of_task WHERE task = ? RETURNING tenant, bytes",
        )?;
        let told = statement.query_map([task], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (tenant, bytes) in told.collect::<Result<Vec<(String, i64)>, _>>()? {
            self.size += bytes;
            self.count(tenant, 0, bytes);
        }
        Ok(())
    }
}
