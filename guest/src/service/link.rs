//! The bridge process's end of a connection to a shim.

use std::{
    io::{self, Write as _},
    os::fd::OwnedFd,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::task_dir::TaskDir;
use errand_os::socket;
use errand_proto::bridge::{Follow, MoreMatches, ShimOrder, ShimReport, Watch, WatchOrder, shim_order, shim_report};
use errand_proto::frame::{self, Decoder};

/// A connection to a shim.
#[derive(Debug)]
pub(super) struct ShimLink {
    socket: UnixStream,
    decoder: Decoder,
}

impl ShimLink {
    /// Makes a new connection and writes the first order to it. Returns the connection, the shim's end of it, and the bytes of the order
    /// that did not fit into the buffer.
    pub(super) fn pair(first: &ShimOrder) -> io::Result<(Self, OwnedFd, Vec<u8>)> {
        let (mut ours, its) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut said = frame::encode(first);
        let written = ours.write(&said)?;
        said.drain(..written);
        Ok((Self::over(ours)?, its.into(), said))
    }

    /// Writes the rest of an order.
    pub(super) async fn go_on(&mut self, rest: &[u8]) -> io::Result<()> {
        self.socket.write_all(rest).await
    }

    /// Connects to a running shim.
    pub(super) fn connect(task: &TaskDir) -> io::Result<Self> {
        Self::over(socket::connect(task.path(), "control")?)
    }

    fn over(socket: std::os::unix::net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixStream::from_std(socket)?, decoder: Decoder::default() })
    }

    /// Sends an order to the shim.
    pub(super) async fn order(&mut self, order: &ShimOrder) -> io::Result<()> {
        self.socket.write_all(&frame::encode(order)).await
    }

    /// Asks for a report once there is more output than `known`.
    pub(super) async fn follow(&mut self, known: u64) -> io::Result<()> {
        self.order(&ShimOrder { kind: Some(shim_order::Kind::Follow(Follow { known })) }).await
    }

    /// Asks the shim to search the output for these watches.
    pub(super) async fn watch(&mut self, watches: Vec<Watch>) -> io::Result<()> {
        self.order(&ShimOrder { kind: Some(shim_order::Kind::Watch(WatchOrder { watches })) }).await
    }

    /// Asks the shim for the next matches.
    pub(super) async fn more_matches(&mut self) -> io::Result<()> {
        self.order(&ShimOrder { kind: Some(shim_order::Kind::MoreMatches(MoreMatches {})) }).await
    }

    /// True while the shim runs and has sent nothing.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.socket.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// True when the shim's last report is that it can take another task.
    pub(super) fn is_free(&mut self) -> bool {
        matches!(self.decoder.message(), Ok(Some(ShimReport { kind: Some(shim_report::Kind::Free(_)) })))
    }

    /// The shim's next report; none when the shim has exited. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<shim_report::Kind> {
        loop {
            match self.decoder.message::<ShimReport>() {
                Ok(Some(ShimReport { kind: Some(kind) })) => return Some(kind),
                // A report that only a newer shim sends.
                Ok(Some(ShimReport { kind: None })) => {}
                Ok(None) => {
                    let mut buffer = [0u8; 4096];
                    match self.socket.read(&mut buffer).await {
                        Ok(read) if read > 0 => self.decoder.push(&buffer[..read]),
                        Ok(_) | Err(_) => return None,
                    }
                }
                Err(_) => return None,
            }
        }
    }
}
