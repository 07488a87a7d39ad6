//! File operations in a sandbox that every bridge provides.

use std::{pin::Pin, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use errand_runtime::RuntimeError;
use errand_task::{FileChange, FileEntry, FilePath, FileRefusal, TreeOptions, TreeWritten, WriteOptions};

/// The content of a file that is read: pieces of bounded size, none of them empty. An error is the last item.
pub type FileContent = Pin<Box<dyn Stream<Item = Result<Bytes, FileError>> + Send>>;

/// The content of a file to be written. The end of the stream completes the file; [`Abandoned`] cancels the whole write.
pub type FileSource = Pin<Box<dyn Stream<Item = Result<Bytes, Abandoned>> + Send>>;

/// Entries of a directory, in no particular order. An error is the last item.
pub type FileEntries = Pin<Box<dyn Stream<Item = Result<FileEntry, FileError>> + Send>>;

/// Changes in a watched directory, in order. It ends with an error: [`FileError::Refused`] once the directory is gone.
pub type FileChanges = Pin<Box<dyn Stream<Item = Result<FileChange, FileError>> + Send>>;

/// How long removing a tree may take.
pub(super) const REMOVE_LIMIT: Duration = Duration::from_secs(600);

/// Reads and writes files in one running sandbox, as the sandbox's user. Each method holds at most one piece of a file or of a directory in
/// memory.
#[async_trait]
pub trait SandboxFiles: Send + Sync + 'static {
    /// Describes a file. With `follow`, describes the target of a symbolic link.
    ///
    /// # Errors
    /// [`FileError::Refused`], or when the sandbox cannot be reached.
    async fn stat_file(&self, path: &FilePath, follow: bool) -> Result<FileEntry, FileError>;

    /// Lists a directory.
    ///
    /// # Errors
    /// As for [`SandboxFiles::stat_file`].
    async fn list_directory(&self, path: &FilePath) -> Result<FileEntries, FileError>;

    /// Opens a regular file at an offset, to read at most `limit` bytes. An offset past the end yields no bytes and is not an error.
    ///
    /// # Errors
    /// As for [`SandboxFiles::stat_file`].
    async fn read_file(&self, path: &FilePath, offset: u64, limit: Option<u64>) -> Result<FileReader, FileError>;

    /// Writes a file completely or not at all. Follows symbolic links, unless the file must not exist yet. Cancelling the call before the
    /// source has ended writes nothing; after that, the result is unknown.
    ///
    /// # Errors
    /// As for [`SandboxFiles::stat_file`], and [`FileError::Abandoned`].
    async fn write_file(
        &self,
        path: &FilePath,
        options: WriteOptions,
        content: FileSource,
    ) -> Result<FileEntry, FileError>;

    /// Removes a file or a directory. With `recursive`, removes the contents of a directory too. Removes symbolic links and never follows
    /// them.
    ///
    /// # Errors
    /// As for [`SandboxFiles::stat_file`].
    async fn remove_file(&self, path: &FilePath, recursive: bool) -> Result<(), FileError>;

    /// Makes a directory. With `parents`, makes missing parent directories too, and accepts a directory that exists. Without a mode it gets the
    /// usual permissions.
    ///
    /// # Errors
    /// As for [`SandboxFiles::stat_file`].
    async fn make_directory(&self, path: &FilePath, mode: Option<u32>, parents: bool) -> Result<FileEntry, FileError>;

    /// Gives a file or a directory the path `to`, which has the same root, and describes it. A file that has that path is replaced, unless it
    /// `must_not_exist`. Renames symbolic links and never follows them.
    ///
    /// # Errors
    /// As for [`SandboxFiles::stat_file`].
    async fn rename_file(&self, path: &FilePath, to: &str, must_not_exist: bool) -> Result<FileEntry, FileError>;

    /// Reads a directory with everything in it as a tar archive. Devices, sockets and pipes are left out.
    ///
    /// # Errors
    /// As for [`SandboxFiles::stat_file`], and [`RuntimeError::Refused`] from a bridge that cannot do this.
    async fn read_tree(&self, path: &FilePath) -> Result<FileReader, FileError>;

    /// Unpacks a tar archive into a directory once the archive is complete; until then nothing changes. Cancelling the call is as for
    /// [`SandboxFiles::write_file`].
    ///
    /// # Errors
    /// As for [`SandboxFiles::read_tree`], and [`FileError::Abandoned`].
    async fn write_tree(
        &self,
        path: &FilePath,
        options: TreeOptions,
        archive: FileSource,
    ) -> Result<TreeWritten, FileError>;

    /// Watches a directory, with `recursive` also those in it at every depth. No change after the return of this call is missed unseen:
    /// [`FileChange::Overflow`] stands for those that were lost.
    ///
    /// # Errors
    /// As for [`SandboxFiles::read_tree`].
    async fn watch_files(&self, path: &FilePath, recursive: bool) -> Result<FileChanges, FileError>;
}

/// An open file.
pub struct FileReader {
    /// The file's description when it was opened.
    pub entry: FileEntry,
    /// The requested part of its content.
    pub content: FileContent,
}

/// The writer disconnected or cancelled the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abandoned;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The sandbox refused the operation.
    #[error(transparent)]
    Refused(#[from] FileRefusal),
    /// The upload is incomplete. Nothing was written.
    #[error("the content did not come to its end; nothing was written")]
    Abandoned,
    /// The sandbox cannot be reached.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
