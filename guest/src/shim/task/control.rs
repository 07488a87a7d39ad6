//! The socket `control` in the task directory, at which later bridge processes find the shim.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixListener,
    },
    time::Instant,
};

use crate::{shim::link::Link, task_dir::TaskDir};

/// The name of the socket in the task directory.
const CONTROL: &str = "control";

/// The socket.
pub(super) enum ControlSocket {
    /// Opens at this time.
    Later(Instant),
    /// Open.
    Open(UnixListener),
    /// Could not be opened. Bridge processes cannot reach this task, but it goes on: the files still record how it ends.
    Failed,
}

impl ControlSocket {
    /// Opens the socket.
    pub(super) fn open(directory: &TaskDir) -> Self {
        let listen = || -> io::Result<UnixListener> {
            let listener = errand_os::socket::bind(directory.path(), CONTROL)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        listen().map_or(Self::Failed, Self::Open)
    }

    /// Removes the socket, if it was opened.
    pub(super) fn close(self, directory: &TaskDir) {
        if let Self::Open(_) = self {
            let _ = fs::remove_file(directory.file(CONTROL));
        }
    }

    /// When to open the socket.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Later(at) => Some(*at),
            Self::Open(_) | Self::Failed => None,
        }
    }

    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Open(listener) => Some(listener.as_fd()),
            Self::Later(_) | Self::Failed => None,
        }
    }

    /// The next connection.
    pub(super) fn accept(&self) -> Option<Link> {
        match self {
            Self::Open(listener) => Link::new(listener.accept().ok()?.0.into()).ok(),
            Self::Later(_) | Self::Failed => None,
        }
    }
}
