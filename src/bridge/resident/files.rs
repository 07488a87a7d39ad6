//! Files through the bridge that is in the sandbox.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future, stream};
use prost::Message as _;
use tonic::{Code, Status};

use super::{
    connections::origin,
    proto::{self, file_service_client::FileServiceClient, read_file_response, write_file_request},
    wire::Wire,
};
use crate::{
    bridge::{Abandoned, FileEntries, FileError, FileReader, FileSource},
    runtime::RuntimeError,
    task::{FileEntry, FileKind, FilePath, FileProblem, FileRefusal, WriteOptions},
};

/// The most bytes of a file in one message.
const PIECE: usize = 256 * 1024;

/// The files of one sandbox. The methods are those of [`SandboxFiles`](crate::bridge::SandboxFiles), which name the sandbox besides.
pub(in crate::bridge) struct ResidentFiles {
    client: FileServiceClient<Wire>,
}

impl ResidentFiles {
    /// The files behind this connection to the sandbox's bridge.
    pub(super) fn new(wire: &Wire) -> Self {
        Self { client: FileServiceClient::with_origin(wire.clone(), origin()) }
    }

    pub(in crate::bridge) async fn stat_file(&self, path: &FilePath, follow: bool) -> Result<FileEntry, FileError> {
        let request = proto::StatFileRequest { path: Some(wire_path(path)), follow };
        let answer = self.client.clone().stat_file(request).await.map_err(|status| failed(&path.path, &status))?;
        entry(answer.into_inner().entry)
    }

    pub(in crate::bridge) async fn list_directory(&self, path: &FilePath) -> Result<FileEntries, FileError> {
        let request = proto::ListDirectoryRequest { path: Some(wire_path(path)) };
        let answer = self.client.clone().list_directory(request).await.map_err(|status| failed(&path.path, &status))?;
        let path = path.path.clone();
        let batches = ending(answer.into_inner());
        Ok(Box::pin(batches.flat_map(move |batch| {
            stream::iter(match batch {
                Ok(batch) => batch.entries.into_iter().map(|found| entry(Some(found))).collect(),
                Err(status) => vec![Err(failed(&path, &status))],
            })
        })))
    }

