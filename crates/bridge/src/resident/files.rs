//! File operations through the guest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future, stream};
use prost::Message as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::{Code, Status};

use super::{
    calls::{ANSWER_LIMIT, in_time, too_large, within},
    checked::{self, Breach, CONTENT_MESSAGE, ENTRIES_MESSAGE, SMALL_MESSAGE, words},
    connections::origin,
    proto::{self, file_service_client::FileServiceClient, read_file_response, write_file_request},
    wire::Wire,
};
use crate::{Abandoned, FileEntries, FileError, FileReader, FileSource, REMOVE_LIMIT};
use errand_runtime::RuntimeError;
use errand_task::{FileEntry, FileKind, FilePath, FileProblem, FileRefusal, WriteOptions};

/// The most bytes of a file in one message.
const PIECE: usize = 256 * 1024;
/// How long a file may take to be moved into place after its last byte was sent: that byte may still be in transit.
const FINISH_LIMIT: Duration = Duration::from_secs(120);

/// The files of one sandbox. The methods are those of [`SandboxFiles`](crate::SandboxFiles), without the argument that names the sandbox.
pub(crate) struct ResidentFiles {
    wire: Wire,
}

impl ResidentFiles {
    /// The files behind a connection to the sandbox's bridge process.
    pub(super) fn new(wire: &Wire) -> Self {
        Self { wire: wire.clone() }
    }

    /// A client whose answers come in messages of at most `largest` bytes.
    fn client(&self, largest: usize) -> FileServiceClient<Wire> {
        FileServiceClient::with_origin(self.wire.clone(), origin()).max_decoding_message_size(largest)
    }

    fn entry(&self, found: Option<proto::FileEntry>) -> Result<FileEntry, FileError> {
        if let Some(found) = &found {
            self.wire.checked(checked::file(found))?;
        }
        entry(found)
    }

    pub(crate) async fn stat_file(&self, path: &FilePath, follow: bool) -> Result<FileEntry, FileError> {
        let request = proto::StatFileRequest { path: Some(wire_path(path)), follow };
        let answer = in_time(self.client(SMALL_MESSAGE).stat_file(request)).await?;
        self.entry(answer.map_err(|status| failed(&self.wire, &path.path, &status))?.into_inner().entry)
    }

    pub(crate) async fn list_directory(&self, path: &FilePath) -> Result<FileEntries, FileError> {
        let request = proto::ListDirectoryRequest { path: Some(wire_path(path)) };
        let answer = in_time(self.client(ENTRIES_MESSAGE).list_directory(request)).await?;
        let answer = answer.map_err(|status| failed(&self.wire, &path.path, &status))?;
        let (path, wire) = (path.path.clone(), self.wire.clone());
        let batches = bounded(answer.into_inner(), wire, path, 0, |batch: &proto::ListDirectoryResponse, before| {
            checked::batch(&batch.entries, before)
        });
        Ok(Box::pin(batches.flat_map(|batch| {
            stream::iter(match batch {
                Ok(batch) => batch.entries.into_iter().map(|found| entry(Some(found))).collect(),
                Err(error) => vec![Err(error)],
            })
        })))
    }

    pub(crate) async fn read_file(
        &self,
        path: &FilePath,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<FileReader, FileError> {
        // To the guest, a limit of 0 means no limit.
        if limit == Some(0) {
            let reader = Box::pin(self.read_file(path, offset, Some(1))).await?;
            return Ok(FileReader { content: Box::pin(stream::empty()), ..reader });
        }
        let request = proto::ReadFileRequest { path: Some(wire_path(path)), offset, limit: limit.unwrap_or_default() };
        let answer = in_time(self.client(CONTENT_MESSAGE).read_file(request)).await?;
        let answer = answer.map_err(|status| failed(&self.wire, &path.path, &status))?;
        let mut parts = answer.into_inner();
        let first = in_time(parts.message()).await?.map_err(|status| failed(&self.wire, &path.path, &status))?;
        let Some(read_file_response::Part::Entry(found)) = first.and_then(|first| first.part) else {
            return Err(not_understood());
        };
        let (path, wire) = (path.path.clone(), self.wire.clone());
        let left = limit.unwrap_or(u64::MAX);
        let content = bounded(parts, wire, path, left, |part: &proto::ReadFileResponse, left| match &part.part {
            Some(read_file_response::Part::Data(data)) => checked::content(data.len(), left),
            Some(read_file_response::Part::Entry(_)) | None => {
                Err(Breach("something else than content in a file".to_owned()))
            }
        });
        let content = content.map(|part| match part?.part {
            Some(read_file_response::Part::Data(data)) => Ok(data),
            Some(read_file_response::Part::Entry(_)) | None => Err(not_understood()),
        });
        Ok(FileReader { entry: self.entry(Some(found))?, content: Box::pin(content) })
    }

    pub(crate) async fn write_file(
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
        let (deadline, reached) = watch::channel(None);
        let mut client = self.client(SMALL_MESSAGE);
        let answer = tokio::select! {
            answer = client.write_file(timed(parts, deadline)) => answer,
            late = too_late(reached) => return Err(late.into()),
        };
        if abandoned.load(Ordering::Relaxed) {
            return Err(FileError::Abandoned);
        }
        self.entry(answer.map_err(|status| failed(&self.wire, &path.path, &status))?.into_inner().entry)
    }

    pub(crate) async fn remove_file(&self, path: &FilePath, recursive: bool) -> Result<(), FileError> {
        let request = proto::RemoveFileRequest { path: Some(wire_path(path)), recursive };
        let answer = within(REMOVE_LIMIT, self.client(SMALL_MESSAGE).remove_file(request)).await?;
        answer.map(drop).map_err(|status| failed(&self.wire, &path.path, &status))
    }
}

fn wire_path(path: &FilePath) -> proto::Path {
    proto::Path { path: path.path.clone(), root: path.root.clone().unwrap_or_default() }
}

/// Reads messages, each within the time limit and checked against its bounds. The check's state passes from one message to the next. An
/// error is the last item.
fn bounded<T: Send + 'static>(
    messages: tonic::Streaming<T>,
    wire: Wire,
    path: String,
    carried: u64,
    check: impl Fn(&T, u64) -> Result<u64, Breach> + Send + Copy + 'static,
) -> impl Stream<Item = Result<T, FileError>> + Send {
    stream::unfold(Some((messages, wire, path, carried)), move |state| async move {
        let (mut messages, wire, path, carried) = state?;
        let message = match in_time(messages.message()).await {
            Ok(Ok(message)) => message?,
            Ok(Err(status)) => return Some((Err(failed(&wire, &path, &status)), None)),
            Err(late) => return Some((Err(late.into()), None)),
        };
        match wire.checked(check(&message, carried)) {
            Ok(carried) => Some((Ok(message), Some((messages, wire, path, carried)))),
            Err(error) => Some((Err(error.into()), None)),
        }
    })
}

