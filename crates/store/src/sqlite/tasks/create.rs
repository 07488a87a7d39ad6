//! Adds a task.

use std::time::SystemTime;

use rusqlite::{Connection, params};

use super::{LARGE, get_by_request, room};
use crate::{
    Caps, Created, SealedSecrets, StoreError,
    sqlite::{secrets, usage, values::micros, writer::Change},
    stored::{encode_accepted, encode_progress},
};
use errand_task::{Task, TaskState, TenantId};

pub(in crate::sqlite) struct Create {
    pub(in crate::sqlite) task: Task,
    pub(in crate::sqlite) secrets: SealedSecrets,
    pub(in crate::sqlite) caps: Caps,
}

impl Change for Create {
    type Answer = Created;

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.task.owner.tenant)
    }

    fn apply(&self, connection: &Connection, now: SystemTime) -> Result<Created, StoreError> {
        let owner = &self.task.owner;
        if let Some(request_id) = &self.task.spec.request_id
            && let Some(existing) = get_by_request(connection, &owner.tenant, &owner.bot, request_id)?
        {
            return Ok(Created::Existing(existing));
        }
        let (record, progress) = (encode_accepted(&self.task)?, encode_progress(&self.task)?);
        let bytes = usage::bytes(record.len() + progress.len() + self.secrets.len());
        if self.waits() {
            room::check_queue(connection, owner, bytes, &self.caps)?;
        } else {
            room::check(connection, owner, &self.caps)?;
        }
        usage::check(connection, &owner.tenant, bytes, &self.caps)?;
        usage::add(connection, &owner.tenant, 1, bytes)?;
        let (small, large) = if record.len() > LARGE { ("", Some(&record)) } else { (record.as_str(), None) };
        let id = self.task.id.to_string();
        let mut statement = connection.prepare_cached(
            "INSERT INTO tasks (id, tenant, bot, session, request_id, sandbox, status, created_at, finished_at, revision, record, \
             progress, bytes, waits, unannounced) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        statement.execute(params![
            id,
            owner.tenant.as_str(),
            owner.bot.as_str(),
            owner.session.as_str(),
            self.task.spec.request_id.as_deref(),
            self.task.sandbox.to_string(),
            self.task.status().word(),
            micros(self.task.created_at),
            self.task.status().is_terminal().then(|| micros(now)),
            self.task.revision,
            small,
            progress,
            bytes,
            self.waits(),
            self.task.status().is_terminal(),
        ])?;
        if let Some(record) = large {
            let mut statement = connection.prepare_cached("INSERT INTO large_records (task, record) VALUES (?, ?)")?;
            statement.execute((&id, record))?;
        }
        secrets::insert(connection, self.task.id, &self.secrets)?;
        Ok(Created::New(self.task.clone()))
    }
}

impl Create {
    /// Whether the task waits for room.
    fn waits(&self) -> bool {
        self.task.state == TaskState::AwaitingRoom
    }
}
