//! Joins a process's standard input and standard output into one connection.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

/// Reads from one descriptor and writes to another. Each may be a pipe or a socket.
#[derive(Debug)]
pub(crate) struct Streams {
    input: AsyncFd<OwnedFd>,
    output: AsyncFd<OwnedFd>,
}

impl Streams {
    /// Wraps these descriptors and makes them non-blocking, which affects every process that shares them.
    pub(crate) fn new(input: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        for descriptor in [&input, &output] {
            rustix::io::ioctl_fionbio(descriptor, true)?;
        }
        // SAFETY: each value owns its descriptor and nothing else uses it; the descriptor is deregistered before it is closed.
        #[allow(unsafe_code)]
        unsafe {
            Ok(Self { input: AsyncFd::register(input)?, output: AsyncFd::register(output)? })
        }
    }
}

impl AsyncRead for Streams {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.input.poll_read_ready(context))?;
            let read = ready.try_io(|input| Ok(rustix::io::read(input, buffer.initialize_unfilled())?));
            if let Ok(read) = read {
                buffer.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Streams {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.output.poll_write_ready(context))?;
            if let Ok(written) = ready.try_io(|output| Ok(rustix::io::write(output, bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
