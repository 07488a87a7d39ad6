//! Adds a task.

use std::time::SystemTime;

use rusqlite::{Connection, params};

use super::{LARGE, get_by_request};
use crate::{
    Caps, Created, StoreError,
    sqlite::{usage, values::micros, writer::Change},
    stored::{encode_accepted, encode_progress},
};
use errand_task::{Task, TenantId};

pub(in crate::sqlite) struct Create {
    pub(in crate::sqlite) task: Task,
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
        self.check_caps(connection)?;
        let (record, progress) = (encode_accepted(&self.task)?, encode_progress(&self.task)?);
        let bytes = usage::bytes(record.len() + progress.len());
        usage::check(connection, &owner.tenant, bytes, &self.caps)?;
        usage::add(connection, &owner.tenant, 1, bytes)?;
        let (small, large) = if record.len() > LARGE { ("", Some(&record)) } else { (record.as_str(), None) };
        let id = self.task.id.to_string();
        let mut statement = connection.prepare_cached(
            "INSERT INTO tasks (id, tenant, bot, session, request_id, sandbox, status, created_at, finished_at, revision, record, \
             progress, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
        ])?;
        if let Some(record) = large {
            let mut statement = connection.prepare_cached("INSERT INTO large_records (task, record) VALUES (?, ?)")?;
            statement.execute((&id, record))?;
        }
        Ok(Created::New(self.task.clone()))
    }
}

impl Create {
    /// Counts within the transaction that adds the task, so that no other change comes between.
    fn check_caps(&self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(
            "SELECT count(*) FILTER (WHERE bot = ?), count(*) FROM tasks INDEXED BY tasks_unfinished \
             WHERE tenant = ? AND finished_at IS NULL",
        )?;
        let owner = &self.task.owner;
        let (of_bot, of_tenant): (u32, u32) =
            statement.query_row((owner.bot.as_str(), owner.tenant.as_str()), |row| Ok((row.get(0)?, row.get(1)?)))?;
        if of_bot >= self.caps.per_bot {
            return Err(StoreError::TooManyForBot { running: of_bot, limit: self.caps.per_bot });
        }
        if of_tenant >= self.caps.per_tenant {
            return Err(StoreError::TooManyForTenant { running: of_tenant, limit: self.caps.per_tenant });
        }
        Ok(())
    }
}
