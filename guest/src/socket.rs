//! Unix sockets in directories with long names.

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

/// Connects to a socket of this name in a directory. Does not wait for a listener that takes nobody in: a command may have stopped it, or
/// listen there itself.
///
/// # Errors
/// When there is none, or nobody listens there; [`io::ErrorKind::WouldBlock`] when too many wait there already.
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
