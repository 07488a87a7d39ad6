//! `errand files cp --recursive`: copies a directory into a sandbox or out of it as a tar archive.
//!
//! An archive from a sandbox is not trusted: nothing is written outside the new directory, and no link in it is followed.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{io::AsyncReadExt as _, sync::mpsc, task::spawn_blocking};

use super::{
    copy::at,
    place::{Place, Remote},
};
use crate::cli::{args::CopyArgs, connection::Connection, console::Console, error::CliError, exit_code};
use errand_proto::v1::{
    ReadTreeRequest, ReadTreeResponse, WriteTreeEnd, WriteTreeHead, WriteTreeRequest, WriteTreeResponse,
    read_tree_response, write_tree_request::Part,
};

/// The most bytes of an archive in one message.
const PIECE: usize = 256 * 1024;

pub(super) async fn copy(args: CopyArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let CopyArgs { parents, merge, from, to, .. } = args;
    match (from, to) {
        (Place::Sandbox(from), Place::Standard) => {
            let mut messages = open(from, connection).await?;
            while let Some(message) = messages.message().await? {
                if let Some(read_tree_response::Part::Data(data)) = message.part {
                    console.bytes(&data).await?;
                }
            }
        }
        (Place::Sandbox(from), Place::Here(to)) => download(from, to, merge, connection).await?,
        (from @ (Place::Here(_) | Place::Standard), Place::Sandbox(to)) => {
            let head = WriteTreeHead { make_parents: parents, merge, ..WriteTreeHead::default() };
            let answer = upload(from, to, head, connection).await?;
            if answer.left_out > 0 {
                let left_out = answer.left_out;
                console.note(&format!("{left_out} entries of the archive were left out: devices and pipes")).await;
            }
            if console.is_json() {
                console.message(&answer).await?;
            }
        }
        (Place::Sandbox(_), Place::Sandbox(_))
        | (Place::Here(_) | Place::Standard, Place::Here(_) | Place::Standard) => {
            return Err(CliError::Usage("cp: one of the paths must be BOT:/PATH, the other one local".to_owned()));
        }
    }
    Ok(exit_code::SUCCESS)
}

async fn open(from: Remote, connection: &Connection) -> Result<tonic::Streaming<ReadTreeResponse>, CliError> {
    let request = ReadTreeRequest { bot_id: from.bot, path: from.path, ..ReadTreeRequest::default() };
    Ok(connection.sandboxes().read_tree(request).await?.into_inner())
}

/// Unpacks beside the target and renames at the end, so that a part is never taken for the whole. A merge unpacks into the target itself.
async fn download(from: Remote, to: PathBuf, merge: bool, connection: &Connection) -> Result<(), CliError> {
    let is_directory = tokio::fs::metadata(&to).await.is_ok_and(|found| found.is_dir());
    let to = if is_directory && !merge { to.join(from.name()) } else { to };
    if !merge && tokio::fs::symlink_metadata(&to).await.is_ok() {
        return Err(at(&to)(io::ErrorKind::AlreadyExists.into()));
    }
    let mut messages = open(from, connection).await?;
    let target = if merge { Target::Merged(to.clone()) } else { Target::new(&to)? };
    let (pieces, received) = mpsc::channel(2);
    let path = target.path().to_owned();
    let unpacking = spawn_blocking(move || {
        let mut archive = tar::Archive::new(Receiving { pieces: received, piece: Bytes::new() });
        archive.set_preserve_permissions(true);
        archive.unpack(&path)?;
        // What follows the end of the archive is read too: the server then knows that everything came.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop)
    });
    let receiving = async {
        while let Some(message) = messages.message().await? {
            if let Some(read_tree_response::Part::Data(data)) = message.part
                && pieces.send(Ok(data)).await.is_err()
            {
                break;
            }
        }
        Ok::<_, tonic::Status>(())
    };
    let received = receiving.await;
    if received.is_err() {
        // Without this, the unpacking would take the part for the whole.
        let _ = pieces.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
    }
    drop(pieces);
    let unpacked = unpacking.await.map_err(io::Error::from).and_then(|unpacked| unpacked);
    received?;
    unpacked.map_err(at(&to))?;
    target.finish(&to)
}

/// Where an archive is unpacked.
enum Target {
    /// Beside its place. Removed when dropped.
    Unfinished(PathBuf),
    /// In a directory that may exist.
    Merged(PathBuf),
    /// At its place.
    Finished,
}

