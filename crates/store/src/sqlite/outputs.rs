//! The table of outputs: what outlives a sandbox.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{secrets, usage, values::undecodable, writer::Change};
use crate::{
    StoreError,
    stored::{PackedOutput, decode_output},
};
use errand_task::{RetainedOutput, TaskId, TenantId};

/// The kind of these records in errors.
const WHAT: &str = "output";

/// The bytes counted for an output.
pub(super) fn weight(output: &PackedOutput) -> i64 {
    i64::try_from(output.weight()).unwrap_or(i64::MAX)
}

/// Adds an output, or replaces the one before.
pub(super) fn put(connection: &Connection, task: &str, output: &PackedOutput) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO outputs (task, total, runs, size, data) VALUES (?, ?, ?, ?, ?) ON CONFLICT (task) DO UPDATE SET \
         total = excluded.total, runs = excluded.runs, size = excluded.size, data = excluded.data",
    )?;
    let total = i64::try_from(output.total).unwrap_or(i64::MAX);
    let size = i64::try_from(output.size).unwrap_or(i64::MAX);
    statement.execute(params![task, total, output.runs, size, output.data])?;
    Ok(())
}

/// Replaces the output of a finished task.
pub(super) struct Retain {
    pub(super) tenant: TenantId,
    pub(super) task: TaskId,
    /// None: what is retained stays.
    pub(super) output: Option<PackedOutput>,
    pub(super) stored_bytes: u64,
}

impl Change for Retain {
    type Answer = ();

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }

    fn apply(&self, connection: &Connection, _now: SystemTime) -> Result<(), StoreError> {
        let (id, tenant) = (self.task.to_string(), self.tenant.as_str());
        let mut done = connection.prepare_cached(
            "UPDATE tasks SET unretained = 0 WHERE id = ? AND tenant = ? AND finished_at IS NOT NULL",
        )?;
        if done.execute((&id, tenant))? == 0 {
            return Ok(());
        }
        secrets::forget_finished(connection, &id)?;
        let Some(output) = &self.output else { return Ok(()) };
        let mut statement =
            connection.prepare_cached("SELECT octet_length(runs) + octet_length(data) FROM outputs WHERE task = ?")?;
        let before: Option<i64> = statement.query_row([&id], |row| row.get(0)).optional()?;
        let overhead = weight(output) - i64::try_from(output.runs.len() + output.data.len()).unwrap_or(i64::MAX);
        let more = weight(output) - before.map_or(0, |before| before + overhead);
        if !usage::has_room(connection, &self.tenant, more, self.stored_bytes)? {
            return Ok(());
        }
        put(connection, &id, output)?;
        let mut statement =
            connection.prepare_cached("UPDATE tasks SET retained = ?, bytes = bytes + ? WHERE id = ?")?;
        statement.execute((&output.summary, more, &id))?;
        usage::add(connection, &self.tenant, 0, more)
    }
}

/// The retained output of a task.
pub(super) fn get(
    connection: &Connection,
    tenant: &TenantId,
    task: TaskId,
) -> Result<Option<RetainedOutput>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT task, total, runs, size, data FROM outputs \
         WHERE task = ? AND EXISTS (SELECT 1 FROM tasks WHERE tasks.id = outputs.task AND tenant = ?)",
    )?;
    let mut rows = statement.query((task.to_string(), tenant.as_str()))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let total = row.get::<_, i64>(1)?.max(0).unsigned_abs();
    let size = usize::try_from(row.get::<_, i64>(3)?).unwrap_or(usize::MAX);
    let (runs, data) = (row.get_ref(2)?.as_bytes().unwrap_or_default(), row.get_ref(4)?.as_bytes().unwrap_or_default());
    decode_output(total, runs, size, data).map(Some).map_err(|fault| undecodable(row, WHAT, fault))
}
