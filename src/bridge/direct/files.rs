//! Files by shell scripts, for sandboxes in which nothing can be installed.
//!
//! Below a root a shell resolves name by name and looks where it came out: links that lead out are refused, and so is a file that was
//! opened elsewhere. A process in the sandbox that swaps a link in at the very moment of a removal or a write can still mislead it. It runs
//! as the same user and could do the same itself.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use uuid::Uuid;

use super::{
    DirectBridge, SAID_LIMIT, in_time,
    records::{Malformed, Record, Records, refusal},
};
use crate::{
    bridge::{Abandoned, FileEntries, FileError, FileReader, FileSource, SandboxFiles},
    runtime::{Chunk, Exec, ExecOutput, RuntimeError},
    task::{FileEntry, FilePath, FileProblem, FileRefusal, WriteOptions},
};

const FILES: &str = include_str!("scripts/files.sh");
const STAT: &str = include_str!("scripts/stat_file.sh");
const LIST: &str = include_str!("scripts/list_directory.sh");
const READ: &str = include_str!("scripts/read_file.sh");
const WRITE: &str = include_str!("scripts/write_file.sh");
const REMOVE: &str = include_str!("scripts/remove_file.sh");

/// How much of a file is handed over at a time. Each piece costs a process in the sandbox; the tool that takes it holds it whole.
const FRAME: usize = 1024 * 1024;
/// How much of what a script says on standard error is kept.
const COMPLAINT_LIMIT: usize = 16 * 1024;
/// The most bytes of a path that a kernel takes.
const PATH_LIMIT: usize = 4095;
/// The largest offset that every shell can count with.
const OFFSET_LIMIT: u64 = 1 << 62;
/// How long a file may take into its place after its last byte was sent: that byte may still be on its way.
const FINISH_LIMIT: Duration = Duration::from_secs(120);

/// The arguments that every script begins with: root, path without needless names, and `directory` where only one can be meant.
fn place(path: &FilePath) -> Result<Vec<String>, FileRefusal> {
    let invalid = |detail: &str| FileRefusal {
        path: path.path.clone(),
        problem: FileProblem::InvalidPath,
        detail: detail.to_owned(),
    };
    let root = path.root.as_deref().unwrap_or_default();
    if path.path.contains('\0') || root.contains('\0') {
        return Err(invalid("the path holds NUL"));
    }
    if path.path.len() > PATH_LIMIT || root.len() > PATH_LIMIT {
        return Err(invalid("the path is too long"));
    }
    match (&path.root, path.path.as_bytes().first()) {
        (_, None) => return Err(invalid("the path is empty")),
        (None, Some(first)) if *first != b'/' => return Err(invalid("without a root, the path must be absolute")),
        (Some(_), Some(b'/')) => return Err(invalid("with a root, the path must be relative to it")),
        (Some(root), _) if !root.starts_with('/') => return Err(invalid("the root must be absolute")),
        (None | Some(_), Some(_)) => {}
    }
    let names: Vec<&str> = path.path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    let directory =
        path.path.ends_with('/') || path.path.ends_with("/.") || names.last().is_none_or(|name| *name == "..");
    Ok([root, &names.join("/"), word(directory, "directory")].map(str::to_owned).to_vec())
}