/// The messages of a write. If the content is abandoned, the end message is missing, and the guest discards the file.
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

/// Passes parts on and publishes the deadline by which the guest must have taken the current part, or must have answered after the last
/// one. There is no deadline while the next part is awaited, because that time is the caller's.
fn timed(
    parts: impl Stream<Item = proto::WriteFileRequest> + Send + 'static,
    deadline: watch::Sender<Option<Instant>>,
) -> impl Stream<Item = proto::WriteFileRequest> + Send + 'static {
    let mut parts = Box::pin(parts);
    stream::poll_fn(move |context| {
        let part = parts.as_mut().poll_next(context);
        deadline.send_replace(match &part {
            Poll::Pending => None,
            Poll::Ready(Some(_)) => Some(Instant::now() + ANSWER_LIMIT),
            Poll::Ready(None) => Some(Instant::now() + FINISH_LIMIT),
        });
        part
    })
}

/// Waits until the deadline that [`timed`] publishes has passed. If the parts are dropped, they count as sent.
async fn too_late(mut deadline: watch::Receiver<Option<Instant>>) -> RuntimeError {
    let mut over = None;
    loop {
        let passed = match deadline.borrow_and_update().or(over) {
            Some(moment) => future::Either::Left(sleep_until(moment)),
            None => future::Either::Right(future::pending()),
        };
        tokio::select! {
            () = passed => {
                return RuntimeError::Unavailable { detail: "the bridge did not take the file in time".to_owned() };
            }
            changed = deadline.changed(), if over.is_none() => if changed.is_err() {
                over = Some(Instant::now() + FINISH_LIMIT);
            }
        }
    }
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

/// Converts a status into an error. Only a refusal is about the file; everything else is about the guest itself.
fn failed(wire: &Wire, path: &str, status: &Status) -> FileError {
    if status.code() == Code::OutOfRange {
        return wire.breach(too_large()).into();
    }
    let refusal = proto::FileRefusal::decode(status.details()).ok().filter(|_| !status.details().is_empty());
    if let Some(refusal) = refusal
        && let Some(problem) = FileProblem::named(refusal.problem().name())
    {
        return FileRefusal { path: path.to_owned(), problem, detail: words(&refusal.detail) }.into();
    }
    let detail = format!("the bridge: {}", words(status.message()));
    match status.code() {
        Code::Unimplemented | Code::InvalidArgument => RuntimeError::Refused { detail }.into(),
        _ => RuntimeError::Unavailable { detail }.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    /// How long until a write is given up whose guest takes `takes` of three parts. The caller sends the last part late.
    async fn given_up(takes: usize) -> Duration {
        const CALLER: Duration = Duration::from_secs(1000);
        let begun = Instant::now();
        let part = proto::WriteFileRequest::default;
        let slow = stream::once(async move {
            tokio::time::sleep(CALLER).await;
            part()
        });
        let (deadline, reached) = watch::channel(None);
        let mut parts = Box::pin(timed(stream::iter([part(), part()]).chain(slow), deadline));
        let taking = async {
            for _ in 0..takes {
                parts.next().await;
            }
            future::pending::<()>().await;
        };
        tokio::select! {
            () = taking => Duration::ZERO,
            _ = too_late(reached) => begun.elapsed(),
        }
    }

    #[test]
    fn every_problem_of_the_protocol_is_known() {
        let all: Vec<_> = (0..).map_while(|number| proto::FileProblem::try_from(number).ok()).collect();
        assert_eq!(all[0], proto::FileProblem::Unspecified);
        assert_eq!(FileProblem::named(all[0].name()), None);
        let known: Vec<_> = all[1..].iter().filter_map(|problem| FileProblem::named(problem.name())).collect();
        assert_eq!(known, FileProblem::ALL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bridge_has_its_time_for_each_part_and_the_caller_takes_none_of_it() {
        assert_eq!(given_up(1).await.as_secs(), ANSWER_LIMIT.as_secs());
        assert_eq!(given_up(3).await.as_secs(), 1000 + ANSWER_LIMIT.as_secs());
        assert_eq!(given_up(4).await.as_secs(), 1000 + FINISH_LIMIT.as_secs());
    }
}
