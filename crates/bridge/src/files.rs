//! Files of a sandbox: what every bridge can do with them.

use std::{pin::Pin, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use errand_runtime::RuntimeError;
use errand_task::{FileEntry, FilePath, FileRefusal, WriteOptions};

/// The content of a file as it is read: never empty pieces, of bounded size. After an error nothing comes.
pub type FileContent = Pin<Box<dyn Stream<Item = Result<Bytes, FileError>> + Send>>;

/// The content of a file that is to be written. It ends when it is complete; [`Abandoned`] takes the whole file back.
pub type FileSource = Pin<Box<dyn Stream<Item = Result<Bytes, Abandoned>> + Send>>;

/// Entries of a directory, in no order. After an error nothing comes.
pub type FileEntries = Pin<Box<dyn Stream<Item = Result<FileEntry, FileError>> + Send>>;

/// How long the removal of a tree may take.
pub(super) const REMOVE_LIMIT: Duration = Duration::from_secs(600);

/// Reads and writes files in running sandboxes, as the sandbox's user. Every method names the sandbox by its runtime's id. Each holds no
/// more than a piece of a file or of a directory in memory.
#[async_trait]
pub trait SandboxFiles: Send + Sync + 'static {
    /// Describes a file; with `follow`, the one that a symbolic link leads to.
    ///
    /// # Errors
    /// [`FileError::Refused`], or when the sandbox cannot be reached.
    async fn stat_file(&self, sandbox: &str, path: &FilePath, follow: bool) -> Result<FileEntry, FileError>;

    /// Lists a directory.
    ///
    /// # Errors
    /// As for [`SandboxFiles::stat_file`].
    async fn list_directory(&self, sandbox: &str, path: &FilePath) -> Result<FileEntries, FileError>;

    /// Opens a regular file at an offset, for at most `limit` bytes. Past its end there is nothing to read, which is no error.
    ///
    /// # Errors
    /// As for [`SandboxFiles::stat_file`].
    async fn read_file(
        &self,
        sandbox: &str,
        path: &FilePath,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<FileReader, FileError>;

    /// Writes a file: all of it or nothing. Symbolic links are followed, unless nothing must be there. Cancelled before the source has
    /// ended, it leaves nothing; afterwards nobody knows.
    ///
    /// # Errors
    /// As for [`SandboxFiles::stat_file`], and [`FileError::Abandoned`].
    async fn write_file(
        &self,
        sandbox: &str,
        path: &FilePath,
        options: WriteOptions,
        content: FileSource,
    ) -> Result<FileEntry, FileError>;

    /// Removes a file, or a directory; with all that is in it if `recursive`. Symbolic links are removed and never followed.
    ///
    /// # Errors
    /// As for [`SandboxFiles::stat_file`].
    async fn remove_file(&self, sandbox: &str, path: &FilePath, recursive: bool) -> Result<(), FileError>;
}

/// An open file.
pub struct FileReader {
    /// What it was when it was opened.
    pub entry: FileEntry,
    /// What was asked for of its content.
    pub content: FileContent,
}

/// Whoever was writing went away or changed its mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abandoned;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The sandbox says no.
    #[error(transparent)]
    Refused(#[from] FileRefusal),
    /// The content did not come to its end. Nothing was written.
    #[error("the content did not come to its end; nothing was written")]
    Abandoned,
    /// The sandbox cannot be reached.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
