//! Directories with everything in them, as archives and as changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::sync::watch as deadlines;

use super::super::{
    calls::in_time,
    checked::{self, Breach, CONTENT_MESSAGE, ENTRIES_MESSAGE, SMALL_MESSAGE},
    proto::{self, read_tree_response, write_tree_request},
};
use super::{
    Channel, bounded, checked_entry, client, failed, not_understood, path_message,
    upload::{Part, parts, timed, too_late},
};
use crate::{FileChanges, FileError, FileReader, FileSource};
use errand_task::{ChangedFile, FileChange, FilePath, TreeOptions, TreeWritten};

/// The shortest time between two messages of changes that are read. An honest guest collects changes for 50 ms, unless there are very many.
const PACE: Duration = Duration::from_millis(20);

pub(super) async fn read(channel: Channel, path: &FilePath) -> Result<FileReader, FileError> {
    let request = proto::ReadTreeRequest { path: Some(path_message(path)) };
    let answer = in_time(client(&channel, CONTENT_MESSAGE).read_tree(request)).await?;
    let mut parts = answer.map_err(|status| failed(&channel, &path.path, &status))?.into_inner();
    let first = in_time(parts.message()).await?.map_err(|status| failed(&channel, &path.path, &status))?;
    let Some(read_tree_response::Part::Entry(found)) = first.and_then(|first| first.part) else {
        return Err(not_understood());
    };
    let entry = checked_entry(&channel, Some(found))?;
    let check = |part: &proto::ReadTreeResponse, left| match &part.part {
        Some(read_tree_response::Part::Data(data)) => checked::content(data.len(), left),
        Some(read_tree_response::Part::Entry(_)) | None => {
            Err(Breach("something else than content in an archive".to_owned()))
        }
    };
    let content = bounded(parts, channel, path.path.clone(), u64::MAX, check).map(|part| match part?.part {
        Some(read_tree_response::Part::Data(data)) => Ok(data),
        Some(read_tree_response::Part::Entry(_)) | None => Err(not_understood()),
    });
    Ok(FileReader { entry, content: Box::pin(content) })
}

pub(super) async fn write(
    channel: Channel,
    path: &FilePath,
    options: TreeOptions,
    archive: FileSource,
) -> Result<TreeWritten, FileError> {
    let abandoned = Arc::new(AtomicBool::new(false));
    let TreeOptions { make_parents, merge } = options;
    let head = proto::WriteTreeHead { path: Some(path_message(path)), make_parents, merge };
    let parts = parts(archive, Arc::clone(&abandoned)).map(|part| match part {
        Part::Data(data) => write_tree_request::Part::Data(data),
        Part::End => write_tree_request::Part::End(proto::WriteFileEnd {}),
    });
    let parts = stream::iter([write_tree_request::Part::Head(head)]).chain(parts);
    let parts = parts.map(|part| proto::WriteTreeRequest { part: Some(part) });
    let (deadline, reached) = deadlines::channel(None);
    let mut client = client(&channel, SMALL_MESSAGE);
    let answer = tokio::select! {
        answer = client.write_tree(timed(parts, deadline)) => answer,
        late = too_late(reached) => return Err(late.into()),
    };
    if abandoned.load(Ordering::Relaxed) {
        return Err(FileError::Abandoned);
    }
    let answer = answer.map_err(|status| failed(&channel, &path.path, &status))?.into_inner();
    let (unpacked, left_out) = (checked::position(answer.unpacked), checked::position(answer.left_out));
    Ok(TreeWritten { entry: checked_entry(&channel, answer.entry)?, unpacked, left_out })
}

pub(super) async fn watch(channel: Channel, path: &FilePath, recursive: bool) -> Result<FileChanges, FileError> {
    let request = proto::WatchFilesRequest { path: Some(path_message(path)), recursive };
    let answer = in_time(client(&channel, ENTRIES_MESSAGE).watch_files(request)).await?;
    let mut messages = answer.map_err(|status| failed(&channel, &path.path, &status))?.into_inner();
    // It comes when everything is watched.
    match in_time(messages.message()).await?.map_err(|status| failed(&channel, &path.path, &status))? {
        Some(first) if first.changes.is_empty() => {}
        Some(_) | None => return Err(not_understood()),
    }
    let path = path.path.clone();
    let batches = stream::unfold(Some((messages, channel, path)), |state| async move {
        let (mut messages, channel, path) = state?;
        tokio::time::sleep(PACE).await;
        let batch = match messages.message().await {
            Ok(Some(message)) => changes(&channel, message.changes),
            Ok(None) => Err(not_understood()),
            Err(status) => Err(failed(&channel, &path, &status)),
        };
        match batch {
            Ok(changes) => Some((changes.into_iter().map(Ok).collect::<Vec<_>>(), Some((messages, channel, path)))),
            Err(error) => Some((vec![Err(error)], None)),
        }
    });
    Ok(Box::pin(batches.flat_map(stream::iter)))
}

/// Checks and converts changes.
fn changes(channel: &Channel, told: Vec<proto::FileChange>) -> Result<Vec<FileChange>, FileError> {
    channel.checked(checked::changes(&told))?;
    told.into_iter()
        .map(|change| {
            let kind = change.kind();
            let file = ChangedFile { path: change.path.to_vec(), is_directory: change.is_directory };
            Ok(match kind {
                proto::FileChangeKind::Created => FileChange::Created(file),
                proto::FileChangeKind::Modified => FileChange::Modified(file),
                proto::FileChangeKind::Removed => FileChange::Removed(file),
                proto::FileChangeKind::Renamed => FileChange::Renamed { from: change.old_path.to_vec(), to: file },
                proto::FileChangeKind::Overflow => FileChange::Overflow,
                proto::FileChangeKind::Unspecified => return Err(not_understood()),
            })
        })
        .collect()
}
