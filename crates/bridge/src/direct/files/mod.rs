//! File operations through shell scripts, for sandboxes in which the guest cannot be installed.
//!
//! Below a root, a script resolves the path name by name and checks where each step leads. It refuses links that lead outside, and files
//! that were opened outside. A process in the sandbox that swaps in a link during a removal or a write can still mislead the script. That
//! process runs as the same user and could do the same damage itself.

mod place;
mod receive;
mod send;

use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::{StreamExt as _, stream};
use uuid::Uuid;

use super::{
    ANSWER_LIMIT, DirectBridge, SAID_LIMIT, SCRIPT_LIMIT, in_time, limited,
    records::{Malformed, Record, Records, refusal},
    script,
};
use crate::{FileChanges, FileEntries, FileError, FileReader, FileSource, REMOVE_LIMIT, SandboxFiles};
use errand_runtime::{Chunk, Exec, RuntimeError};
use errand_task::{FileEntry, FilePath, FileRefusal, TreeOptions, TreeWritten, WriteOptions};
use place::{place, word};
use receive::{Content, Expected, Listing, complain, listen};
use send::{Unsent, send};

const FILES: &str = include_str!("../scripts/files.sh");
const STAT: &str = include_str!("../scripts/stat_file.sh");
const LIST: &str = include_str!("../scripts/list_directory.sh");
const READ: &str = include_str!("../scripts/read_file.sh");
const WRITE: &str = include_str!("../scripts/write_file.sh");
const REMOVE: &str = include_str!("../scripts/remove_file.sh");
const MAKE: &str = include_str!("../scripts/make_directory.sh");
const RENAME: &str = include_str!("../scripts/rename_file.sh");

/// The largest offset that every shell can compute with.
const OFFSET_LIMIT: u64 = 1 << 62;
/// How long a file may take to be moved into place after its last byte was sent: that byte may still be in transit.
const FINISH_LIMIT: Duration = Duration::from_secs(120);

impl DirectBridge {
    async fn run_on_files(&self, path: &FilePath, script: &str, more: &[&str]) -> Result<Exec, FileError> {
        Ok(self.runtime.exec(&self.id, &file_script(path, script, more)?).await?)
    }

    /// Like `run_on_files`, for a script that is killed in the sandbox after `limit`.
    async fn run_on_files_within(
        &self,
        limit: Duration,
        path: &FilePath,
        script: &str,
        more: &[&str],
    ) -> Result<Exec, FileError> {
        Ok(self.runtime.exec(&self.id, &limited(limit, file_script(path, script, more)?)).await?)
    }
}

/// Why a script did not answer: the problem that it reported, or its message.
fn failed(path: &FilePath, stderr: &[u8]) -> FileError {
    let message = String::from_utf8_lossy(stderr);
    if let Some((problem, detail)) = refusal(&message) {
        return FileRefusal { path: path.path.clone(), problem, detail }.into();
    }
    let message = message.trim();
    let detail = if message.is_empty() { "the sandbox broke off".to_owned() } else { message.to_owned() };
    RuntimeError::Unavailable { detail }.into()
}

/// What a shell cannot do well is refused, and not done badly.
fn needs_the_guest(what: &str) -> FileError {
    RuntimeError::Refused { detail: format!("{what} needs Errand's program in the sandbox, which cannot run there") }
        .into()
}

/// The entry in a script's answer.
fn entry_of(path: &FilePath, stdout: &[u8], stderr: &[u8]) -> Result<FileEntry, FileError> {
    let mut records = Records::default();
    records.push(stdout);
    match records.next() {
        Some(Ok(Record::Entry(entry))) => Ok(FileEntry { name: path.name().as_bytes().to_vec(), ..entry }),
        Some(Ok(Record::Line(_)) | Err(Malformed)) | None => Err(failed(path, stderr)),
    }
}

/// The arguments that run a script on a file.
fn file_script(path: &FilePath, name: &str, more: &[&str]) -> Result<Vec<String>, FileError> {
    let more = more.iter().map(|argument| (*argument).to_owned());
    Ok(script(&[FILES, name], place(path)?.into_iter().chain(more)))
}

#[async_trait]
impl SandboxFiles for DirectBridge {
    async fn stat_file(&self, path: &FilePath, follow: bool) -> Result<FileEntry, FileError> {
        let follow = word(follow || path.path.ends_with('/'), "follow");
        let said = in_time(async {
            let exec = self.run_on_files_within(SCRIPT_LIMIT, path, STAT, &[follow]).await?;
            Ok::<_, FileError>(exec.collect(SAID_LIMIT).await?)
        })
        .await?;
        entry_of(path, &said.stdout, &said.stderr)
    }

    async fn list_directory(&self, path: &FilePath) -> Result<FileEntries, FileError> {
        let mut listing = in_time(async {
            let exec = self.run_on_files(path, LIST, &[]).await?;
            Ok::<_, FileError>(Listing { exec, records: Records::default(), complaints: BytesMut::new(), said: false })
        })
        .await?;
        // The first record tells whether the directory exists.
        match in_time(listing.next()).await {
            Ok(first) => {
                let rest = stream::unfold(Some(listing), |listing| async move {
                    let mut listing = listing?;
                    match listing.next().await {
                        Ok(Some(entry)) => Some((Ok(entry), Some(listing))),
                        Ok(None) => None,
                        Err(error) => Some((Err(error), None)),
                    }
                });
                let first = first.map(Ok);
                Ok(match first {
                    Some(first) => Box::pin(stream::iter([first]).chain(rest)),
                    None => Box::pin(stream::empty()),
                })
            }
            Err(FileError::Runtime(RuntimeError::Unavailable { .. })) if !listing.said => {
                Err(failed(path, &listing.complaints))
            }
            Err(error) => Err(error),
        }
    }

