//! The process of an exec: finds the bridge, or starts it, and hands its standard streams over to it.
//!
//! The bridge reads and writes them directly; this process only stays, because the engine ends the streams with it.

use std::{
    fs, io,
    io::{IoSlice, Read as _},
    mem::MaybeUninit,
    os::{
        fd::AsFd as _,
        unix::{fs::DirBuilderExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

use crate::{
    serve::{self, Started},
    socket,
};

/// How long the bridge may take to be there.
const LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to let go of streams whose other end is closed.
const LAST_WAIT: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
/// How often it is looked for meanwhile.
const PAUSE: Duration = Duration::from_millis(2);
/// The socket's name in the bridge's directory.
pub(crate) const SOCKET: &str = "socket";
/// The bridge has taken the streams.
pub(crate) const TAKEN: u8 = b't';
/// The bridge is older than who asks, and ends: a newer one is to be started.
pub(crate) const RETIRES: u8 = b'r';

/// The bridge's own directory below the root of the task directories.
pub(crate) fn directory(root: &Path) -> PathBuf {
    root.join(".bridge")
}

/// Connects the standard streams with a bridge of at least this generation. Returns when the bridge lets go of them.
///
/// # Errors
/// When there is no bridge and none can be started.
pub fn run(root: &Path, generation: u32) -> io::Result<()> {
    let directory = directory(root);
    make(root, 0o711)?;
    make(&directory, 0o700)?;
    let deadline = Instant::now() + LIMIT;
    let mut started = None;
    loop {
        match socket::connect(&directory, SOCKET) {
            Ok(bridge) if hand_over(&bridge, generation)? => return Ok(()),
            // It is there, and too busy, or stopped.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
                continue;
            }
            Err(error) if !not_there(&error) => return Err(error),
            Ok(_) | Err(_) => {}
        }
        started = match started {
            Some(bridge) => match serve::look_after(bridge) {
                Started::Runs => Some(bridge),
                // The one that it gave way to may have been about to go itself.
                Started::Gone => None,
                Started::Failed => return Err(does_not_come_up(io::ErrorKind::Other, &directory)),
            },
            None => Some(serve::start(root, generation)?),
        };
        if Instant::now() > deadline {
            return Err(does_not_come_up(io::ErrorKind::TimedOut, &directory));
        }
        std::thread::sleep(PAUSE);
    }
}

fn does_not_come_up(kind: io::ErrorKind, directory: &Path) -> io::Error {
    let why = serve::last_note(directory).map_or(String::new(), |note| format!(": {note}"));
    io::Error::new(kind, format!("the bridge does not come up{why}"))
}

fn make(directory: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).recursive(true).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits until the bridge lets go of the streams. Where the server has, for a while only: a bridge that was stopped does not notice.
fn stay(bridge: &UnixStream) {
    let stdin = io::stdin();
    let mut left = None;
    loop {
        let mut watched = vec![PollFd::new(bridge, PollFlags::IN)];
        if left.is_none() {
            // No event but the close of the other end.
            watched.push(PollFd::new(&stdin, PollFlags::empty()));
        }
        match poll(&mut watched, left.as_ref()) {
            Err(Errno::INTR) => {}
            Ok(1..) if watched.first().is_some_and(|bridge| bridge.revents().is_empty()) => left = Some(LAST_WAIT),
            Ok(_) | Err(_) => return,
        }
    }
}

fn not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Gives the bridge the streams and waits until it is done with them. False when it retires instead.
fn hand_over(mut bridge: &UnixStream, generation: u32) -> io::Result<bool> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let descriptors = [stdin.as_fd(), stdout.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let mut answer = [0];
    // A stopped or hung bridge never answers: the deadline ends the wait.
    bridge.set_read_timeout(Some(LIMIT))?;
    let asked = sendmsg(bridge, &[IoSlice::new(&generation.to_le_bytes())], &mut ancillary, SendFlags::NOSIGNAL);
    match asked.map_err(io::Error::from).and_then(|_| bridge.read(&mut answer)) {
        Ok(1) if answer[0] == TAKEN => {
            stay(bridge);
            Ok(true)
        }
        // It retires, or ended this very moment.
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("the bridge did not answer within {LIMIT:?}")))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Ok(false),
        Err(error) => Err(error),
    }
}
