//! Stores a task's progress, and a notification of the change.

use std::time::SystemTime;

use rusqlite::{Connection, params};

use super::{columns, decode, record};
use crate::{
    Scope, StoreError,
    sqlite::{
        notifications,
        values::{decode_one, micros},
        writer::Change,
    },
    stored::encode_progress,
};
use errand_task::{NewNotification, Task, TenantId};

pub(in crate::sqlite) struct Update {
    pub(in crate::sqlite) task: Task,
    pub(in crate::sqlite) notification: Option<NewNotification>,
}

impl Change for Update {
    type Answer = Task;

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.task.owner.tenant)
    }

    fn apply(&self, connection: &Connection, now: SystemTime) -> Result<Task, StoreError> {
        let progress = encode_progress(&self.task)?;
        if !self.change_unfinished(connection, &progress, now)? && !self.add_late_outcome(connection, &progress)? {
            return Err(StoreError::Conflict);
        }
        if let Some(notification) = &self.notification {
            notifications::insert(connection, notification, now)?;
        }
        Ok(Task { revision: self.task.revision + 1, ..self.task.clone() })
    }

    fn wakes(&self, _answer: &Task) -> Option<Scope> {
        // There is nothing to deliver of an acknowledged one.
        let owner = &self.notification.as_ref().filter(|notification| !notification.acknowledged)?.owner;
        Some(Scope { tenant: owner.tenant.clone(), bot: owner.bot.clone(), session: Some(owner.session.clone()) })
    }
}

impl Update {
    fn change_unfinished(&self, connection: &Connection, progress: &str, now: SystemTime) -> Result<bool, StoreError> {
        let mut statement = connection.prepare_cached(
            "UPDATE tasks SET status = ?, finished_at = ?, revision = revision + 1, progress = ? \
             WHERE id = ? AND tenant = ? AND revision = ? AND finished_at IS NULL",
        )?;
        let changed = statement.execute(params![
            self.task.status().word(),
            self.task.status().is_terminal().then(|| micros(now)),
            progress,
            self.task.id.to_string(),
            self.task.owner.tenant.as_str(),
            self.task.revision,
        ])?;
        Ok(changed == 1)
    }

    /// The one change that a finished task accepts. Compares decoded records, because an older record may lack a field.
    fn add_late_outcome(&self, connection: &Connection, progress: &str) -> Result<bool, StoreError> {
        let (id, tenant) = (self.task.id.to_string(), self.task.owner.tenant.as_str());
        let mut statement = connection.prepare_cached(concat!(
            "SELECT ",
            columns!(),
            " FROM tasks WHERE id = ? AND tenant = ? AND revision = ? AND finished_at IS NOT NULL"
        ))?;
        let Some(stored) = decode_one(statement.query((&id, tenant, self.task.revision))?, decode)? else {
            return Ok(false);
        };
        let with_outcome = Task { late_outcome: self.task.late_outcome.clone(), ..stored.clone() };
        if stored.late_outcome.is_some() || self.task.late_outcome.is_none() || with_outcome != self.task {
            return Ok(false);
        }
        let mut statement = connection
            .prepare_cached("UPDATE tasks SET revision = revision + 1, progress = ? WHERE id = ? AND revision = ?")?;
        Ok(statement.execute((progress, id, self.task.revision))? == 1)
    }
}