    async fn read_file(&self, path: &FilePath, offset: u64, limit: Option<u64>) -> Result<FileReader, FileError> {
        let offset = offset.min(OFFSET_LIMIT);
        let limit = limit.map(|limit| limit.min(OFFSET_LIMIT));
        let arguments = [offset.to_string(), limit.map(|limit| limit.to_string()).unwrap_or_default()];
        in_time(async {
            let mut exec = self.run_on_files(path, READ, &[&arguments[0], &arguments[1]]).await?;
            let (mut records, mut complaints) = (Records::default(), BytesMut::new());
            while let Some(chunk) = exec.next().await {
                match chunk? {
                    Chunk::Stderr(bytes) => complain(&mut complaints, &bytes),
                    Chunk::Stdout(bytes) => {
                        records.push(&bytes);
                        match records.next() {
                            // Everything after the entry is content, whatever it looks like.
                            Some(Ok(Record::Entry(entry))) => {
                                let entry = FileEntry { name: path.name().as_bytes().to_vec(), ..entry };
                                let limit = limit.unwrap_or(u64::MAX);
                                let expected = Expected { offset, limit, size: entry.size };
                                let first = Some(records.rest());
                                let content = Content { exec, first, complaints, read: 0, expected };
                                return Ok(FileReader { entry, content: Box::pin(content.stream()) });
                            }
                            Some(Ok(Record::Line(line))) => complain(&mut complaints, format!("{line}\n").as_bytes()),
                            Some(Err(Malformed)) | None => {}
                        }
                    }
                }
            }
            Err(failed(path, &complaints))
        })
        .await
    }

    async fn write_file(
        &self,
        path: &FilePath,
        options: WriteOptions,
        content: FileSource,
    ) -> Result<FileEntry, FileError> {
        let mode = options.mode.map(|mode| format!("{:o}", mode & 0o7777)).unwrap_or_default();
        let new = word(options.must_not_exist, "new");
        let arguments = [mode.as_str(), word(options.make_parents, "make"), new, &Uuid::new_v4().simple().to_string()];
        let exec = in_time(self.run_on_files(path, WRITE, &arguments)).await?;
        let (output, mut input) = exec.split();
        let mut saying = Box::pin(listen(output));
        let (stdout, stderr) = tokio::select! {
            // The script ended before everything was sent: it reports a problem.
            said = &mut saying => said?,
            sent = send(&mut input, content) => {
                match sent {
                    Ok(()) => {}
                    Err(Unsent::Abandoned) => return Err(FileError::Abandoned),
                    Err(Unsent::NotTaken) => {
                        let detail = format!("the sandbox took nothing of the file for {ANSWER_LIMIT:?}");
                        return Err(RuntimeError::Unavailable { detail }.into());
                    }
                    Err(Unsent::Broken(error)) => tracing::debug!(%error, "a file's content was not taken"),
                }
                let late = RuntimeError::Unavailable { detail: "the sandbox did not say that it wrote".to_owned() };
                tokio::time::timeout(FINISH_LIMIT, saying).await.map_err(|_| late)??
            }
        };
        entry_of(path, &stdout, &stderr)
    }

    async fn remove_file(&self, path: &FilePath, recursive: bool) -> Result<(), FileError> {
        let removing = async {
            let recursive = word(recursive, "recursive");
            let exec = self.run_on_files_within(REMOVE_LIMIT, path, REMOVE, &[recursive]).await?;
            Ok::<_, FileError>(listen(exec.split().0).await?)
        };
        let late = || RuntimeError::Unavailable { detail: format!("the removal took longer than {REMOVE_LIMIT:?}") };
        let (stdout, stderr) = tokio::time::timeout(REMOVE_LIMIT, removing).await.map_err(|_| late())??;
        if &stdout[..] == b"removed\n" { Ok(()) } else { Err(failed(path, &stderr)) }
    }

    async fn make_directory(&self, path: &FilePath, mode: Option<u32>, parents: bool) -> Result<FileEntry, FileError> {
        let mode = mode.map(|mode| format!("{:o}", mode & 0o7777)).unwrap_or_default();
        let said = in_time(async {
            let exec = self.run_on_files_within(SCRIPT_LIMIT, path, MAKE, &[&mode, word(parents, "make")]).await?;
            Ok::<_, FileError>(exec.collect(SAID_LIMIT).await?)
        })
        .await?;
        entry_of(path, &said.stdout, &said.stderr)
    }

    async fn rename_file(&self, path: &FilePath, to: &str, must_not_exist: bool) -> Result<FileEntry, FileError> {
        let new = FilePath { path: to.to_owned(), root: path.root.clone() };
        let [_, to, directory] = <[String; 3]>::try_from(place(&new)?).unwrap_or_default();
        let more = [to.as_str(), &directory, word(must_not_exist, "new")];
        let said = in_time(async {
            let exec = self.run_on_files_within(SCRIPT_LIMIT, path, RENAME, &more).await?;
            Ok::<_, FileError>(exec.collect(SAID_LIMIT).await?)
        })
        .await?;
        entry_of(&new, &said.stdout, &said.stderr)
    }

    async fn read_tree(&self, _path: &FilePath) -> Result<FileReader, FileError> {
        Err(needs_the_guest("copying a directory"))
    }

    async fn write_tree(
        &self,
        _path: &FilePath,
        _options: TreeOptions,
        _archive: FileSource,
    ) -> Result<TreeWritten, FileError> {
        Err(needs_the_guest("copying a directory"))
    }

    async fn watch_files(&self, _path: &FilePath, _recursive: bool) -> Result<FileChanges, FileError> {
        Err(needs_the_guest("watching files"))
    }
}
