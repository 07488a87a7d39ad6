//! A store in one SQLite file.
//!
//! Owns the file, one connection that writes ([`writer`]) and a few that read ([`readers`]). In WAL mode they read while the writer commits.
//! Every commit is flushed to disk before its callers are answered. One process at a time can open the file; a second one is refused.

mod ages;
mod contract;
mod file;
mod migrate;
mod notifications;
mod outputs;
mod queue;
mod readers;
mod removals;
mod retention;
mod sandboxes;
mod secrets;
mod shares;
mod statement;
mod tasks;
mod timeline;
mod undecodable;
mod usage;
mod values;
mod writer;

use std::{path::Path, sync::Arc, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use crate::{Clock, StoreError, SystemClock};
use ages::Ages;
use readers::Readers;
use undecodable::Undecodable;
use writer::Writer;

/// How long to wait for a lock that another program holds, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many prepared statements a connection caches: more than there are statements without variable parts.
const PREPARED: usize = 96;

/// Tasks, sandboxes and notifications in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    readers: Readers,
    writer: Writer,
    ages: Arc<Ages>,
    undecodable: Arc<Undecodable>,
}

impl SqliteStore {
    /// Opens the database at `path`, creates it if there is none, and migrates its schema. The directory must exist. The file `<path>.lock`
    /// beside it keeps a second server out.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Unwritable`], [`StoreError::Unusable`] and [`StoreError::TooNew`]; a refused file is left as it
    /// was. [`StoreError::Database`] for anything else.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with_clock(path, Arc::new(SystemClock::new())).await
    }

    /// Opens the database with other clocks than the system's, such as those of a test.
    ///
    /// # Errors
    /// As for [`SqliteStore::open`].
    pub async fn open_with_clock(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let claim = file::claim(path)?;
        let ages = Arc::new(Ages::new(clock));
        let (opened, claim) = {
            let path = path.to_owned();
            tokio::task::spawn_blocking(move || open(&path).map(|connection| (connection, claim)))
                .await
                .map_err(|error| StoreError::Database(Arc::new(error)))??
        };
        let writer = Writer::start(opened, claim, Arc::clone(&ages));
        let writer = writer.map_err(|error| StoreError::Database(Arc::new(error)))?;
        Ok(Self { readers: Readers::new(path), writer, ages, undecodable: Arc::default() })
    }

    /// The number of commits since the store was opened. Smaller than the number of changes, because changes share commits.
    pub fn commits(&self) -> u64 {
        self.writer.commits()
    }

    /// The number of different records found that cannot be decoded. Each is logged.
    pub fn undecodable(&self) -> usize {
        self.undecodable.count()
    }

    /// The number of changes that wait for the current commit. The next commit takes up to 256 of them.
    pub fn waiting(&self) -> usize {
        self.writer.waiting()
    }
}

/// Opens the connection that writes, and migrates the schema.
fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|error| file::refused(path, error))?;
    configure(&connection).map_err(|error| file::refused(path, error))?;
    migrate::migrate(&mut connection, path)?;
    Ok(connection)
}

/// Sets what every connection needs, without touching the file.
fn configure(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Query plans do not depend on bound values. Otherwise SQLite prepares a statement that can use a partial index again for each value.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(())
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        failed(Arc::new(error))
    }
}

/// The error for the caller when the database failed.
fn failed(error: Arc<rusqlite::Error>) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::DiskFull,
        // Only reads are ever interrupted.
        Some(ErrorCode::OperationInterrupted) => StoreError::Busy,
        _ => StoreError::Database(error),
    }
}
