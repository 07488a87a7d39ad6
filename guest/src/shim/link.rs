//! Connections of a shim to bridge processes: one for each call that follows the task or sends it an order.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use errand_proto::bridge::{
    Ended, Free, Over, Process, ShimOrder, ShimReport, Started, Watch, Watching, WriteInputRequest, shim_report::Kind,
};
use errand_proto::frame::{self, Decoder};

use super::watch::Watcher;

/// How long the report of a start may be delayed. The server delays its write of the start just as long.
const TOGETHER: Duration = Duration::from_millis(20);

/// One connection.
pub(super) struct Link {
    socket: UnixStream,
    decoder: Decoder,
    /// What is pending for the current task.
    pub(super) pending: Pending,
    /// Whether this connection may ask for launches.
    launches: bool,
    broken: bool,
}

/// What a connection still has to be told, or still has to give, about one task.
#[derive(Default)]
pub(super) struct Pending {
    /// Set while the other side waits for more output than this position.
    pub(super) follows: Option<u64>,
    /// Input that the other side wants written and the command has not taken yet.
    pub(super) input: Option<WriteInputRequest>,
    /// The start of the command if it is not reported yet, and when it was: the report is delayed so that it can be sent with the next one.
    pub(super) start: Option<(Process, Instant)>,
    /// The search for the watches of the other side.
    pub(super) watcher: Option<Box<Watcher>>,
}

impl Link {
    /// Wraps a connection that was accepted on the socket.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        let (decoder, pending) = (Decoder::default(), Pending::default());
        Ok(Self { socket, decoder, pending, launches: false, broken: false })
    }

    /// Wraps the connection that a shim is started with.
    pub(super) fn first(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { launches: true, ..Self::new(socket)? })
    }

    /// The same connection without anything that is pending for a task.
    pub(super) fn without_task(self) -> Self {
        Self { pending: Pending::default(), ..self }
    }

    /// True if this connection may ask for launches.
    pub(super) fn launches(&self) -> bool {
        self.launches
    }

    /// False when the other side has closed the connection.
    pub(super) fn is_open(&self) -> bool {
        !self.broken
    }

    /// When the report of the start is due on its own.
    pub(super) fn start_due(&self) -> Option<Instant> {
        self.pending.start.map(|(_, made)| made + TOGETHER)
    }

    /// Sends the report of the start now.
    pub(super) fn tell_start(&mut self) {
        self.write(&[]);
    }

    /// Begins to search the output for the other side's watches, and says so.
    pub(super) fn watch(&mut self, watches: Vec<Watch>) {
        if watches.is_empty() {
            self.pending.watcher = None;
            return;
        }
        self.pending.watcher = Watcher::new(watches).map(Box::new);
        if self.pending.watcher.is_some() {
            self.say(Kind::Watching(Watching {}));
        }
    }

    /// Reports matches if it is time; `last`: there is no other time.
    pub(super) fn tell_matches(&mut self, now: Instant, last: bool) {
        if let Some(matched) = self.pending.watcher.as_mut().and_then(|watcher| watcher.matched(now, last)) {
            self.say(Kind::Matched(matched));
        }
    }

    /// Sends a report. Reports are few and small: a connection that has no room for one is closed, because its other side has stopped
    /// reading.
    pub(super) fn say(&mut self, kind: Kind) {
        self.write(&frame::encode(&ShimReport { kind: Some(kind) }));
    }

    /// Reports how the command ended and that nothing follows, in one write, so that the receiver wakes up only once. Where launches may be
    /// asked for, also reports whether this process takes the next one.
    pub(super) fn say_end(&mut self, ended: Ended, over: Over, free: bool) {
        let free = (free && self.launches).then_some(Kind::Free(Free {}));
        let kinds = [Kind::Ended(ended), Kind::Over(over)].into_iter().chain(free);
        let frames: Vec<_> = kinds.map(|kind| frame::encode(&ShimReport { kind: Some(kind) })).collect();
        self.write(&frames.concat());
    }

    fn write(&mut self, frames: &[u8]) {
        let start = self.pending.start.take().map(|(process, made)| {
            let age_us = u64::try_from(made.elapsed().as_micros()).unwrap_or(u64::MAX);
            frame::encode(&ShimReport { kind: Some(Kind::Started(Started { process: Some(process), age_us })) })
        });
        let all = [start.as_deref().unwrap_or_default(), frames].concat();
        if !matches!((&self.socket).write(&all), Ok(written) if written == all.len()) {
            self.broken = true;
        }
    }

    /// The orders that have arrived.
    pub(super) fn orders(&mut self) -> Vec<ShimOrder> {
        let mut buffer = [0u8; 16 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => self.broken = true,
                Ok(read) => {
                    self.decoder.push(&buffer[..read]);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => self.broken = true,
            }
            break;
        }
        let mut orders = Vec::new();
        loop {
            match self.decoder.message::<ShimOrder>() {
                Ok(Some(order)) => orders.push(order),
                Ok(None) => return orders,
                Err(_) => {
                    self.broken = true;
                    return orders;
                }
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delayed_start_report_carries_its_age() {
        let (ours, its) = UnixStream::pair().expect("a pair");
        let mut link = Link::new(its.into()).expect("a link");
        let made = Instant::now() - Duration::from_secs(1);
        link.pending.start = Some((Process { pid: 7, start_ticks: 8 }, made));
        ours.set_nonblocking(true).expect("set");
        assert_eq!((&ours).read(&mut [0]).expect_err("nothing is said").kind(), io::ErrorKind::WouldBlock);
        assert!(link.start_due().expect("it is told at some time") <= Instant::now());

        let ended = Ended { result: "exited 0".to_owned(), usage: None };
        link.say_end(ended.clone(), Over::default(), false);
        let mut buffer = [0; 1024];
        let size = (&ours).read(&mut buffer).expect("all of it");
        let mut decoder = Decoder::default();
        decoder.push(&buffer[..size]);
        let mut said = std::iter::from_fn(|| decoder.message::<ShimReport>().expect("frames")?.kind);
        let Some(Kind::Started(started)) = said.next() else { panic!("the start comes first") };
        assert_eq!(started.process, Some(Process { pid: 7, start_ticks: 8 }));
        assert!(started.age_us >= 1_000_000, "{started:?}");
        assert_eq!(said.collect::<Vec<_>>(), [Kind::Ended(ended), Kind::Over(Over::default())]);
        assert_eq!(link.start_due(), None);
    }
}
