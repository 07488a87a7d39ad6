//! The database file: the claim on it, and whether it can be used.
//!
//! Checks the file before SQLite does, because SQLite's errors ("unable to open database file") do not say what is wrong. The errors of the
//! contract know no files, so this module puts the path into their detail or source.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::ErrorCode;

use crate::StoreError;

/// How every SQLite database begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The exclusive claim on a database, until dropped. The operating system ends it with the process.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: File,
}

/// Why a file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be opened", path.display())]
struct FileError {
    path: PathBuf,
    source: std::io::Error,
}

/// Claims the database and makes its file when there is none.
///
/// # Errors
/// [`StoreError::InUse`], [`StoreError::Unwritable`] or [`StoreError::Unusable`].
pub(super) fn claim(path: &Path) -> Result<Claim, StoreError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = open(Path::new(&lock_path))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => StoreError::InUse { detail: path.display().to_string() },
        TryLockError::Error(source) => unwritable(Path::new(&lock_path), source),
    })?;
    // Only under the lock: closing any descriptor of a file ends SQLite's own locks on it in the whole process.
    check(path)?;
    Ok(Claim { _lock: lock })
}

fn check(path: &Path) -> Result<(), StoreError> {
    let mut start = Vec::with_capacity(MAGIC.len());
    open(path)?.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(|source| unwritable(path, source))?;
    if start.is_empty() || start == MAGIC { Ok(()) } else { Err(unusable(path, "is not a SQLite database")) }
}

/// Opens a file for writing. New files are readable by the server's user alone, because commands and their environment hold secrets. SQLite
/// gives its files beside the database the same mode.
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
    StoreError::Unwritable(Arc::new(FileError { path: path.to_owned(), source }))
}

/// The error for a file that is not Errand's database.
pub(super) fn unusable(path: &Path, why: &str) -> StoreError {
    StoreError::Unusable { detail: format!("{} {why}", path.display()) }
}

/// Distinguishes a file that is not a database, or a damaged one, from any other failure.
pub(super) fn refused(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            unusable(path, &format!("is not a database, or is damaged: {error}"))
        }
        _ => error.into(),
    }
}
