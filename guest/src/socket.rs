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

/// The kernel accepts no socket address over 108 bytes; through an open directory (`/proc/self/fd`) every address is short.
fn short(directory: &Path, name: &str) -> io::Result<(OwnedFd, PathBuf)> {
    let directory = open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()));
    Ok((directory, path))
}

/// Listens on a socket with this name in a directory.
///
/// # Errors
/// When a file already has that name, or the directory cannot be written.
pub fn bind(directory: &Path, name: &str) -> io::Result<UnixListener> {
    let (_directory, path) = short(directory, name)?;
    UnixListener::bind(path)
}

/// Connects to a socket with this name in a directory. Never waits for a listener that does not accept: a command may have stopped the
/// listener, or may listen there itself.
///
/// # Errors
/// When the socket does not exist or has no listener; [`io::ErrorKind::WouldBlock`] when the listener's queue is full.
pub fn connect(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let (_directory, path) = short(directory, name)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(false)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_accepts_nobody_blocks_nobody() {
        let root = tempfile::tempdir().expect("a directory");
        let address = SocketAddrUnix::new(root.path().join("s")).expect("an address");
        let deaf = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
        rustix::net::bind(&deaf, &address).expect("bound");
        rustix::net::listen(&deaf, 0).expect("listens");
        let tried: Vec<_> = (0..4).map(|_| connect(root.path(), "s")).collect();
        assert!(tried[0].is_ok(), "{tried:?}");
        assert_eq!(tried[3].as_ref().map_err(io::Error::kind).err(), Some(io::ErrorKind::WouldBlock));
    }
}
