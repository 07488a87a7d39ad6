//! The process that an exec starts. It finds or starts the bridge process and passes its standard streams on.
//!
//! The bridge process then reads and writes the streams directly. This process stays only because the engine closes the streams when it
//! exits.

use std::{
    fs, io,
    io::Read as _,
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
};

use crate::serve::{self, Started};
use errand_os::{rights, socket};

/// How long to wait for the bridge process to accept a connection.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the bridge process may take to release the streams after the server has closed its end.
const LAST_WAIT: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
/// The interval between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(2);
/// The socket's name in the directory of the bridge process.
pub(crate) const SOCKET: &str = "socket";
/// Answer: the bridge process has taken the streams.
pub(crate) const TAKEN: u8 = b't';
/// Answer: the bridge process is older than this program and exits; this program must start a newer one.
pub(crate) const RETIRES: u8 = b'r';

/// The directory of the bridge process, below the root of the task directories.
pub(crate) fn directory(root: &Path) -> PathBuf {
    root.join(".bridge")
}

/// Connects the standard streams to a bridge process of at least this generation. Returns when the bridge process releases them.
///
/// # Errors
/// When no bridge process runs and none can be started.
pub fn run(root: &Path, generation: u32) -> io::Result<()> {
    let directory = directory(root);
    make(root, 0o711)?;
    make(&directory, 0o700)?;
    let deadline = Instant::now() + LIMIT;
    let mut started = None;
    loop {
        match socket::connect(&directory, SOCKET) {
            Ok(bridge) if hand_over(&bridge, generation)? => return Ok(()),
            // A bridge process exists but is too busy or stopped.
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
                // The new bridge process yielded to another one, which may have been exiting itself.
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

/// Waits until the bridge process releases the streams. Once the server has closed its end, waits at most [`LAST_WAIT`]: a stopped bridge
/// process does not notice the close.
fn stay(bridge: &UnixStream) {
    let stdin = io::stdin();
    let mut left = None;
    loop {
        let mut watched = vec![PollFd::new(bridge, PollFlags::IN)];
        if left.is_none() {
            // Asks for no event: only the close of the other end is reported.
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

/// Passes the streams to the bridge process and waits until it has finished with them. Returns false if the bridge process retires instead.
fn hand_over(mut bridge: &UnixStream, generation: u32) -> io::Result<bool> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let mut answer = [0];
    // A stopped or hung bridge never answers: the deadline ends the wait.
    bridge.set_read_timeout(Some(LIMIT))?;
    let asked = rights::send(bridge, &generation.to_le_bytes(), &[stdin.as_fd(), stdout.as_fd()]);
    match asked.map_err(io::Error::from).and_then(|_| bridge.read(&mut answer)) {
        Ok(1) if answer[0] == TAKEN => {
            stay(bridge);
            Ok(true)
        }
        // The bridge process retires, or exited at this very moment.
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("the bridge did not answer within {LIMIT:?}")))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Ok(false),
        Err(error) => Err(error),
    }
}
