//! The database file: who may use it, and whether it can be used.
//!
//! Looks at the file before SQLite does, because SQLite's own answers ("unable to open database file") do not say what is wrong.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rusqlite::ErrorCode;

use crate::StoreError;

/// How every SQLite database begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The sole right to a database, until dropped. The system ends it with the process, however that dies.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: File,
}

/// Claims the database and makes its file when there is none.
///
/// # Errors
/// [`StoreError::InUse`], [`StoreError::Unwritable`] or [`StoreError::NotADatabase`].
pub(super) fn claim(path: &Path) -> Result<Claim, StoreError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = open(Path::new(&lock_path))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => StoreError::InUse { path: path.display().to_string() },
        TryLockError::Error(source) => unwritable(Path::new(&lock_path), source),
    })?;
    // Only under the lock: closing any descriptor of a file ends SQLite's own locks on it in the whole process.
    check(path)?;
    Ok(Claim { _lock: lock })
}

fn check(path: &Path) -> Result<(), StoreError> {
    let mut start = Vec::with_capacity(MAGIC.len());
    open(path)?.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(|source| unwritable(path, source))?;
    if start.is_empty() || start == MAGIC {
        Ok(())
    } else {
        Err(StoreError::NotADatabase {
            path: path.display().to_string(),
            detail: "it does not begin as a SQLite database does".to_owned(),
        })
    }
}

/// Opens for writing. New files are the server's user's alone: commands and their environment hold secrets. SQLite gives the files that
/// it makes beside the database the same mode.
fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| unwritable(path, source))
}

fn unwritable(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Unwritable { path: path.display().to_string(), source }
}

/// Tells a file that is no database, or a damaged one, from any other failure.
pub(super) fn refused(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::NotADatabase { path: path.display().to_string(), detail: error.to_string() }
        }
        _ => error.into(),
    }
}