    pub(in crate::bridge) async fn read_file(
        &self,
        path: &FilePath,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<FileReader, FileError> {
        // To the bridge, no bytes are all of them.
        if limit == Some(0) {
            let reader = Box::pin(self.read_file(path, offset, Some(1))).await?;
            return Ok(FileReader { content: Box::pin(stream::empty()), ..reader });
        }
        let request = proto::ReadFileRequest { path: Some(wire_path(path)), offset, limit: limit.unwrap_or_default() };
        let answer = self.client.clone().read_file(request).await.map_err(|status| failed(&path.path, &status))?;
        let mut parts = answer.into_inner();
        let first = parts.message().await.map_err(|status| failed(&path.path, &status))?;
        let Some(read_file_response::Part::Entry(found)) = first.and_then(|first| first.part) else {
            return Err(not_understood());
        };
        let path = path.path.clone();
        let content = ending(parts).map(move |part| match part {
            Ok(proto::ReadFileResponse { part: Some(read_file_response::Part::Data(data)) }) => Ok(data),
            Ok(_) => Err(not_understood()),
            Err(status) => Err(failed(&path, &status)),
        });
        Ok(FileReader { entry: entry(Some(found))?, content: Box::pin(content) })
    }

    pub(in crate::bridge) async fn write_file(
        &self,
        path: &FilePath,
        options: WriteOptions,
        content: FileSource,
    ) -> Result<FileEntry, FileError> {
        let abandoned = Arc::new(AtomicBool::new(false));
        let head = proto::WriteFileHead {
            path: Some(wire_path(path)),
            mode: options.mode.unwrap_or_default(),
            make_parents: options.make_parents,
            must_not_exist: options.must_not_exist,
        };
        let parts = parts(head, content, Arc::clone(&abandoned));
        let answer = self.client.clone().write_file(parts).await;
        if abandoned.load(Ordering::Relaxed) {
            return Err(FileError::Abandoned);
        }
        entry(answer.map_err(|status| failed(&path.path, &status))?.into_inner().entry)
    }

    pub(in crate::bridge) async fn remove_file(&self, path: &FilePath, recursive: bool) -> Result<(), FileError> {
        let request = proto::RemoveFileRequest { path: Some(wire_path(path)), recursive };
        let answer = self.client.clone().remove_file(request).await;
        answer.map(drop).map_err(|status| failed(&path.path, &status))
    }
}

fn wire_path(path: &FilePath) -> proto::Path {
    proto::Path { path: path.path.clone(), root: path.root.clone().unwrap_or_default() }
}

/// A stream that ends with its first error.
fn ending<T>(messages: tonic::Streaming<T>) -> impl Stream<Item = Result<T, Status>> + Send
where
    T: Send + 'static,
{
    stream::unfold(Some(messages), |messages| async move {
        let mut messages = messages?;
        match messages.message().await {
            Ok(Some(message)) => Some((Ok(message), Some(messages))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    })
}

/// The messages of a write. An abandoned content has no end, by which the bridge knows it.
fn parts(
    head: proto::WriteFileHead,
    content: FileSource,
    abandoned: Arc<AtomicBool>,
) -> impl Stream<Item = proto::WriteFileRequest> + Send + 'static {
    use write_file_request::Part;
    let pieces = content
        .map(Some)
        .chain(stream::iter([None]))
        .flat_map(|piece| {
            stream::iter(match piece {
                Some(Ok(bytes)) => cut(bytes).into_iter().map(|piece| Ok(Part::Data(piece))).collect(),
                Some(Err(Abandoned)) => vec![Err(Abandoned)],
                None => vec![Ok(Part::End(proto::WriteFileEnd {}))],
            })
        })
        .scan(abandoned, |abandoned, part| {
            if part.is_err() {
                abandoned.store(true, Ordering::Relaxed);
            }
            future::ready(part.ok())
        });
    stream::iter([Part::Head(head)]).chain(pieces).map(|part| proto::WriteFileRequest { part: Some(part) })
}

fn cut(mut bytes: Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    while bytes.len() > PIECE {
        pieces.push(bytes.split_to(PIECE));
    }
    if !bytes.is_empty() {
        pieces.push(bytes);
    }
    pieces
}

fn entry(found: Option<proto::FileEntry>) -> Result<FileEntry, FileError> {
    let found = found.ok_or_else(not_understood)?;
    let kind = match found.kind() {
        proto::FileKind::File => FileKind::File,
        proto::FileKind::Directory => FileKind::Directory,
        proto::FileKind::Symlink => FileKind::Symlink,
        proto::FileKind::Other | proto::FileKind::Unspecified => FileKind::Other,
    };
    let span = Duration::from_micros(found.modified_us.unsigned_abs());
    let modified = if found.modified_us < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(span)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(span)
    };
    Ok(FileEntry {
        name: found.name.to_vec(),
        kind,
        size: found.size,
        mode: found.mode,
        uid: found.uid,
        gid: found.gid,
        modified: modified.ok_or_else(not_understood)?,
        link_target: found.link_target.to_vec(),
    })
}

fn not_understood() -> FileError {
    RuntimeError::Refused { detail: "the bridge's answer cannot be understood".to_owned() }.into()
}

/// What a status means. Only a refusal says what is in the way of a file; everything else is about the bridge itself.
fn failed(path: &str, status: &Status) -> FileError {
    let refusal = proto::FileRefusal::decode(status.details()).ok().filter(|_| !status.details().is_empty());
    if let Some(refusal) = refusal
        && let Some(problem) = problem(refusal.problem())
    {
        return FileRefusal { path: path.to_owned(), problem, detail: refusal.detail }.into();
    }
    let detail = format!("the bridge: {}", status.message());
    match status.code() {
        Code::Unimplemented | Code::InvalidArgument => RuntimeError::Refused { detail }.into(),
        _ => RuntimeError::Unavailable { detail }.into(),
    }
}

fn problem(problem: proto::FileProblem) -> Option<FileProblem> {
    Some(match problem {
        proto::FileProblem::Unspecified => return None,
        proto::FileProblem::NotFound => FileProblem::NotFound,
        proto::FileProblem::NotPermitted => FileProblem::NotPermitted,
        proto::FileProblem::IsADirectory => FileProblem::IsADirectory,
        proto::FileProblem::NotADirectory => FileProblem::NotADirectory,
        proto::FileProblem::NotAFile => FileProblem::NotAFile,
        proto::FileProblem::NotEmpty => FileProblem::NotEmpty,
        proto::FileProblem::OutsideRoot => FileProblem::OutsideRoot,
        proto::FileProblem::TooManyLinks => FileProblem::TooManyLinks,
        proto::FileProblem::AlreadyExists => FileProblem::AlreadyExists,
        proto::FileProblem::NoSpace => FileProblem::NoSpace,
        proto::FileProblem::Busy => FileProblem::Busy,
        proto::FileProblem::InvalidPath => FileProblem::InvalidPath,
        proto::FileProblem::Failed => FileProblem::Failed,
    })
}
