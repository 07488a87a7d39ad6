//! The table of tasks.
//!
//! A row holds what was accepted (`record`) and the progress. A change rewrites its row as a whole, so a large record has a row of its own
//! in `large_records`, which is written once.

mod create;
mod page;
mod room;
mod update;

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, Row, types::ValueRef};

use super::{
    undecodable::Undecodable,
    values::{decode_all, decode_one, text, undecodable},
};
use crate::{
    StoreError,
    stored::{decode_retained, decode_task},
};
use errand_task::{BotId, SandboxId, Task, TaskId, TenantId};

pub(super) use create::Create;
pub(super) use page::{page, push_patterns};
pub(super) use update::{Admit, Finish, PackedEnd, Update};

/// The kind of these records in errors.
const WHAT: &str = "task";
/// The size in bytes above which a record has a row of its own: about a page.
const LARGE: usize = 4096;

/// A task's record, wherever it stands.
macro_rules! record {
    () => {
        "CASE record WHEN '' THEN coalesce((SELECT large.record FROM large_records AS large WHERE large.task = tasks.id), '') \
         ELSE record END"
    };
}

/// The columns that [`decode`] reads.
macro_rules! columns {
    () => {
        concat!("id, ", record!(), ", progress, revision, retained")
    };
}

use {columns, record};

/// Decodes a row of [`columns`].
fn decode(row: &Row<'_>) -> Result<Task, StoreError> {
    let progress = match row.get_ref(2)? {
        ValueRef::Null => None,
        _ => Some(text(row, 2)?),
    };
    let retained = match row.get_ref(4)? {
        ValueRef::Null => None,
        _ => Some(decode_retained(text(row, 4)?).map_err(|fault| undecodable(row, WHAT, fault))?),
    };
    let task = decode_task(text(row, 1)?, progress, row.get(3)?).map_err(|fault| undecodable(row, WHAT, fault))?;
    Ok(Task { retained, ..task })
}

pub(super) fn get(connection: &Connection, tenant: &TenantId, id: TaskId) -> Result<Option<Task>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM tasks WHERE id = ? AND tenant = ?");
    decode_one(connection.prepare_cached(sql)?.query((id.to_string(), tenant.as_str()))?, decode)
}

pub(super) fn get_by_request(
    connection: &Connection,
    tenant: &TenantId,
    bot: &BotId,
    request_id: &str,
) -> Result<Option<Task>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM tasks WHERE tenant = ? AND bot = ? AND request_id = ?");
    decode_one(connection.prepare_cached(sql)?.query((tenant.as_str(), bot.as_str(), request_id))?, decode)
}

pub(super) fn unfinished(connection: &Connection, undecodable: &Undecodable) -> Result<Vec<Task>, StoreError> {
    let sql =
        concat!("SELECT ", columns!(), " FROM tasks INDEXED BY tasks_unfinished WHERE finished_at IS NULL ORDER BY id");
    decode_all(connection.prepare_cached(sql)?.query([])?, decode, undecodable)
}

/// Finished tasks of a sandbox that holds more of their output than is retained, oldest first.
pub(super) fn unretained(
    connection: &Connection,
    sandbox: SandboxId,
    limit: u32,
    undecodable: &Undecodable,
) -> Result<Vec<Task>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM tasks INDEXED BY tasks_unretained WHERE unretained = 1 AND sandbox = ? ORDER BY id LIMIT ?"
    );
    decode_all(connection.prepare_cached(sql)?.query((sandbox.to_string(), limit))?, decode, undecodable)
}

/// Those of the ids that were made before `before` and are not in the table.
pub(super) fn unknown(connection: &Connection, ids: &[TaskId], before: SystemTime) -> Result<Vec<TaskId>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM tasks WHERE id = ?")?;
    let mut unknown = Vec::new();
    for id in ids {
        if made(*id).is_some_and(|made| made < before) && !statement.exists([id.to_string()])? {
            unknown.push(*id);
        }
    }
    Ok(unknown)
}

/// When an id was made, as its timestamp says.
fn made(id: TaskId) -> Option<SystemTime> {
    let (seconds, nanos) = id.uuid().get_timestamp()?.to_unix();
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}
