//! Files of the sandbox: `FileService`.
//!
//! Works on open descriptors, so that nothing can be swapped between a check and the operation; see `resolve`. Blocking operations run on
//! separate threads, at most 8 at a time, one piece at a time: a slow client holds neither a thread nor more than one piece.

mod entry;
mod part;
pub mod path;
mod refusal;
mod remove;
mod resolve;
#[cfg(test)]
mod tests;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures_util::stream::unfold;
use rustix::{
    buffer::spare_capacity,
    fd::OwnedFd,
    fs::{Dir, OFlags, fstat},
    io::{Errno, pread},
};
use tokio::sync::Semaphore;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use errand_proto::bridge::{
    FileEntry, FileKind, ListDirectoryRequest, ListDirectoryResponse, ReadFileRequest, ReadFileResponse,
    RemoveFileRequest, RemoveFileResponse, StatFileRequest, StatFileResponse, WriteFileHead, WriteFileRequest,
    WriteFileResponse, file_service_server::FileService, read_file_response, write_file_request,
};
use errand_task::FileProblem;
use part::Part;
use path::FilePath;
use refusal::Refusal;
use resolve::{Tree, Way};

/// The most bytes of a file in one message.
const PIECE: usize = 128 * 1024;
/// The most entries of a directory in one message.
const BATCH: usize = 256;
/// A message gets no further entries once its names and link targets have this many bytes. The server accepts messages of 128 KiB.
const BATCH_BYTES: usize = 64 * 1024;
/// The most calls that may block a thread at the same time.
const TURNS: usize = 8;

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files {
    turns: Arc<Semaphore>,
    way: Way,
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

impl Files {
    /// A service for the files that this process's user may access.
    pub fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(TURNS)), way: Way::Kernel }
    }

    /// Like [`Self::new`], but resolves paths below a root as on a kernel without `openat2`.
    pub fn without_openat2() -> Self {
        Self { way: Way::Steps, ..Self::new() }
    }

    /// Runs a blocking operation on another thread.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let broken = |detail: String| Refusal { problem: FileProblem::Failed, detail };
        let turns = Arc::clone(&self.turns);
        // A separate task: a call whose client does not read is not polled, and must not keep its permit meanwhile.
        let done = tokio::spawn(async move {
            let turn = turns.acquire_owned().await.map_err(|error| broken(error.to_string()))?;
            let done = tokio::task::spawn_blocking(move || {
                let done = work();
                drop(turn);
                done
            });
            done.await.map_err(|error| broken(error.to_string()))?
        });
        done.await.map_err(|error| broken(error.to_string()))?
    }
}

