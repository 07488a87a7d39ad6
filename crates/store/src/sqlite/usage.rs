//! How much a tenant has stored, and whether it may store more.

use rusqlite::{Connection, OptionalExtension as _};

use crate::{Caps, StoreError};
use errand_task::TenantId;

/// The bytes counted for a row beside its record: its other columns, its entries in the indexes, and the growth of its record.
const OVERHEAD: u64 = 1024;

/// The bytes counted for a row with a record of this length.
pub(super) fn bytes(record: usize) -> i64 {
    i64::try_from(record as u64 + OVERHEAD).unwrap_or(i64::MAX)
}

/// Refuses one more task of `bytes` if it would exceed the limits.
pub(super) fn check(connection: &Connection, tenant: &TenantId, bytes: i64, caps: &Caps) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("SELECT tasks, bytes FROM usage WHERE tenant = ?")?;
    let stored = statement.query_row([tenant.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
    let (tasks, stored) = stored.optional()?.unwrap_or_default();
    let (tasks, stored) = (tasks.max(0).unsigned_abs(), stored.max(0).unsigned_abs());
    if tasks >= caps.stored_tasks {
        return Err(StoreError::TooManyStored { stored: tasks, limit: caps.stored_tasks });
    }
    if stored.saturating_add(bytes.unsigned_abs()) > caps.stored_bytes {
        return Err(StoreError::TooMuchStored { stored, limit: caps.stored_bytes });
    }
    Ok(())
}

/// Whether `bytes` more may be used for retained output: at most half of the limit, so that outputs alone never keep new tasks out.
pub(super) fn has_room(
    connection: &Connection,
    tenant: &TenantId,
    bytes: i64,
    stored_bytes: u64,
) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("SELECT bytes FROM usage WHERE tenant = ?")?;
    let stored: i64 = statement.query_row([tenant.as_str()], |row| row.get(0)).optional()?.unwrap_or_default();
    Ok(stored.saturating_add(bytes).max(0).unsigned_abs() <= stored_bytes / 2)
}

/// Counts added rows, or with negative numbers removed ones.
pub(super) fn add(connection: &Connection, tenant: &TenantId, tasks: i64, bytes: i64) -> Result<(), StoreError> {
    add_by_name(connection, tenant.as_str(), tasks, bytes)
}

/// [`add`] for a tenant's name from a row.
pub(super) fn add_by_name(connection: &Connection, tenant: &str, tasks: i64, bytes: i64) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO usage (tenant, tasks, bytes) VALUES (?, ?, ?) \
         ON CONFLICT (tenant) DO UPDATE SET tasks = tasks + excluded.tasks, bytes = bytes + excluded.bytes",
    )?;
    statement.execute((tenant, tasks, bytes))?;
    Ok(())
}
