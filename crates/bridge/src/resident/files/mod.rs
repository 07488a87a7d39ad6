//! File operations through the guest.

mod trees;
mod upload;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use tokio::sync::watch;
use tonic::{Code, Status};

use super::{
    ResidentBridge,
    calls::{in_time, too_large, within},
    channel::Channel,
    checked::{self, Breach, CONTENT_MESSAGE, ENTRIES_MESSAGE, SMALL_MESSAGE, words},
    connection::origin,
    proto::{self, file_service_client::FileServiceClient, read_file_response, write_file_request},
};
use crate::{FileChanges, FileEntries, FileError, FileReader, FileSource, REMOVE_LIMIT, SandboxFiles};
use errand_runtime::RuntimeError;
use errand_task::{FileEntry, FileKind, FilePath, FileProblem, FileRefusal, TreeOptions, TreeWritten, WriteOptions};
use upload::{Part, parts, timed, too_late};

/// A client whose answers come in messages of at most `largest` bytes.
fn client(channel: &Channel, largest: usize) -> FileServiceClient<Channel> {
    FileServiceClient::with_origin(channel.clone(), origin()).max_decoding_message_size(largest)
}

fn checked_entry(channel: &Channel, found: Option<proto::FileEntry>) -> Result<FileEntry, FileError> {
    if let Some(found) = &found {
        channel.checked(checked::file(found))?;
    }
    entry(found)
}

#[async_trait]
impl SandboxFiles for ResidentBridge {
    async fn stat_file(&self, path: &FilePath, follow: bool) -> Result<FileEntry, FileError> {
        let channel = self.bridge().await?.channel;
        let request = proto::StatFileRequest { path: Some(path_message(path)), follow };
        let answer = in_time(client(&channel, SMALL_MESSAGE).stat_file(request)).await?;
        checked_entry(&channel, answer.map_err(|status| failed(&channel, &path.path, &status))?.into_inner().entry)
    }

    async fn list_directory(&self, path: &FilePath) -> Result<FileEntries, FileError> {
        let channel = self.bridge().await?.channel;
        let request = proto::ListDirectoryRequest { path: Some(path_message(path)) };
        let answer = in_time(client(&channel, ENTRIES_MESSAGE).list_directory(request)).await?;
        let answer = answer.map_err(|status| failed(&channel, &path.path, &status))?;
        let path = path.path.clone();
        let batches = bounded(answer.into_inner(), channel, path, 0, |batch: &proto::ListDirectoryResponse, before| {
            checked::batch(&batch.entries, before)
        });
        Ok(Box::pin(batches.flat_map(|batch| {
            stream::iter(match batch {
                Ok(batch) => batch.entries.into_iter().map(|found| entry(Some(found))).collect(),
                Err(error) => vec![Err(error)],
            })
        })))
    }

    async fn read_file(&self, path: &FilePath, offset: u64, limit: Option<u64>) -> Result<FileReader, FileError> {
        let channel = self.bridge().await?.channel;
        // To the guest, a limit of 0 means no limit.
        if limit == Some(0) {
            let reader = Box::pin(self.read_file(path, offset, Some(1))).await?;
            return Ok(FileReader { content: Box::pin(stream::empty()), ..reader });
        }
        let request =
            proto::ReadFileRequest { path: Some(path_message(path)), offset, limit: limit.unwrap_or_default() };
        let answer = in_time(client(&channel, CONTENT_MESSAGE).read_file(request)).await?;
        let answer = answer.map_err(|status| failed(&channel, &path.path, &status))?;
        let mut parts = answer.into_inner();
        let first = in_time(parts.message()).await?.map_err(|status| failed(&channel, &path.path, &status))?;
        let Some(read_file_response::Part::Entry(found)) = first.and_then(|first| first.part) else {
            return Err(not_understood());
        };
        let path = path.path.clone();
        let left = limit.unwrap_or(u64::MAX);
        let content =
            bounded(parts, channel.clone(), path, left, |part: &proto::ReadFileResponse, left| match &part.part {
                Some(read_file_response::Part::Data(data)) => checked::content(data.len(), left),
                Some(read_file_response::Part::Entry(_)) | None => {
                    Err(Breach("something else than content in a file".to_owned()))
                }
            });
        let content = content.map(|part| match part?.part {
            Some(read_file_response::Part::Data(data)) => Ok(data),
            Some(read_file_response::Part::Entry(_)) | None => Err(not_understood()),
        });
        Ok(FileReader { entry: checked_entry(&channel, Some(found))?, content: Box::pin(content) })
    }

