//! Files in the bots' sandboxes: finds the sandbox, and reads a directory one page at a time.

use std::{collections::BTreeMap, pin::Pin};

use futures_util::{Stream, StreamExt as _};

use super::{Engine, EngineError, FileReader, FileSource, idle::Busy, sandbox::Sandbox};
use errand_bridge::{FileChanges, FileEntries, FileError};
use errand_task::{BotId, FileEntry, FilePath, TenantId, TreeOptions, TreeWritten, WriteOptions};

/// Names a file in a bot's sandbox.
#[derive(Debug, Clone)]
pub struct FileRef {
    /// The caller's tenant.
    pub tenant: TenantId,
    /// The bot whose sandbox holds the file.
    pub bot: BotId,
    /// The file's path.
    pub path: FilePath,
}

impl Engine {
    /// Describes a file. With `follow`, describes the target of a symbolic link.
    ///
    /// # Errors
    /// [`EngineError::NoSandbox`], [`EngineError::SandboxNotRunning`], [`EngineError::File`].
    pub async fn stat_file(&self, file: &FileRef, follow: bool) -> Result<FileEntry, EngineError> {
        let (sandbox, _busy) = self.sandbox_of(file).await?;
        Ok(sandbox.bridge.stat_file(&file.path, follow).await?)
    }

    /// Returns the first `limit` entries whose names sort after `after`, sorted by name. Holds at most `limit` entries in memory, however
    /// large the directory is.
    ///
    /// # Errors
    /// As for [`Engine::stat_file`].
    pub async fn list_directory(
        &self,
        directory: &FileRef,
        after: Option<&[u8]>,
        limit: u32,
    ) -> Result<Vec<FileEntry>, EngineError> {
        let (sandbox, _busy) = self.sandbox_of(directory).await?;
        let entries = sandbox.bridge.list_directory(&directory.path).await?;
        page(entries, after, usize::try_from(limit).unwrap_or(usize::MAX)).await
    }

    /// Opens a file at an offset, to read at most `limit` bytes.
    ///
    /// # Errors
    /// As for [`Engine::stat_file`].
    pub async fn read_file(&self, file: &FileRef, offset: u64, limit: Option<u64>) -> Result<FileReader, EngineError> {
        let (sandbox, busy) = self.sandbox_of(file).await?;
        let FileReader { entry, content } = sandbox.bridge.read_file(&file.path, offset, limit).await?;
        Ok(FileReader { entry, content: using(busy, content) })
    }

    /// Writes a file completely or not at all. If the call is cancelled before the content ends, nothing in the sandbox changes.
    ///
    /// # Errors
    /// As for [`Engine::stat_file`], and [`EngineError::FileAbandoned`].
    pub async fn write_file(
        &self,
        file: &FileRef,
        options: WriteOptions,
        content: FileSource,
    ) -> Result<FileEntry, EngineError> {
        let (sandbox, _busy) = self.sandbox_of(file).await?;
        Ok(sandbox.bridge.write_file(&file.path, options, content).await?)
    }

    /// Removes a file or a directory. With `recursive`, removes the contents of a directory too.
    ///
    /// # Errors
    /// As for [`Engine::stat_file`].
    pub async fn remove_file(&self, file: &FileRef, recursive: bool) -> Result<(), EngineError> {
        let (sandbox, _busy) = self.sandbox_of(file).await?;
        Ok(sandbox.bridge.remove_file(&file.path, recursive).await?)
    }

    /// Makes a directory; see [`errand_bridge::SandboxFiles::make_directory`].
    ///
    /// # Errors
    /// As for [`Engine::stat_file`].
    pub async fn make_directory(
        &self,
        directory: &FileRef,
        mode: Option<u32>,
        parents: bool,
    ) -> Result<FileEntry, EngineError> {
        let (sandbox, _busy) = self.sandbox_of(directory).await?;
        Ok(sandbox.bridge.make_directory(&directory.path, mode, parents).await?)
    }

