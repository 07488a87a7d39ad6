//! Tells what changes in a directory, by inotify.
//!
//! Changes are collected for a moment and sent together, so that a file that is written in a thousand pieces is one change. Nothing is read
//! from the kernel while the client takes nothing. Then the kernel's queue overflows, and the client is told so.

mod batch;
mod tree;

use std::{
    collections::{HashMap, VecDeque},
    mem::MaybeUninit,
    sync::Arc,
    time::Duration,
};

use rustix::{
    fd::OwnedFd,
    fs::inotify::{self, CreateFlags, ReadFlags, Reader},
    io::Errno,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, timeout_at},
};
use tonic::Status;

use super::{Files, path::FilePath, refusal::Refusal, resolve::Way};
use batch::Batch;
use errand_proto::bridge::{FileChange, WatchFilesResponse};
use errand_task::FileProblem;
use tree::Directories;

/// How long changes are collected.
const COLLECT: Duration = Duration::from_millis(50);
/// The size of the buffer for events. One event takes up to 272 bytes.
const EVENTS: usize = 8 * 1024;

/// A watched directory.
pub(super) struct Watching {
    files: Files,
    queue: Arc<AsyncFd<OwnedFd>>,
    /// None while another thread has it.
    directories: Option<Directories>,
    batch: Batch,
    /// Collected changes that are not sent yet: a directory that appears can bring more than one message holds.
    ready: VecDeque<FileChange>,
    /// Whether the first message was sent.
    begun: bool,
    /// Whether the directory itself is gone.
    gone: bool,
    words: Vec<u8>,
}

/// An event of the kernel.
struct Event {
    directory: i32,
    flags: ReadFlags,
    cookie: u32,
    name: Vec<u8>,
}

impl Watching {
    pub(super) async fn begin(
        files: Files,
        path: FilePath,
        recursive: bool,
        way: Way,
        words: Vec<u8>,
    ) -> Result<Self, Refusal> {
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(tree::limit)?;
        #[allow(unsafe_code, reason = "tokio knows no safe way")]
        // SAFETY: the descriptor is owned, and it stays open and the same until the AsyncFd is dropped.
        let queue = unsafe { AsyncFd::register_with_interest(queue, Interest::READABLE) };
        let queue = queue.map(Arc::new).map_err(|error| failed(error.into()))?;
        let shared = Arc::clone(&queue);
        let directories = files.blocking(move || Directories::begin(shared.get_ref(), &path, recursive, way)).await?;
        let (batch, ready) = Default::default();
        Ok(Self { files, queue, directories: Some(directories), batch, ready, begun: false, gone: false, words })
    }

    /// The next message. The first one comes at once and is empty.
    pub(super) async fn step(watching: Option<Self>) -> Option<(Result<WatchFilesResponse, Status>, Option<Self>)> {
        let mut watching = watching?;
        if !std::mem::replace(&mut watching.begun, true) {
            return Some((Ok(WatchFilesResponse::default()), Some(watching)));
        }
        let changes = match watching.gone && watching.ready.is_empty() {
            true => Err(Refusal::of(FileProblem::NotFound)),
            false => watching.changes().await,
        };
        match changes {
            Ok(changes) => Some((Ok(WatchFilesResponse { changes }), Some(watching))),
            Err(refusal) => Some((Err(refusal.into_status(&watching.words)), None)),
        }
    }

    /// Waits for a change, and collects those that come soon after.
    async fn changes(&mut self) -> Result<Vec<FileChange>, Refusal> {
        while self.ready.is_empty() {
            let events = self.events().await?;
            self.take(events).await?;
            let until = Instant::now() + COLLECT;
            while !self.batch.is_full() && !self.gone {
                let Ok(events) = timeout_at(until, self.events()).await else { break };
                self.take(events?).await?;
            }
            let (changes, left) = self.batch.take();
            if let Some(directories) = &mut self.directories {
                left.iter().for_each(|path| directories.forget(self.queue.get_ref(), path));
            }
            self.ready.extend(changes);
        }
        Ok(batch::message(&mut self.ready))
    }

    /// Some events: at least one.
    async fn events(&self) -> Result<Vec<Event>, Refusal> {
        loop {
            let mut ready = self.queue.readable().await.map_err(failed)?;
            if let Ok(events) = ready.try_io(|queue| read_events(queue.get_ref()).map_err(Into::into)) {
                return events.map_err(failed);
            }
        }
    }

    async fn take(&mut self, events: Vec<Event>) -> Result<(), Refusal> {
        for event in events {
            let Some(directories) = &mut self.directories else { return Ok(()) };
            let made = directories.take(self.queue.get_ref(), &event, &mut self.batch);
            self.gone |= made == tree::Taken::Gone;
            if let tree::Taken::Made(path) = made {
                self.enter(path).await?;
            }
        }
        Ok(())
    }

    /// Watches a directory that was made, with everything below it.
    async fn enter(&mut self, path: Vec<u8>) -> Result<(), Refusal> {
        let Some(mut directories) = self.directories.take() else { return Ok(()) };
        if self.batch.replaced(&path) {
            directories.forget(self.queue.get_ref(), &path);
        }
        let queue = Arc::clone(&self.queue);
        let entered = self.files.blocking(move || {
            let found = directories.enter(queue.get_ref(), &path)?;
            Ok((directories, found))
        });
        let (directories, found) = entered.await?;
        self.directories = Some(directories);
        found.into_iter().for_each(|(path, is_directory)| self.batch.created(path, is_directory));
        Ok(())
    }
}

/// Reads as many events as are there and fit in the buffer.
fn read_events(queue: &OwnedFd) -> Result<Vec<Event>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); EVENTS];
    let mut reader = Reader::new(queue, &mut buffer);
    let mut events = Vec::new();
    while events.is_empty() || !reader.is_buffer_empty() {
        let event = match reader.next() {
            Err(Errno::INTR) => continue,
            event => event?,
        };
        let name = event.file_name().map(|name| name.to_bytes().to_vec()).unwrap_or_default();
        events.push(Event { directory: event.wd(), flags: event.events(), cookie: event.cookie(), name });
    }
    Ok(events)
}

fn failed(error: std::io::Error) -> Refusal {
    Refusal { problem: FileProblem::Failed, detail: error.to_string() }
}

/// Paths by the numbers of their watches.
type Watches = HashMap<i32, Vec<u8>>;