    async fn write_file(
        &self,
        path: &FilePath,
        options: WriteOptions,
        content: FileSource,
    ) -> Result<FileEntry, FileError> {
        let channel = self.bridge().await?.channel;
        let abandoned = Arc::new(AtomicBool::new(false));
        let head = proto::WriteFileHead {
            path: Some(path_message(path)),
            mode: options.mode.unwrap_or_default(),
            make_parents: options.make_parents,
            must_not_exist: options.must_not_exist,
        };
        let parts = parts(content, Arc::clone(&abandoned)).map(|part| match part {
            Part::Data(data) => write_file_request::Part::Data(data),
            Part::End => write_file_request::Part::End(proto::WriteFileEnd {}),
        });
        let parts = stream::iter([write_file_request::Part::Head(head)]).chain(parts);
        let parts = parts.map(|part| proto::WriteFileRequest { part: Some(part) });
        let (deadline, reached) = watch::channel(None);
        let mut client = client(&channel, SMALL_MESSAGE);
        let answer = tokio::select! {
            answer = client.write_file(timed(parts, deadline)) => answer,
            late = too_late(reached) => return Err(late.into()),
        };
        if abandoned.load(Ordering::Relaxed) {
            return Err(FileError::Abandoned);
        }
        checked_entry(&channel, answer.map_err(|status| failed(&channel, &path.path, &status))?.into_inner().entry)
    }

    async fn remove_file(&self, path: &FilePath, recursive: bool) -> Result<(), FileError> {
        let channel = self.bridge().await?.channel;
        let request = proto::RemoveFileRequest { path: Some(path_message(path)), recursive };
        let answer = within(REMOVE_LIMIT, client(&channel, SMALL_MESSAGE).remove_file(request)).await?;
        answer.map(drop).map_err(|status| failed(&channel, &path.path, &status))
    }

    async fn make_directory(&self, path: &FilePath, mode: Option<u32>, parents: bool) -> Result<FileEntry, FileError> {
        let channel = self.bridge().await?.channel;
        let request = proto::MakeDirectoryRequest {
            path: Some(path_message(path)),
            mode: mode.unwrap_or_default(),
            make_parents: parents,
        };
        let answer = in_time(client(&channel, SMALL_MESSAGE).make_directory(request)).await?;
        checked_entry(&channel, answer.map_err(|status| failed(&channel, &path.path, &status))?.into_inner().entry)
    }

    async fn rename_file(&self, path: &FilePath, to: &str, must_not_exist: bool) -> Result<FileEntry, FileError> {
        let channel = self.bridge().await?.channel;
        let request =
            proto::RenameFileRequest { path: Some(path_message(path)), new_path: to.to_owned(), must_not_exist };
        let answer = in_time(client(&channel, SMALL_MESSAGE).rename_file(request)).await?;
        checked_entry(&channel, answer.map_err(|status| failed(&channel, &path.path, &status))?.into_inner().entry)
    }

    async fn read_tree(&self, path: &FilePath) -> Result<FileReader, FileError> {
        trees::read(self.bridge().await?.channel, path).await
    }

    async fn write_tree(
        &self,
        path: &FilePath,
        options: TreeOptions,
        archive: FileSource,
    ) -> Result<TreeWritten, FileError> {
        trees::write(self.bridge().await?.channel, path, options, archive).await
    }

    async fn watch_files(&self, path: &FilePath, recursive: bool) -> Result<FileChanges, FileError> {
        trees::watch(self.bridge().await?.channel, path, recursive).await
    }
}

fn path_message(path: &FilePath) -> proto::Path {
    proto::Path { path: path.path.clone(), root: path.root.clone().unwrap_or_default() }
}

/// Reads messages, each within the time limit and checked against its bounds. The check's state passes from one message to the next. An
/// error is the last item.
fn bounded<T: Send + 'static>(
    messages: tonic::Streaming<T>,
    channel: Channel,
    path: String,
    carried: u64,
    check: impl Fn(&T, u64) -> Result<u64, Breach> + Send + Copy + 'static,
) -> impl Stream<Item = Result<T, FileError>> + Send {
    stream::unfold(Some((messages, channel, path, carried)), move |state| async move {
        let (mut messages, channel, path, carried) = state?;
        let message = match in_time(messages.message()).await {
            Ok(Ok(message)) => message?,
            Ok(Err(status)) => return Some((Err(failed(&channel, &path, &status)), None)),
            Err(late) => return Some((Err(late.into()), None)),
        };
        match channel.checked(check(&message, carried)) {
            Ok(carried) => Some((Ok(message), Some((messages, channel, path, carried)))),
            Err(error) => Some((Err(error.into()), None)),
        }
    })
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
fn failed(channel: &Channel, path: &str, status: &Status) -> FileError {
    if status.code() == Code::OutOfRange {
        return channel.breach(too_large()).into();
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
    use super::*;

    #[test]
    fn every_problem_of_the_protocol_is_known() {
        let all: Vec<_> = (0..).map_while(|number| proto::FileProblem::try_from(number).ok()).collect();
        assert_eq!(all[0], proto::FileProblem::Unspecified);
        assert_eq!(FileProblem::named(all[0].name()), None);
        let known: Vec<_> = all[1..].iter().filter_map(|problem| FileProblem::named(problem.name())).collect();
        assert_eq!(known, FileProblem::ALL);
    }
}