/// An argument that is there or empty.
fn word(given: bool, word: &'static str) -> &'static str {
    if given { word } else { "" }
}

impl DirectBridge {
    async fn run_on_files(
        &self,
        sandbox: &str,
        path: &FilePath,
        script: &str,
        more: &[&str],
    ) -> Result<Exec, FileError> {
        let mut argv = vec!["sh".to_owned(), "-c".to_owned(), [FILES, script].join("\n"), "errand".to_owned()];
        argv.extend(place(path)?);
        argv.extend(more.iter().map(|argument| (*argument).to_owned()));
        Ok(self.runtime.exec(sandbox, &argv).await?)
    }

    /// Why a script did not answer: what it said is in the way, or the engine's words, or nothing that can be understood.
    fn failed(&self, path: &FilePath, stdout: &[u8], stderr: &[u8]) -> FileError {
        let said = String::from_utf8_lossy(stderr);
        if let Some((problem, detail)) = refusal(&said) {
            return FileRefusal { path: path.path.clone(), problem, detail }.into();
        }
        // The engine's own words come on standard output, from which lines that are no records have been put aside.
        let explained = self.runtime.explain(&String::from_utf8_lossy(stdout)).or_else(|| self.runtime.explain(&said));
        let detail = if said.trim().is_empty() { "the sandbox broke off".to_owned() } else { said.trim().to_owned() };
        explained.unwrap_or(RuntimeError::Unavailable { detail }).into()
    }

    /// The entry that a script says.
    fn entry_of(&self, path: &FilePath, stdout: &[u8], stderr: &[u8]) -> Result<FileEntry, FileError> {
        let mut records = Records::default();
        records.push(stdout);
        match records.next() {
            Some(Ok(Record::Entry(entry))) => Ok(FileEntry { name: path.name().as_bytes().to_vec(), ..entry }),
            Some(Ok(Record::Line(_)) | Err(Malformed)) | None => Err(self.failed(path, stdout, stderr)),
        }
    }
}

#[async_trait]
impl SandboxFiles for DirectBridge {
    async fn stat_file(&self, sandbox: &str, path: &FilePath, follow: bool) -> Result<FileEntry, FileError> {
        let follow = word(follow || path.path.ends_with('/'), "follow");
        let said = in_time(async {
            let exec = self.run_on_files(sandbox, path, STAT, &[follow]).await?;
            Ok::<_, FileError>(exec.collect(SAID_LIMIT).await?)
        })
        .await?;
        self.entry_of(path, &said.stdout, &said.stderr)
    }

    async fn list_directory(&self, sandbox: &str, path: &FilePath) -> Result<FileEntries, FileError> {
        let mut listing = in_time(async {
            let exec = self.run_on_files(sandbox, path, LIST, &[]).await?;
            Ok::<_, FileError>(Listing { exec, records: Records::default(), complaints: BytesMut::new(), said: false })
        })
        .await?;
        // The first record tells whether there is a directory at all.
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
                let Listing { records, complaints, .. } = listing;
                Err(self.failed(path, &records.rest(), &complaints))
            }
            Err(error) => Err(error),
        }
    }

    async fn read_file(
        &self,
        sandbox: &str,
        path: &FilePath,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<FileReader, FileError> {
        let offset = offset.min(OFFSET_LIMIT);
        let limit = limit.map(|limit| limit.min(OFFSET_LIMIT));
        let arguments = [offset.to_string(), limit.map(|limit| limit.to_string()).unwrap_or_default()];
        in_time(async {
            let mut exec = self.run_on_files(sandbox, path, READ, &[&arguments[0], &arguments[1]]).await?;
            let (mut records, mut complaints) = (Records::default(), BytesMut::new());
            while let Some(chunk) = exec.next().await {
                match chunk? {
                    Chunk::Stderr(bytes) => complain(&mut complaints, &bytes),
                    Chunk::Stdout(bytes) => {
                        records.push(&bytes);
                        match records.next() {
                            // What comes behind the entry is content, whatever it looks like.
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
            Err(self.failed(path, &records.rest(), &complaints))
        })
        .await
    }

    async fn write_file(
        &self,
        sandbox: &str,
        path: &FilePath,
        options: WriteOptions,
        content: FileSource,
    ) -> Result<FileEntry, FileError> {
        let mode = options.mode.map(|mode| format!("{:o}", mode & 0o7777)).unwrap_or_default();
        let new = word(options.must_not_exist, "new");
        let arguments = [mode.as_str(), word(options.make_parents, "make"), new, &Uuid::new_v4().simple().to_string()];
        let exec = in_time(self.run_on_files(sandbox, path, WRITE, &arguments)).await?;
        let (output, mut input) = exec.split();
        let mut saying = Box::pin(listen(output));
        let (stdout, stderr) = tokio::select! {
            // Before all was sent: something is in the way.
            said = &mut saying => said?,
            sent = send(&mut input, content) => {
                match sent {
                    Ok(()) => {}
                    Err(Unsent::Abandoned) => return Err(FileError::Abandoned),
                    Err(Unsent::Broken(error)) => tracing::debug!(%error, "a file's content was not taken"),
                }
                let late = RuntimeError::Unavailable { detail: "the sandbox did not say that it wrote".to_owned() };
                tokio::time::timeout(FINISH_LIMIT, saying).await.map_err(|_| late)??
            }
        };
        self.entry_of(path, &stdout, &stderr)
    }

    async fn remove_file(&self, sandbox: &str, path: &FilePath, recursive: bool) -> Result<(), FileError> {
        // As long as it takes: a tree can be large.
        let exec = self.run_on_files(sandbox, path, REMOVE, &[word(recursive, "recursive")]).await?;
        let (stdout, stderr) = listen(exec.split().0).await?;
        if &stdout[..] == b"removed\n" { Ok(()) } else { Err(self.failed(path, &stdout, &stderr)) }
    }
}

/// Keeps a bounded part of what a script complains about. The beginning: there it says what is in the way, and `end` comes alone.
fn complain(complaints: &mut BytesMut, bytes: &[u8]) {
    let room = COMPLAINT_LIMIT.saturating_sub(complaints.len());
    complaints.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// All that a script says, to its end.
async fn listen(mut output: ExecOutput) -> Result<(BytesMut, BytesMut), RuntimeError> {
    let (mut stdout, mut stderr) = (BytesMut::new(), BytesMut::new());
    while let Some(chunk) = output.next().await {
        match chunk? {
            Chunk::Stdout(bytes) => complain(&mut stdout, &bytes),
            Chunk::Stderr(bytes) => complain(&mut stderr, &bytes),
        }
    }
    Ok((stdout, stderr))
}

/// Why not all of a file was sent.
enum Unsent {
    Abandoned,
    Broken(std::io::Error),
}

/// Sends a file's content in frames: without `end` behind them, the file never comes into being.
async fn send(input: &mut (impl AsyncWrite + Unpin), mut content: FileSource) -> Result<(), Unsent> {
    let mut frame = BytesMut::new();
    loop {
        let piece = content.next().await.transpose().map_err(|Abandoned| Unsent::Abandoned)?;
        if let Some(piece) = &piece {
            frame.extend_from_slice(piece);
        }
        while frame.len() >= FRAME || (piece.is_none() && !frame.is_empty()) {
            let bytes = frame.split_to(frame.len().min(FRAME));
            let head = format!("{}\n", bytes.len());
            input.write_all(head.as_bytes()).await.map_err(Unsent::Broken)?;
            input.write_all(&bytes).await.map_err(Unsent::Broken)?;
        }
        if piece.is_none() {
            input.write_all(b"end\n").await.map_err(Unsent::Broken)?;
            return input.flush().await.map_err(Unsent::Broken);
        }
    }
}

/// A directory that is being listed.
struct Listing {
    exec: Exec,
    records: Records,
    complaints: BytesMut,
    /// Whether a record came.
    said: bool,
}

impl Listing {
    /// The next entry; none after the last.
    async fn next(&mut self) -> Result<Option<FileEntry>, FileError> {
        loop {
            match self.records.next() {
                Some(Ok(Record::Entry(entry))) => {
                    self.said = true;
                    return Ok(Some(entry));
                }
                Some(Ok(Record::Line(line))) if line == "end" => return Ok(None),
                Some(Ok(Record::Line(line))) => complain(&mut self.complaints, format!("{line}\n").as_bytes()),
                Some(Err(Malformed)) => {
                    let detail = "the sandbox's list of files cannot be understood".to_owned();
                    return Err(RuntimeError::Refused { detail }.into());
                }
                None => match self.exec.next().await.transpose()? {
                    Some(Chunk::Stdout(bytes)) => self.records.push(&bytes),
                    Some(Chunk::Stderr(bytes)) => complain(&mut self.complaints, &bytes),
                    None => return Err(broke_off()),
                },
            }
        }
    }
}

fn broke_off() -> FileError {
    RuntimeError::Unavailable { detail: "the sandbox broke off in the middle of its answer".to_owned() }.into()
}

/// How much of a file there should be.
#[derive(Debug, Clone, Copy)]
struct Expected {
    offset: u64,
    limit: u64,
    /// Its size when it was opened.
    size: u64,
}

impl Expected {
    /// Whether so many bytes are all of it, `size` being its size at the end. A file may grow or shrink while it is read, and one of the
    /// kernel's has no size at all.
    fn is_met_by(self, read: u64, size: u64) -> bool {
        read >= self.limit || read >= size.min(self.size).saturating_sub(self.offset)
    }
}

/// A file that is being read.
struct Content {
    exec: Exec,
    /// What came together with the entry.
    first: Option<BytesMut>,
    complaints: BytesMut,
    read: u64,
    expected: Expected,
}

impl Content {
    fn stream(self) -> impl futures_util::Stream<Item = Result<Bytes, FileError>> + Send {
        stream::unfold(Some(self), |content| async move {
            let mut content = content?;
            match content.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(content))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, FileError> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            self.read += first.len() as u64;
            return Ok(Some(first.freeze()));
        }
        loop {
            match self.exec.next().await.transpose()? {
                Some(Chunk::Stdout(bytes)) if bytes.is_empty() => {}
                Some(Chunk::Stdout(bytes)) => {
                    self.read += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Some(Chunk::Stderr(bytes)) => complain(&mut self.complaints, &bytes),
                None => return self.end(),
            }
        }
    }

    /// The stream's end is the file's end only if the script says so, and if nothing was lost on the way.
    fn end(&self) -> Result<Option<Bytes>, FileError> {
        let said = String::from_utf8_lossy(&self.complaints);
        let size = said.lines().find_map(|line| line.strip_prefix("end ")?.trim().parse().ok());
        match size {
            Some(size) if self.expected.is_met_by(self.read, size) => Ok(None),
            Some(_) | None => Err(broke_off()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn arguments(path: &str, root: Option<&str>) -> Result<Vec<String>, FileProblem> {
        place(&FilePath { path: path.to_owned(), root: root.map(str::to_owned) }).map_err(|refusal| refusal.problem)
    }

    #[test]
    fn a_path_reaches_the_shell_without_needless_names() {
        assert_eq!(arguments("/a//./b", None).unwrap(), ["", "a/b", ""]);
        assert_eq!(arguments("a/", Some("/r")).unwrap(), ["/r", "a", "directory"]);
        assert_eq!(arguments(".", Some("/r")).unwrap(), ["/r", "", "directory"]);
        assert_eq!(arguments("a/..", Some("/r")).unwrap(), ["/r", "a/..", "directory"]);
        for (path, root) in [("a", None), ("/a", Some("/r")), ("a", Some("r")), ("", Some("/r")), ("a\0", Some("/r"))] {
            assert_eq!(arguments(path, root), Err(FileProblem::InvalidPath), "{path:?} {root:?}");
        }
    }

    #[test]
    fn a_short_read_is_complete_only_where_the_file_is() {
        let expected = Expected { offset: 10, limit: 50, size: 100 };
        assert!(expected.is_met_by(50, 100));
        assert!(!expected.is_met_by(49, 100));
        assert!(expected.is_met_by(20, 30), "it has shrunk");
        assert!(Expected { offset: 200, ..expected }.is_met_by(0, 100));
        assert!(Expected { offset: 0, limit: u64::MAX, size: 0 }.is_met_by(7, 0), "one of the kernel's");
    }

    #[tokio::test]
    async fn content_goes_in_frames_and_an_abandoned_one_has_no_end() {
        let pieces = || vec![Bytes::from(vec![b'x'; FRAME - 1]), Bytes::from_static(b"yz")];
        let mut whole = Vec::new();
        let source = stream::iter(pieces().into_iter().map(Ok));
        assert!(send(&mut whole, Box::pin(source)).await.is_ok());
        assert!(whole.starts_with(format!("{FRAME}\nxxx").as_bytes()) && whole.ends_with(b"y1\nzend\n"));
        let mut cut = Vec::new();
        let source = stream::iter(pieces().into_iter().map(Ok).chain([Err(Abandoned)]));
        assert!(matches!(send(&mut cut, Box::pin(source)).await, Err(Unsent::Abandoned)));
        assert!(!cut.ends_with(b"end\n"));
    }
}
