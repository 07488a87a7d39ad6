//! Migrates a database file to the schema that this server knows, step by step.
//!
//! Refuses a file of another program or of a newer Errand before anything is written to it. Does not migrate back to an older schema.

use std::path::Path;

use rusqlite::Connection;

use super::file::{refused, unusable};
use crate::StoreError;

/// Marks the file as Errand's: the letters `Errd`.
const APPLICATION_ID: i64 = 0x4572_7264;

/// The steps, in order. Never changed once released: a new schema is a new step.
const STEPS: &[&str] = &[
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_usage_removals.sql"),
    include_str!("migrations/0003_progress.sql"),
    include_str!("migrations/0004_queue_retention.sql"),
    include_str!("migrations/0005_secrets.sql"),
];

/// The newest schema version that this server knows.
fn known_version() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// Refuses a file that this server must not touch, and migrates any other.
///
/// # Errors
/// [`StoreError::Unusable`], [`StoreError::TooNew`], or when a step fails; the steps before it stay done.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found = recognise(connection, path)?;
    // Not earlier: switching to WAL writes to the file. Outside a transaction, because it has no effect inside one.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    for (step, version) in STEPS.iter().zip(1_i64..).filter(|(_, version)| *version > found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

/// The schema version of the file; 0 when it is new.
fn recognise(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let number =
        |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|error| refused(path, error));
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    if application != APPLICATION_ID && (objects > 0 || version > 0) {
        return Err(unusable(path, "belongs to another program"));
    }
    if version > known_version() {
        return Err(StoreError::TooNew { found: version, known: known_version() });
    }
    Ok(version)
}