impl Target {
    fn new(to: &Path) -> Result<Self, CliError> {
        let mut name = to.file_name().ok_or_else(|| at(to)(io::ErrorKind::AlreadyExists.into()))?.to_owned();
        name.push(format!(".{}.part", process::id()));
        let path = to.with_file_name(name);
        std::fs::create_dir(&path).map_err(at(&path))?;
        Ok(Self::Unfinished(path))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Unfinished(path) | Self::Merged(path) => path,
            Self::Finished => Path::new("."),
        }
    }

    fn finish(mut self, to: &Path) -> Result<(), CliError> {
        if let Self::Unfinished(path) = &self {
            std::fs::rename(path, to).map_err(at(to))?;
            self = Self::Finished;
        }
        drop(self);
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Self::Unfinished(path) = self {
            // An error here has no receiver.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Pieces that arrive, as a reader of another thread.
struct Receiving {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Receiving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

async fn upload(
    from: Place,
    mut to: Remote,
    head: WriteTreeHead,
    connection: &Connection,
) -> Result<WriteTreeResponse, CliError> {
    let (pieces, archive) = mpsc::channel(2);
    let (path, packing) = match from {
        Place::Here(path) => {
            let found = tokio::fs::metadata(&path).await.map_err(at(&path))?;
            if !found.is_dir() {
                return Err(at(&path)(io::ErrorKind::NotADirectory.into()));
            }
            if to.path.ends_with('/') {
                to.path.push_str(&path.file_name().unwrap_or_default().to_string_lossy());
            }
            let directory = path.clone();
            (path, spawn_blocking(move || pack(&directory, pieces)))
        }
        Place::Standard | Place::Sandbox(_) => {
            (PathBuf::from("standard input"), tokio::spawn(pass_on(tokio::io::stdin(), pieces)))
        }
    };
    let head = WriteTreeHead { bot_id: to.bot, path: to.path, ..head };
    let answer = connection.sandboxes().write_tree(messages(head, archive)).await;
    // A problem with the source is more specific than the server's error that the archive did not arrive.
    match (packing.await.map_err(io::Error::from).and_then(|packed| packed), answer) {
        (_, Ok(answer)) => Ok(answer.into_inner()),
        (Err(error), Err(_)) if error.kind() != io::ErrorKind::BrokenPipe => Err(at(&path)(error)),
        (_, Err(status)) => Err(status.into()),
    }
}

/// The messages of an upload. If the source fails, the end is missing, and the server unpacks nothing.
fn messages(
    head: WriteTreeHead,
    archive: mpsc::Receiver<Option<Bytes>>,
) -> impl Stream<Item = WriteTreeRequest> + Send + 'static {
    let parts = stream::unfold(archive, |mut archive| async move {
        let part = match archive.recv().await? {
            Some(data) => Part::Data(data),
            None => Part::End(WriteTreeEnd {}),
        };
        Some((part, archive))
    });
    stream::iter([Part::Head(head)]).chain(parts).map(|part| WriteTreeRequest { part: Some(part) })
}

/// Packs a directory of this machine: pieces, then none once the archive is complete.
fn pack(directory: &Path, pieces: mpsc::Sender<Option<Bytes>>) -> io::Result<()> {
    let mut archive = tar::Builder::new(Sending { pieces, piece: Vec::with_capacity(PIECE) });
    archive.follow_symlinks(false);
    archive.append_dir_all(".", directory)?;
    let mut sending = archive.into_inner()?;
    sending.flush()?;
    sending.send(None)
}

/// A writer of another thread whose pieces are sent.
struct Sending {
    pieces: mpsc::Sender<Option<Bytes>>,
    piece: Vec<u8>,
}

impl Sending {
    fn send(&self, piece: Option<Bytes>) -> io::Result<()> {
        // The call ended: its error says why.
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.send(Some(piece.into()))
    }
}

/// Passes an archive on as it is.
async fn pass_on(mut archive: tokio::io::Stdin, pieces: mpsc::Sender<Option<Bytes>>) -> io::Result<()> {
    loop {
        let mut piece = vec![0; PIECE];
        let read = archive.read(&mut piece).await?;
        piece.truncate(read);
        let piece = (read > 0).then(|| Bytes::from(piece));
        let is_last = piece.is_none();
        pieces.send(piece).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        if is_last {
            return Ok(());
        }
    }
}
