//! Unix sockets in directories with long paths.

use std::{
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, open},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with},
};

/// The short path of a socket. The kernel accepts no socket address over 108 bytes; through an open directory (`/proc/self/fd`) every
/// address is short. The path is valid as long as this value lives.
#[derive(Debug)]
pub struct ShortPath {
    path: PathBuf,
    _directory: OwnedFd,
}

impl ShortPath {
    /// The short path of the file with this name in a directory.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn of(directory: &Path, name: &str) -> io::Result<Self> {
        let directory = open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()));
        Ok(Self { path, _directory: directory })
    }
}

impl AsRef<Path> for ShortPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// Listens on a socket with this name in a directory.
///
/// # Errors
/// When a file already has that name, or the directory cannot be written.
pub fn bind(directory: &Path, name: &str) -> io::Result<UnixListener> {
    UnixListener::bind(ShortPath::of(directory, name)?)
}

/// Connects to a socket with this name in a directory. Never waits for a listener that does not accept: a command may have stopped the
/// listener, or may listen there itself.
///
/// # Errors
/// When the socket does not exist or has no listener; [`io::ErrorKind::WouldBlock`] when the listener's queue is full.
pub fn connect(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let path = ShortPath::of(directory, name)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_ref())?)?;
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(false)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn connecting_never_waits_for_an_accept() {
        let root = tempfile::tempdir().unwrap();
        let address = SocketAddrUnix::new(root.path().join("s")).unwrap();
        let deaf = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&deaf, &address).unwrap();
        rustix::net::listen(&deaf, 0).unwrap();
        let tried: Vec<_> = (0..4).map(|_| connect(root.path(), "s")).collect();
        assert!(tried[0].is_ok(), "{tried:?}");
        assert_eq!(tried[3].as_ref().map_err(io::Error::kind).err(), Some(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn sockets_work_in_deep_directories() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        assert!(UnixListener::bind(deep.join("s")).is_err());
        let _listener = bind(&deep, "s").unwrap();
        connect(&deep, "s").unwrap();
    }
}