/// The parsed path of a request, and the path as text for messages.
fn path(given: Option<errand_proto::bridge::Path>) -> Result<(FilePath, Vec<u8>), Status> {
    let given = given.unwrap_or_default();
    let words = given.path.into_bytes();
    match path::parse(&words, given.root.as_bytes()) {
        Ok(path) => Ok((path, words)),
        Err(error) => Err(Refusal::from(error).into_status(&words)),
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl FileService for Files {
    type ReadFileStream = Answers<ReadFileResponse>;
    type ListDirectoryStream = Answers<ListDirectoryResponse>;

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Result<Response<Self::ReadFileStream>, Status> {
        let request = request.into_inner();
        let (path, words) = path(request.path)?;
        let way = self.way;
        let opened = self.blocking(move || open_file(&path, way)).await;
        let (file, entry) = opened.map_err(|refusal| refusal.into_status(&words))?;
        let reading = Reading {
            files: self.clone(),
            entry: Some(entry),
            file: Arc::new(file),
            offset: request.offset,
            left: if request.limit == 0 { u64::MAX } else { request.limit },
            words,
        };
        Ok(Response::new(Box::pin(unfold(Some(reading), Reading::step))))
    }

    async fn write_file(
        &self,
        request: Request<Streaming<WriteFileRequest>>,
    ) -> Result<Response<WriteFileResponse>, Status> {
        use write_file_request::Part as Said;
        let mut said = request.into_inner();
        let head = match said.message().await?.and_then(|first| first.part) {
            Some(Said::Head(head)) => head,
            Some(Said::Data(_) | Said::End(_)) | None => {
                return Err(Status::invalid_argument("the first message must be the head"));
            }
        };
        let (path, words) = path(head.path.clone())?;
        let (way, place) = (self.way, path.clone());
        let begun = self.blocking(move || Part::begin(&place, &WriteFileHead { path: None, ..head }, way)).await;
        let mut part = begun.map_err(|refusal| refusal.into_status(&words))?;
        loop {
            match said.message().await?.and_then(|next| next.part) {
                Some(Said::Data(data)) => {
                    let written = self.blocking(move || part.write(&data).map(|()| part)).await;
                    part = written.map_err(|refusal| refusal.into_status(&words))?;
                }
                Some(Said::End(_)) => break,
                Some(Said::Head(_)) => return Err(Status::invalid_argument("there is one head")),
                None => return Err(Status::aborted("the stream ended before the file did; nothing was written")),
            }
        }
        let finished = self.blocking(move || part.finish(path.name())).await;
        let entry = finished.map_err(|refusal| refusal.into_status(&words))?;
        Ok(Response::new(WriteFileResponse { entry: Some(entry) }))
    }

    async fn list_directory(
        &self,
        request: Request<ListDirectoryRequest>,
    ) -> Result<Response<Self::ListDirectoryStream>, Status> {
        let (path, words) = path(request.into_inner().path)?;
        let way = self.way;
        let opened = self.blocking(move || {
            let directory = Tree::of(&path, way)?.open(&path.relative(), OFlags::RDONLY | OFlags::DIRECTORY)?;
            Ok(Dir::new(directory)?)
        });
        let directory = opened.await.map_err(|refusal| refusal.into_status(&words))?;
        let listing = Listing { files: self.clone(), directory, words };
        Ok(Response::new(Box::pin(unfold(Some(listing), Listing::step))))
    }

    async fn stat_file(&self, request: Request<StatFileRequest>) -> Result<Response<StatFileResponse>, Status> {
        let request = request.into_inner();
        let (path, words) = path(request.path)?;
        let way = self.way;
        let described = self.blocking(move || describe(&path, request.follow, way)).await;
        let entry = described.map_err(|refusal| refusal.into_status(&words))?;
        Ok(Response::new(StatFileResponse { entry: Some(entry) }))
    }

    async fn remove_file(&self, request: Request<RemoveFileRequest>) -> Result<Response<RemoveFileResponse>, Status> {
        let request = request.into_inner();
        let (path, words) = path(request.path)?;
        // If the client cancels the call, the removal stops and the remaining files stay.
        let stop = StopOnDrop(Arc::default());
        let (way, stopped) = (self.way, Arc::clone(&stop.0));
        let removed = self.blocking(move || remove::remove(&path, request.recursive, way, &stopped)).await;
        removed.map_err(|refusal| refusal.into_status(&words))?;
        Ok(Response::new(RemoveFileResponse {}))
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Opens a regular file. Refuses any file whose reads could block or never end.
fn open_file(path: &FilePath, way: Way) -> Result<(OwnedFd, FileEntry), Refusal> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = Tree::of(path, way)?.open(&path.relative(), flags)?;
    let stat = fstat(&file)?;
    match entry::kind(&stat) {
        FileKind::File if path.names_a_directory() => Err(Refusal::of(FileProblem::NotADirectory)),
        FileKind::File => Ok((file, entry::of(path.name(), &stat, Vec::new()))),
        FileKind::Directory => Err(Refusal::of(FileProblem::IsADirectory)),
        FileKind::Symlink | FileKind::Other | FileKind::Unspecified => Err(Refusal::of(FileProblem::NotAFile)),
    }
}

fn describe(path: &FilePath, follow: bool, way: Way) -> Result<FileEntry, Refusal> {
    let tree = Tree::of(path, way)?;
    if !follow && !path.names_a_directory() {
        let place = tree.place(path)?;
        return Ok(entry::named(&place.directory, place.name.to_bytes())?);
    }
    let directory = if path.names_a_directory() { OFlags::DIRECTORY } else { OFlags::empty() };
    let found = tree.open(&path.relative(), OFlags::PATH | directory)?;
    Ok(entry::of(path.name(), &fstat(&found)?, Vec::new()))
}

/// A file that is being read.
struct Reading {
    files: Files,
    /// The file's description, until it was sent.
    entry: Option<FileEntry>,
    file: Arc<OwnedFd>,
    offset: u64,
    left: u64,
    words: Vec<u8>,
}

impl Reading {
    async fn step(reading: Option<Self>) -> Option<(Result<ReadFileResponse, Status>, Option<Self>)> {
        let mut reading = reading?;
        if let Some(entry) = reading.entry.take() {
            return Some((Ok(message(read_file_response::Part::Entry(entry))), Some(reading)));
        }
        let wanted = usize::try_from(reading.left).unwrap_or(usize::MAX).min(PIECE);
        if wanted == 0 {
            return None;
        }
        let (file, offset) = (Arc::clone(&reading.file), reading.offset);
        match reading.files.blocking(move || Ok(read_piece(&file, offset, wanted)?)).await {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => {
                reading.offset = reading.offset.saturating_add(piece.len() as u64);
                reading.left -= piece.len() as u64;
                Some((Ok(message(read_file_response::Part::Data(piece))), Some(reading)))
            }
            Err(refusal) => Some((Err(refusal.into_status(&reading.words)), None)),
        }
    }
}

fn message(part: read_file_response::Part) -> ReadFileResponse {
    ReadFileResponse { part: Some(part) }
}

fn read_piece(file: &OwnedFd, offset: u64, wanted: usize) -> Result<Bytes, Errno> {
    // No file is that long, and the kernel uses signed positions.
    if offset.checked_add(wanted as u64).is_none_or(|end| i64::try_from(end).is_err()) {
        return Ok(Bytes::new());
    }
    let mut piece = Vec::with_capacity(wanted);
    loop {
        match pread(file, spare_capacity(&mut piece), offset) {
            Ok(_) => {
                // The buffer can be larger than requested.
                piece.truncate(wanted);
                return Ok(piece.into());
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// A directory that is being listed.
struct Listing {
    files: Files,
    directory: Dir,
    words: Vec<u8>,
}

impl Listing {
    async fn step(listing: Option<Self>) -> Option<(Result<ListDirectoryResponse, Status>, Option<Self>)> {
        let Self { files, mut directory, words } = listing?;
        let read = files.blocking(move || {
            let entries = read_batch(&mut directory)?;
            Ok((entries, directory))
        });
        match read.await {
            Ok((entries, _)) if entries.is_empty() => None,
            Ok((entries, directory)) => {
                Some((Ok(ListDirectoryResponse { entries }), Some(Self { files, directory, words })))
            }
            Err(refusal) => Some((Err(refusal.into_status(&words)), None)),
        }
    }
}

fn read_batch(directory: &mut Dir) -> Result<Vec<FileEntry>, Errno> {
    let mut entries: Vec<FileEntry> = Vec::new();
    let mut bytes = 0;
    while entries.len() < BATCH && bytes < BATCH_BYTES {
        let Some(found) = directory.read() else { break };
        let found = found?;
        let name = found.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        match entry::named(directory.fd()?, name) {
            // The entry was removed since the directory was read, or it no longer is a link.
            Err(Errno::NOENT | Errno::INVAL) => {}
            entry => {
                let entry = entry?;
                bytes += entry.name.len() + entry.link_target.len();
                entries.push(entry);
            }
        }
    }
    Ok(entries)
}
