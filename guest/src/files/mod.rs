//! Files of the sandbox: `FileService`.
//!
//! Works on open descriptors, so that nothing can be swapped between a check and the operation; see `resolve`. Blocking operations run on
//! separate threads, at most 8 at a time, one piece at a time: a slow client holds neither a thread nor more than one piece.

mod directories;
mod entry;
mod listing;
mod part;
pub mod path;
mod reading;
mod refusal;
mod remove;
mod resolve;
#[cfg(test)]
mod tests;
pub mod tree;
mod uploads;
mod watch;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{StreamExt as _, stream::unfold};
use rustix::fs::{Dir, OFlags, fstat};
use tokio::sync::Semaphore;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use errand_proto::bridge::{
    FileEntry, ListDirectoryRequest, ListDirectoryResponse, MakeDirectoryRequest, MakeDirectoryResponse,
    ReadFileRequest, ReadFileResponse, ReadTreeRequest, ReadTreeResponse, RemoveFileRequest, RemoveFileResponse,
    RenameFileRequest, RenameFileResponse, StatFileRequest, StatFileResponse, WatchFilesRequest, WatchFilesResponse,
    WriteFileHead, WriteFileRequest, WriteFileResponse, WriteTreeHead, WriteTreeRequest, WriteTreeResponse,
    file_service_server::FileService, read_tree_response,
};
use errand_task::FileProblem;
use listing::Listing;
use part::Part;
use path::FilePath;
use reading::{Reading, open_file};
use refusal::Refusal;
use resolve::{Tree, Way};
use tree::{pack::Packing, unpack::Unpacking};
use watch::Watching;

/// The most bytes of a file in one message.
const PIECE: usize = 128 * 1024;
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
    type ReadTreeStream = Answers<ReadTreeResponse>;
    type WatchFilesStream = Answers<WatchFilesResponse>;

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
        let mut messages = request.into_inner();
        let head: WriteFileHead = uploads::head(&mut messages).await?;
        let (path, words) = path(head.path.clone())?;
        let (way, place) = (self.way, path.clone());
        let begun = self.blocking(move || Part::begin(&place, &head, way)).await;
        let part = begun.map_err(|refusal| refusal.into_status(&words))?;
        let part = uploads::content(self, &mut messages, part, Part::write, &words).await?;
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

    async fn make_directory(
        &self,
        request: Request<MakeDirectoryRequest>,
    ) -> Result<Response<MakeDirectoryResponse>, Status> {
        let MakeDirectoryRequest { path: given, mode, make_parents } = request.into_inner();
        let (path, words) = path(given)?;
        let way = self.way;
        let made = self.blocking(move || directories::make(&path, mode, make_parents, way)).await;
        let entry = made.map_err(|refusal| refusal.into_status(&words))?;
        Ok(Response::new(MakeDirectoryResponse { entry: Some(entry) }))
    }

    async fn rename_file(&self, request: Request<RenameFileRequest>) -> Result<Response<RenameFileResponse>, Status> {
        let RenameFileRequest { path: given, new_path, must_not_exist } = request.into_inner();
        let root = given.as_ref().map(|given| given.root.clone()).unwrap_or_default();
        let (from, words) = path(given)?;
        let (to, _) = path(Some(errand_proto::bridge::Path { path: new_path, root }))?;
        let way = self.way;
        let renamed = self.blocking(move || directories::rename(&from, &to, must_not_exist, way)).await;
        let entry = renamed.map_err(|refusal| refusal.into_status(&words))?;
        Ok(Response::new(RenameFileResponse { entry: Some(entry) }))
    }

    async fn read_tree(&self, request: Request<ReadTreeRequest>) -> Result<Response<Self::ReadTreeStream>, Status> {
        let (path, words) = path(request.into_inner().path)?;
        let way = self.way;
        let begun = self.blocking(move || Packing::begin(&path, way)).await;
        let (packing, entry) = begun.map_err(|refusal| refusal.into_status(&words))?;
        let part = |part| ReadTreeResponse { part: Some(part) };
        let pieces = unfold(Some((self.clone(), packing)), move |state| {
            let words = words.clone();
            async move {
                let (files, mut packing) = state?;
                let packed = files.blocking(move || packing.next_piece().map(|piece| (piece, packing))).await;
                match packed {
                    Ok((piece, _)) if piece.is_empty() => None,
                    Ok((piece, packing)) => {
                        Some((Ok(part(read_tree_response::Part::Data(piece))), Some((files, packing))))
                    }
                    Err(refusal) => Some((Err(refusal.into_status(&words)), None)),
                }
            }
        });
        let first = part(read_tree_response::Part::Entry(entry));
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)).chain(pieces))))
    }

    async fn write_tree(
        &self,
        request: Request<Streaming<WriteTreeRequest>>,
    ) -> Result<Response<WriteTreeResponse>, Status> {
        let mut messages = request.into_inner();
        let head: WriteTreeHead = uploads::head(&mut messages).await?;
        let (path, words) = path(head.path.clone())?;
        let (way, place) = (self.way, path.clone());
        let begun = self.blocking(move || Unpacking::begin(&place, &head, way)).await;
        let tree = begun.map_err(|refusal| refusal.into_status(&words))?;
        let tree = uploads::content(self, &mut messages, tree, Unpacking::write, &words).await?;
        let finished = self.blocking(move || tree.finish(path.name())).await;
        finished.map(Response::new).map_err(|refusal| refusal.into_status(&words))
    }

    async fn watch_files(
        &self,
        request: Request<WatchFilesRequest>,
    ) -> Result<Response<Self::WatchFilesStream>, Status> {
        let WatchFilesRequest { path: given, recursive } = request.into_inner();
        let (path, words) = path(given)?;
        let begun = Watching::begin(self.clone(), path, recursive, self.way, words.clone()).await;
        let watching = begun.map_err(|refusal| refusal.into_status(&words))?;
        Ok(Response::new(Box::pin(unfold(Some(watching), Watching::step))))
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
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
