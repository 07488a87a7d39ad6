//! The standard streams of a process in a sandbox, as pipes.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use rustix::{
    fs::{Gid, Uid, fchown},
    pipe::{PipeFlags, pipe_with},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite},
    net::unix::pipe::{Receiver, Sender},
};

use errand_runtime::{Chunk, Exec, RuntimeError};

/// The most bytes of one read.
const READ: usize = 32 * 1024;

/// The server's ends of the pipes.
pub(super) struct ServerEnds {
    stdin: Sender,
    stdout: Receiver,
    stderr: Receiver,
}

/// The process's ends: standard input, standard output and standard error.
pub(super) type ProcessEnds = [OwnedFd; 3];

/// Makes the pipes. They belong to the host user `owner`, so that the process can also open them by name, as `/dev/stdout`.
pub(super) fn make(owner: Option<u32>) -> io::Result<(ServerEnds, ProcessEnds)> {
    let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        if let Some(owner) = owner {
            fchown(&read, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
        }
        Ok((read, write))
    };
    let ((stdin, our_stdin), (our_stdout, stdout), (our_stderr, stderr)) = (pipe()?, pipe()?, pipe()?);
    let ours = ServerEnds {
        stdin: Sender::from_owned_fd(our_stdin)?,
        stdout: Receiver::from_owned_fd(our_stdout)?,
        stderr: Receiver::from_owned_fd(our_stderr)?,
    };
    Ok((ours, [stdin, stdout, stderr]))
}

impl ServerEnds {
    /// The streams of a started process, as the runtime hands them out.
    pub(super) fn into_exec(self) -> Exec {
        let output = stream::select(chunks(self.stdout, Chunk::Stdout), chunks(self.stderr, Chunk::Stderr));
        Exec::new(Box::pin(output), Box::pin(Input(Some(self.stdin))))
    }
}

/// The content of a pipe, until its last writer closes it.
fn chunks(from: Receiver, chunk: impl Fn(Bytes) -> Chunk + Copy) -> impl Stream<Item = Result<Chunk, RuntimeError>> {
    stream::try_unfold(from, move |mut from| async move {
        let mut buffer = BytesMut::with_capacity(READ);
        match from.read_buf(&mut buffer).await {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some((chunk(buffer.freeze()), from))),
            Err(error) => {
                Err(RuntimeError::Unavailable { detail: format!("reading the output of a process: {error}") })
            }
        }
    })
}

/// Standard input. Its shutdown closes the pipe.
struct Input(Option<Sender>);

impl AsyncWrite for Input {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(pipe) => Pin::new(pipe).poll_write(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(pipe) => Pin::new(pipe).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}
