//! Stores a task's progress, its admission or its end, and a notification of the change.

use std::time::SystemTime;

use rusqlite::{Connection, params};

use super::{columns, decode, record, room};
use crate::{
    Caps, Scope, StoreError,
    sqlite::{
        notifications, outputs, secrets, usage,
        values::{decode_one, micros},
        writer::Change,
    },
    stored::{PackedOutput, encode_progress},
};
use errand_task::{NewNotification, NotificationKind, Task, TenantId};

/// Stores any change of a task.
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
        let Self { task, notification } = self;
        if task.status().is_terminal() {
            return finish(connection, task, notification.as_ref(), &PackedEnd::default(), now);
        }
        if !go_on(connection, task)? {
            return Err(StoreError::Conflict);
        }
        secrets::forget(connection, task, false)?;
        announce(connection, notification.as_ref(), now)?;
        Ok(Task { revision: task.revision + 1, ..task.clone() })
    }

    fn wakes(&self, _answer: &Task) -> Option<Scope> {
        scope(self.notification.as_ref())
    }
}

/// Stores that a task no longer waits for room.
pub(in crate::sqlite) struct Admit {
    pub(in crate::sqlite) task: Task,
    pub(in crate::sqlite) caps: Caps,
}

impl Change for Admit {
    type Answer = Task;

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.task.owner.tenant)
    }

    fn apply(&self, connection: &Connection, _now: SystemTime) -> Result<Task, StoreError> {
        let Self { task, caps } = self;
        room::check(connection, &task.owner, caps)?;
        if !go_on(connection, task)? {
            return Err(StoreError::Conflict);
        }
        let mut statement = connection.prepare_cached("UPDATE tasks SET waits = 0 WHERE id = ?")?;
        statement.execute([task.id.to_string()])?;
        Ok(Task { revision: task.revision + 1, ..task.clone() })
    }
}

/// What becomes of the output of a task that has ended.
#[derive(Default)]
pub(in crate::sqlite) struct PackedEnd {
    pub(in crate::sqlite) output: Option<PackedOutput>,
    pub(in crate::sqlite) more: bool,
    pub(in crate::sqlite) stored_bytes: u64,
}

/// Stores a task's end.
pub(in crate::sqlite) struct Finish {
    pub(in crate::sqlite) task: Task,
    pub(in crate::sqlite) notification: Option<NewNotification>,
    pub(in crate::sqlite) end: PackedEnd,
}

impl Change for Finish {
    type Answer = Task;

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.task.owner.tenant)
    }

    fn apply(&self, connection: &Connection, now: SystemTime) -> Result<Task, StoreError> {
        finish(connection, &self.task, self.notification.as_ref(), &self.end, now)
    }

    fn wakes(&self, _answer: &Task) -> Option<Scope> {
        scope(self.notification.as_ref())
    }
}

fn scope(notification: Option<&NewNotification>) -> Option<Scope> {
    // There is nothing to deliver of an acknowledged one.
    let owner = &notification.filter(|notification| !notification.acknowledged)?.owner;
    Some(Scope { tenant: owner.tenant.clone(), bot: owner.bot.clone(), session: Some(owner.session.clone()) })
}

fn announce(
    connection: &Connection,
    notification: Option<&NewNotification>,
    now: SystemTime,
) -> Result<(), StoreError> {
    match notification {
        Some(notification) => notifications::insert(connection, notification, now),
        None => Ok(()),
    }
}

/// Changes an unfinished task that stays unfinished. Touches no index.
fn go_on(connection: &Connection, task: &Task) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(
        "UPDATE tasks SET status = ?, revision = revision + 1, progress = ? \
         WHERE id = ? AND tenant = ? AND revision = ? AND finished_at IS NULL",
    )?;
    let changed = statement.execute(params![
        task.status().word(),
        encode_progress(task)?,
        task.id.to_string(),
        task.owner.tenant.as_str(),
        task.revision,
    ])?;
    Ok(changed == 1)
}

/// Ends an unfinished task, or adds a late outcome to a finished one.
fn finish(
    connection: &Connection,
    task: &Task,
    notification: Option<&NewNotification>,
    end: &PackedEnd,
    now: SystemTime,
) -> Result<Task, StoreError> {
    let progress = encode_progress(task)?;
    let (id, tenant) = (task.id.to_string(), &task.owner.tenant);
    let kept = match &end.output {
        Some(output) if usage::has_room(connection, tenant, outputs::weight(output), end.stored_bytes)? => Some(output),
        Some(_) | None => None,
    };
    let weight = kept.map_or(0, outputs::weight);
    let announced = notification.is_some_and(|told| told.kind == NotificationKind::Completed);
    let mut statement = connection.prepare_cached(
        "UPDATE tasks SET status = ?, finished_at = ?, revision = revision + 1, progress = ?, waits = 0, unannounced = ?, \
         retained = ?, unretained = ?, bytes = bytes + ? \
         WHERE id = ? AND tenant = ? AND revision = ? AND finished_at IS NULL",
    )?;
    let changed = statement.execute(params![
        task.status().word(),
        micros(now),
        progress,
        !announced,
        kept.map(|output| &output.summary),
        end.more,
        weight,
        id,
        tenant.as_str(),
        task.revision,
    ])?;
    let mut retained = task.retained.clone();
    if changed == 1 {
        if let Some(output) = kept {
            outputs::put(connection, &id, output)?;
            usage::add(connection, tenant, 0, weight)?;
        }
        retained = kept.map(|output| output.retained.clone());
        secrets::forget(connection, task, end.more)?;
    } else if !add_late_outcome(connection, task, &progress)? {
        return Err(StoreError::Conflict);
    }
    announce(connection, notification, now)?;
    Ok(Task { revision: task.revision + 1, retained, ..task.clone() })
}

/// The one change that a finished task accepts. Compares decoded records, because an older record may lack a field.
fn add_late_outcome(connection: &Connection, task: &Task, progress: &str) -> Result<bool, StoreError> {
    let (id, tenant) = (task.id.to_string(), task.owner.tenant.as_str());
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        columns!(),
        " FROM tasks WHERE id = ? AND tenant = ? AND revision = ? AND finished_at IS NOT NULL"
    ))?;
    let Some(stored) = decode_one(statement.query((&id, tenant, task.revision))?, decode)? else {
        return Ok(false);
    };
    let (late_outcome, retained) = (task.late_outcome.clone(), task.retained.clone());
    let with_outcome = Task { late_outcome, retained, ..stored.clone() };
    if stored.late_outcome.is_some() || task.late_outcome.is_none() || with_outcome != *task {
        return Ok(false);
    }
    let mut statement = connection
        .prepare_cached("UPDATE tasks SET revision = revision + 1, progress = ? WHERE id = ? AND revision = ?")?;
    Ok(statement.execute((progress, id, task.revision))? == 1)
}
