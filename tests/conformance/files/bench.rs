//! A sandbox with files in it, and the operations that the tests need.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use errand_bridge::{FileError, SandboxFiles};
use errand_task::{FileEntry, FilePath, FileProblem, WriteOptions};
use futures_util::{StreamExt as _, stream};

use crate::support::wait::soon;

/// A shell in the sandbox that bypasses the implementation under test.
#[async_trait]
pub trait Shell: Send + Sync {
    /// Returns what a script prints. The script must print nothing on standard error.
    async fn run(&self, script: &str) -> String;
}

/// A sandbox, and a directory in it that belongs to one test.
pub struct Bench {
    pub files: Arc<dyn SandboxFiles>,
    pub shell: Arc<dyn Shell>,
    pub directory: String,
    /// A file system of 1 MiB, if the sandbox has one.
    pub small: Option<&'static str>,
    _keep: Box<dyn Any + Send>,
}

pub type Result<T> = std::result::Result<T, FileError>;

impl Bench {
    pub async fn new(
        files: Arc<dyn SandboxFiles>,
        shell: Arc<dyn Shell>,
        directory: &str,
        small: Option<&'static str>,
        keep: impl Any + Send,
    ) -> Self {
        shell.run(&format!("mkdir -p '{directory}'")).await;
        Self { files, shell, directory: directory.to_owned(), small, _keep: Box::new(keep) }
    }

    /// Runs a script in the test's directory.
    pub async fn sh(&self, script: &str) -> String {
        self.shell.run(&format!("cd '{}' || exit\n{script}", self.directory)).await
    }

    /// A path in the test's directory, without a root.
    pub fn at(&self, name: &str) -> FilePath {
        FilePath { path: format!("{}/{name}", self.directory), root: None }
    }

    /// A path below `root` in the test's directory.
    pub fn below(&self, name: &str) -> FilePath {
        FilePath { path: name.to_owned(), root: Some(format!("{}/root", self.directory)) }
    }

    pub async fn read_part(&self, path: &FilePath, offset: u64, limit: Option<u64>) -> Result<(FileEntry, Vec<u8>)> {
        let mut reader = soon("a file opens", self.files.read_file(path, offset, limit)).await?;
        let mut content = Vec::new();
        while let Some(piece) = soon("a piece comes", reader.content.next()).await {
            let piece = piece?;
            assert!(!piece.is_empty() && piece.len() <= 256 * 1024, "{} bytes at once", piece.len());
            content.extend_from_slice(&piece);
        }
        Ok((reader.entry, content))
    }

    pub async fn read(&self, path: &FilePath) -> Result<Vec<u8>> {
        Ok(self.read_part(path, 0, None).await?.1)
    }

    pub async fn write_as(&self, path: &FilePath, options: WriteOptions, content: &[u8]) -> Result<FileEntry> {
        let pieces: Vec<_> = content.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let content = Box::pin(stream::iter(pieces));
        soon("a file is written", self.files.write_file(path, options, content)).await
    }

    pub async fn write(&self, path: &FilePath, content: &[u8]) -> Result<FileEntry> {
        self.write_as(path, WriteOptions::default(), content).await
    }

    pub async fn list(&self, path: &FilePath) -> Result<Vec<FileEntry>> {
        let mut stream = soon("a list begins", self.files.list_directory(path)).await?;
        let mut entries = Vec::new();
        while let Some(entry) = soon("an entry comes", stream.next()).await {
            entries.push(entry?);
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    pub async fn names(&self, path: &FilePath) -> Vec<String> {
        let entries = self.list(path).await.unwrap();
        entries.into_iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect()
    }

    pub async fn stat(&self, path: &FilePath, follow: bool) -> Result<FileEntry> {
        soon("a file is described", self.files.stat_file(path, follow)).await
    }

    pub async fn remove(&self, path: &FilePath, recursive: bool) -> Result<()> {
        soon("a file is removed", self.files.remove_file(path, recursive)).await
    }

    pub async fn make(&self, path: &FilePath, mode: Option<u32>, parents: bool) -> Result<FileEntry> {
        soon("a directory is made", self.files.make_directory(path, mode, parents)).await
    }

    pub async fn rename(&self, path: &FilePath, to: &FilePath, must_not_exist: bool) -> Result<FileEntry> {
        assert_eq!(path.root, to.root);
        soon("a file is renamed", self.files.rename_file(path, &to.path, must_not_exist)).await
    }

    /// Creates `root`, with links of every kind in it, and `beside`, which no path may reach from `root`.
    pub async fn make_root(&self) {
        self.sh("mkdir -p root/d/e beside && cd root && printf secret >../beside/secret && printf inner >d/g &&
            ln -s ../../f d/e/back && printf file >f && ln -s d down && ln -s ../beside out && ln -s ../beside/secret out_file &&
            ln -s ../beside/new out_new && ln -s /etc/passwd absolute && ln -s loop_b loop_a && ln -s loop_a loop_b &&
            ln -s nowhere dangling && ln -s .. up && ln -s d/e/../../../beside/secret long")
            .await;
    }

    pub async fn beside(&self) -> String {
        self.sh("cd beside && ls -A && cat secret").await
    }
}

#[track_caller]
pub fn problem<T: std::fmt::Debug>(result: Result<T>) -> FileProblem {
    match result {
        Err(FileError::Refused(refusal)) => {
            assert!(refusal.to_string().contains(&format!("{:?}", refusal.path)), "{refusal}");
            refusal.problem
        }
        other => panic!("not refused: {other:?}"),
    }
}

pub fn new() -> WriteOptions {
    WriteOptions { must_not_exist: true, ..WriteOptions::default() }
}

pub fn parents() -> WriteOptions {
    WriteOptions { make_parents: true, ..WriteOptions::default() }
}

/// Bytes of every value, without a pattern that repeats within a piece.
pub fn content(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}
