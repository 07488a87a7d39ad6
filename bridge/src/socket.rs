//! Unix sockets in directories with long names.

use std::{
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, open};

/// The kernel takes no address over 108 bytes; through an open directory every name is short.
fn short(directory: &Path, name: &str) -> io::Result<(OwnedFd, PathBuf)> {
    let directory = open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()));
    Ok((directory, path))
}

/// Listens at a socket of this name in a directory.
///
/// # Errors
/// When there is something of that name, or the directory cannot be written.
pub fn bind(directory: &Path, name: &str) -> io::Result<UnixListener> {
    let (_directory, path) = short(directory, name)?;
    UnixListener::bind(path)
}

/// Connects to a socket of this name in a directory.
///
/// # Errors
/// When there is none, or nobody listens there.
pub fn connect(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let (_directory, path) = short(directory, name)?;
    UnixStream::connect(path)
}
