//! Brings a database file to the schema that this server knows, step by step.
//!
//! A file is recognised before anything is written to it: one of another program, or of a newer Errand, is refused and left as it was.
//! There is no way back to an older schema.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, query_scalar, raw_sql};

use super::file::refused;
use crate::store::StoreError;

/// Marks the file as Errand's: the letters `Errd`.
const APPLICATION_ID: i64 = 0x4572_7264;

/// The steps, in order. Never changed once released: a new schema is a new step.
const STEPS: &[&str] = &[include_str!("migrations/0001_initial.sql")];

/// The newest schema version that this server knows.
fn known_version() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// Refuses a file that this server must not touch, and brings any other up to date.
///
/// # Errors
/// [`StoreError::NotADatabase`], [`StoreError::TooNew`], or when a step fails; the steps before it stay done.
pub(super) async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let found = recognise(connection, path).await?;
    // Not earlier: switching to WAL writes to the file. Outside a transaction, because it has no effect inside one.
    raw_sql("PRAGMA journal_mode = WAL").execute(&mut *connection).await?;
    for (step, version) in STEPS.iter().zip(1_i64..).filter(|(_, version)| *version > found) {
        let mut transaction = connection.begin().await?;
        raw_sql(*step).execute(&mut *transaction).await?;
        // A pragma takes no bound values; these are numbers of our own.
        let marks = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version}");
        raw_sql(AssertSqlSafe(marks)).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
    Ok(())
}

/// The schema version of the file; 0 when it is new.
async fn recognise(connection: &mut SqliteConnection, path: &Path) -> Result<i64, StoreError> {
    let refuse = |error| refused(path, error);
    let application: i64 = query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await.map_err(refuse)?;
    let version: i64 = query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await.map_err(refuse)?;
    let objects: i64 =
        query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *connection).await.map_err(refuse)?;
    if application != APPLICATION_ID && (objects > 0 || version > 0) {
        return Err(StoreError::NotADatabase {
            path: path.display().to_string(),
            detail: "it belongs to another program".to_owned(),
        });
    }
    if version > known_version() {
        return Err(StoreError::TooNew { found: version, known: known_version() });
    }
    Ok(version)
}
