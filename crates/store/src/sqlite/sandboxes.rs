//! The table of sandboxes.

use std::time::SystemTime;

use rusqlite::{Connection, Row, ffi, params};

use super::{
    statement::Statement,
    undecodable::Undecodable,
    values::{decode_one, micros, text, undecodable},
    writer::Change,
};
use crate::{
    StoreError,
    stored::{decode_sandbox, encode_sandbox},
};
use errand_task::{BotId, SandboxId, SandboxRecord, TenantId};

/// The kind of these records in errors.
const WHAT: &str = "sandbox";

fn decode(row: &Row<'_>) -> Result<SandboxRecord, StoreError> {
    decode_sandbox(text(row, 1)?).map_err(|fault| undecodable(row, WHAT, fault))
}

/// Adds or replaces a sandbox.
pub(super) struct Put(pub(super) SandboxRecord);

impl Change for Put {
    type Answer = ();

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.0.tenant)
    }

    fn apply(&self, connection: &Connection, _now: SystemTime) -> Result<(), StoreError> {
        let Self(sandbox) = self;
        let mut statement = connection.prepare_cached(
            "INSERT INTO sandboxes (id, tenant, bot, created_at, record) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET created_at = excluded.created_at, record = excluded.record \
             WHERE tenant = excluded.tenant AND bot = excluded.bot",
        )?;
        let done = statement.execute(params![
            sandbox.id.to_string(),
            sandbox.tenant.as_str(),
            sandbox.bot.as_str(),
            micros(sandbox.created_at),
            encode_sandbox(sandbox)?,
        ]);
        match done {
            Ok(1) => Ok(()),
            Ok(_) => Err(StoreError::Conflict),
            Err(error) if is_unique_violation(&error) => Err(StoreError::Conflict),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_unique_violation(error: &rusqlite::Error) -> bool {
    const CODES: [i32; 2] = [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_PRIMARYKEY];
    error.sqlite_error().is_some_and(|error| CODES.contains(&error.extended_code))
}

/// Forgets a bot's sandbox.
pub(super) struct Remove {
    pub(super) tenant: TenantId,
    pub(super) bot: BotId,
}

impl Change for Remove {
    type Answer = ();

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }

    fn apply(&self, connection: &Connection, _now: SystemTime) -> Result<(), StoreError> {
        let whose = (self.tenant.as_str(), self.bot.as_str());
        let mut statement = connection.prepare_cached(
            "DELETE FROM removals WHERE sandbox = (SELECT id FROM sandboxes WHERE tenant = ? AND bot = ?)",
        )?;
        statement.execute(whose)?;
        let mut statement = connection.prepare_cached("DELETE FROM sandboxes WHERE tenant = ? AND bot = ?")?;
        statement.execute(whose)?;
        Ok(())
    }
}

pub(super) fn get(
    connection: &Connection,
    tenant: &TenantId,
    bot: &BotId,
) -> Result<Option<SandboxRecord>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT id, record FROM sandboxes WHERE tenant = ? AND bot = ?")?;
    decode_one(statement.query((tenant.as_str(), bot.as_str()))?, decode)
}

pub(super) fn list(
    connection: &Connection,
    tenant: Option<&TenantId>,
    after: Option<SandboxId>,
    limit: u32,
    undecodable: &Undecodable,
) -> Result<Vec<SandboxRecord>, StoreError> {
    // No limit in SQL: an undecodable record must not make a page look like the last one.
    let mut sql = Statement::new("SELECT id, record FROM sandboxes ");
    match tenant {
        Some(tenant) => sql.push("INDEXED BY sandboxes_of_tenant WHERE tenant = ").bind(tenant.as_str().to_owned()),
        None => sql.push("WHERE TRUE"),
    };
    if let Some(after) = after {
        sql.push(" AND id > ").bind(after.to_string());
    }
    sql.push(" ORDER BY id");
    let mut statement = sql.prepare(connection)?;
    let mut rows = statement.query(&sql.bound()[..])?;
    let mut found = Vec::new();
    while found.len() < limit as usize
        && let Some(row) = rows.next()?
    {
        found.extend(undecodable.skip(decode(row))?);
    }
    Ok(found)
}
