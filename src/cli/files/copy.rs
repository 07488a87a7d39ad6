//! `errand files cp`: copies one file of any size into a sandbox or out of it, completely or not at all.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    process,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
};

use super::place::{Place, Remote};
use crate::cli::{args::CopyArgs, connection::Connection, console::Console, error::CliError, exit_code};
use errand_proto::v1::{
    FileEntry, ReadFileRequest, ReadFileResponse, WriteFileEnd, WriteFileHead, WriteFileRequest, read_file_response,
    write_file_request::Part,
};

/// The most bytes of a file in one message.
const PIECE: usize = 256 * 1024;

pub(super) async fn copy(args: CopyArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let CopyArgs { mode, parents, no_clobber, from, to, .. } = args;
    let entry = match (from, to) {
        (Place::Sandbox(from), Place::Standard) => {
            print(from, connection, console).await?;
            return Ok(exit_code::SUCCESS);
        }
        (Place::Sandbox(from), Place::Here(to)) => download(from, to, no_clobber, connection).await?,
        (from @ (Place::Here(_) | Place::Standard), Place::Sandbox(to)) => {
            let head = WriteFileHead {
                mode: mode.unwrap_or_default(),
                make_parents: parents,
                must_not_exist: no_clobber,
                ..WriteFileHead::default()
            };
            upload(from, to, head, connection).await?
        }
        (Place::Sandbox(_), Place::Sandbox(_)) => {
            return Err(CliError::Usage("cp: one of the paths must be a local file or -".to_owned()));
        }
        (Place::Here(_) | Place::Standard, Place::Here(_) | Place::Standard) => {
            return Err(CliError::Usage("cp: one of the paths must be BOT:/PATH".to_owned()));
        }
    };
    // Success is silent, as with cp.
    if console.is_json() {
        console.message(&entry).await?;
    }
    Ok(exit_code::SUCCESS)
}

async fn open(from: Remote, connection: &Connection) -> Result<tonic::Streaming<ReadFileResponse>, CliError> {
    let request = ReadFileRequest { bot_id: from.bot, path: from.path, ..ReadFileRequest::default() };
    Ok(connection.sandboxes().read_file(request).await?.into_inner())
}

async fn print(from: Remote, connection: &Connection, console: &mut Console) -> Result<(), CliError> {
    let mut messages = open(from, connection).await?;
    while let Some(message) = messages.message().await? {
        if console.is_json() {
            console.message(&message).await?;
        } else if let Some(read_file_response::Part::Data(data)) = message.part {
            console.bytes(&data).await?;
        }
    }
    Ok(())
}

/// An error that names the path of a local file.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> CliError {
    let path = path.display().to_string();
    move |source| CliError::Local { path: path.clone(), source }
}

async fn download(from: Remote, to: PathBuf, no_clobber: bool, connection: &Connection) -> Result<FileEntry, CliError> {
    let is_directory = fs::metadata(&to).await.is_ok_and(|found| found.is_dir());
    let to = if is_directory { to.join(from.name()) } else { to };
    if no_clobber && fs::symlink_metadata(&to).await.is_ok() {
        return Err(at(&to)(io::ErrorKind::AlreadyExists.into()));
    }
    let mut messages = open(from, connection).await?;
    // Writes to a temporary file beside the target, so that a partial file is never taken for the complete one.
    let mut name = to.file_name().ok_or_else(|| at(&to)(io::ErrorKind::IsADirectory.into()))?.to_owned();
    name.push(format!(".{}.part", process::id()));
    let part = Unfinished(to.with_file_name(name));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&part.0).await.map_err(at(&part.0))?;
    let mut entry = None;
    while let Some(message) = messages.message().await? {
        match message.part {
            Some(read_file_response::Part::Entry(found)) => entry = Some(found),
            Some(read_file_response::Part::Data(data)) => file.write_all(&data).await.map_err(at(&to))?,
            None => {}
        }
    }
    file.flush().await.map_err(at(&to))?;
    fs::rename(&part.0, &to).await.map_err(at(&to))?;
    entry.ok_or_else(|| CliError::Unexpected("the server's answer does not describe the file".to_owned()))
}

/// An incomplete file. Removed when dropped, unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename, there is nothing to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn upload(
    from: Place,
    mut to: Remote,
    head: WriteFileHead,
    connection: &Connection,
) -> Result<FileEntry, CliError> {
    let (source, path): (Pin<Box<dyn AsyncRead + Send>>, PathBuf) = match from {
        Place::Here(path) => {
            let file = File::open(&path).await.map_err(at(&path))?;
            if file.metadata().await.map_err(at(&path))?.is_dir() {
                return Err(at(&path)(io::ErrorKind::IsADirectory.into()));
            }
            (Box::pin(file), path)
        }
        Place::Standard | Place::Sandbox(_) => (Box::pin(tokio::io::stdin()), PathBuf::from("standard input")),
    };
    if to.path.ends_with('/') {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        to.path.push_str(&name);
    }
    let head = WriteFileHead { bot_id: to.bot, path: to.path, ..head };
    let failure = Failure::default();
    let answer = connection.sandboxes().write_file(messages(head, source, failure.clone())).await;
    if let Some(source) = failure.take() {
        return Err(at(&path)(source));
    }
    let entry = answer?.into_inner().entry;
    entry.ok_or_else(|| CliError::Unexpected("the server's answer does not describe the file".to_owned()))
}

/// Why a local file could not be read to its end.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    fn keep(&self, error: io::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The messages of a write. If the source fails, the end message is missing, and the server discards the file.
fn messages(
    head: WriteFileHead,
    source: Pin<Box<dyn AsyncRead + Send>>,
    failure: Failure,
) -> impl Stream<Item = WriteFileRequest> + Send + 'static {
    let pieces = stream::unfold(Some((source, failure)), |state| async move {
        let (mut source, failure) = state?;
        let mut piece = vec![0; PIECE];
        let mut length = 0;
        while length < PIECE {
            match source.read(&mut piece[length..]).await {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) => {
                    failure.keep(error);
                    return None;
                }
            }
        }
        if length == 0 {
            return Some((Part::End(WriteFileEnd {}), None));
        }
        piece.truncate(length);
        Some((Part::Data(piece.into()), Some((source, failure))))
    });
    stream::iter([Part::Head(head)]).chain(pieces).map(|part| WriteFileRequest { part: Some(part) })
}