    /// Gives a file another path below the same root.
    ///
    /// # Errors
    /// As for [`Engine::stat_file`].
    pub async fn rename_file(&self, file: &FileRef, to: &str, must_not_exist: bool) -> Result<FileEntry, EngineError> {
        let (sandbox, _busy) = self.sandbox_of(file).await?;
        Ok(sandbox.bridge.rename_file(&file.path, to, must_not_exist).await?)
    }

    /// Reads a directory with everything in it as a tar archive.
    ///
    /// # Errors
    /// As for [`Engine::stat_file`].
    pub async fn read_tree(&self, directory: &FileRef) -> Result<FileReader, EngineError> {
        let (sandbox, busy) = self.sandbox_of(directory).await?;
        let FileReader { entry, content } = sandbox.bridge.read_tree(&directory.path).await?;
        Ok(FileReader { entry, content: using(busy, content) })
    }

    /// Unpacks a tar archive into a directory. If the call is cancelled before the archive ends, nothing in the sandbox changes.
    ///
    /// # Errors
    /// As for [`Engine::write_file`].
    pub async fn write_tree(
        &self,
        directory: &FileRef,
        options: TreeOptions,
        archive: FileSource,
    ) -> Result<TreeWritten, EngineError> {
        let (sandbox, _busy) = self.sandbox_of(directory).await?;
        Ok(sandbox.bridge.write_tree(&directory.path, options, archive).await?)
    }

    /// Watches a directory.
    ///
    /// # Errors
    /// As for [`Engine::stat_file`].
    pub async fn watch_files(&self, directory: &FileRef, recursive: bool) -> Result<FileChanges, EngineError> {
        let (sandbox, busy) = self.sandbox_of(directory).await?;
        Ok(using(busy, sandbox.bridge.watch_files(&directory.path, recursive).await?))
    }

    /// The sandbox, in use until the second value is dropped.
    async fn sandbox_of(&self, file: &FileRef) -> Result<(Sandbox, Busy), EngineError> {
        let busy = self.inner.activity.begin(&file.tenant, &file.bot);
        Ok((self.inner.sandboxes.of_bot(&file.tenant, &file.bot).await?, busy))
    }
}

/// A stream that uses the sandbox until it is dropped.
fn using<T: 'static>(
    busy: Busy,
    stream: Pin<Box<dyn Stream<Item = Result<T, FileError>> + Send>>,
) -> Pin<Box<dyn Stream<Item = Result<T, FileError>> + Send>> {
    Box::pin(stream.inspect(move |_| {
        let _ = &busy;
    }))
}

async fn page(mut entries: FileEntries, after: Option<&[u8]>, limit: usize) -> Result<Vec<FileEntry>, EngineError> {
    let mut first = BTreeMap::new();
    while let Some(entry) = entries.next().await.transpose()? {
        if after.is_none_or(|after| entry.name.as_slice() > after) {
            first.insert(entry.name.clone(), entry);
            if first.len() > limit {
                first.pop_last();
            }
        }
    }
    Ok(first.into_values().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::time::SystemTime;

    use futures_util::stream;

    use super::*;
    use errand_task::FileKind;

    fn entries(names: &[&str]) -> FileEntries {
        let entry = |name: &&str| FileEntry {
            name: name.as_bytes().to_vec(),
            kind: FileKind::File,
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            modified: SystemTime::UNIX_EPOCH,
            link_target: Vec::new(),
        };
        Box::pin(stream::iter(names.iter().map(entry).map(Ok).collect::<Vec<_>>()))
    }

    #[tokio::test]
    async fn pages_are_sorted_and_without_gaps() {
        let names = ["d", "a", "e", "c", "b"];
        let mut seen = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = page(entries(&names), after.as_deref(), 2).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.name.clone());
            seen.extend(page.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()));
        }
        assert_eq!(seen, ["a", "b", "c", "d", "e"]);
    }
}
