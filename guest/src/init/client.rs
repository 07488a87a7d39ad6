//! One request of the server, from its first byte to the last of its answer.

use std::{
    io::{IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::{
    event::PollFlags,
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

use super::child::{Starting, done, failed};
use errand_proto::frame::{self, Decoder};
use errand_proto::init::{InitRequest, InitResponse, Stage, init_request::Kind};

/// How long a request may take to come, and its answer to be taken.
const LIMIT: Duration = Duration::from_secs(10);
/// The largest request, in bytes: what the kernel takes as arguments and environment of a program.
const REQUEST: usize = 2 * 1024 * 1024;
/// The number of the init itself in its sandbox.
const ITSELF: u32 = 1;

/// A connection. It is never waited for.
pub(super) struct Client {
    socket: UnixStream,
    deadline: Instant,
    /// None when there is nothing more to do.
    state: Option<State>,
}

enum State {
    Asking { decoder: Decoder, received: usize, streams: Vec<OwnedFd> },
    Starting(Starting),
    Answering { frame: Vec<u8>, written: usize },
}

impl Client {
    /// A new connection; none when nothing can be done with it.
    pub(super) fn new(socket: OwnedFd) -> Option<Self> {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(true).ok()?;
        let state = State::Asking { decoder: Decoder::default(), received: 0, streams: Vec::new() };
        Some(Self { socket, deadline: Instant::now() + LIMIT, state: Some(state) })
    }

    /// When it is let go, however far it has come.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.state.is_some() && now < self.deadline
    }

    /// What it can go on with.
    pub(super) fn waits_for(&self) -> (BorrowedFd<'_>, PollFlags) {
        match &self.state {
            Some(State::Starting(starting)) => (starting.as_fd(), PollFlags::IN),
            Some(State::Answering { .. }) => (self.socket.as_fd(), PollFlags::OUT),
            Some(State::Asking { .. }) | None => (self.socket.as_fd(), PollFlags::IN),
        }
    }

    /// Goes as far as it can without waiting.
    pub(super) fn go_on(&mut self, stopping: bool) {
        while let Some(state) = self.state.take() {
            let (next, waits) = match state {
                State::Asking { decoder, received, streams } => self.ask(decoder, received, streams, stopping),
                State::Starting(mut starting) => match starting.ended() {
                    Some(answer) => (Some(answering(&answer)), false),
                    None => (Some(State::Starting(starting)), true),
                },
                State::Answering { frame, written } => self.answer(frame, written),
            };
            self.state = next;
            if waits {
                return;
            }
        }
    }

    /// Reads on. Returns what to do next, and whether that has to wait.
    fn ask(
        &self,
        mut decoder: Decoder,
        mut received: usize,
        mut streams: Vec<OwnedFd>,
        stopping: bool,
    ) -> (Option<State>, bool) {
        loop {
            let mut buffer = [0; 16 * 1024];
            match receive(&self.socket, &mut buffer, &mut streams) {
                Ok(0) => return (None, false),
                Ok(read) => {
                    received += read;
                    decoder.push(&buffer[..read]);
                }
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => return (Some(State::Asking { decoder, received, streams }), true),
                Err(_) => return (None, false),
            }
            match decoder.message::<InitRequest>() {
                Ok(Some(request)) => return (Some(begin(request, streams, stopping)), false),
                Ok(None) if received <= REQUEST => {}
                Ok(None) | Err(_) => return (Some(answering(&failed(Stage::Request, Errno::TOOBIG))), false),
            }
        }
    }

    fn answer(&self, frame: Vec<u8>, mut written: usize) -> (Option<State>, bool) {
        loop {
            match (&self.socket).write(&frame[written..]) {
                Ok(more) if written + more < frame.len() && more > 0 => written += more,
                Ok(_) => return (None, false),
                Err(error) => match error.kind() {
                    std::io::ErrorKind::Interrupted => {}
                    std::io::ErrorKind::WouldBlock => return (Some(State::Answering { frame, written }), true),
                    _ => return (None, false),
                },
            }
        }
    }
}

fn begin(request: InitRequest, streams: Vec<OwnedFd>, stopping: bool) -> State {
    match (request.kind, <[OwnedFd; 3]>::try_from(streams)) {
        (_, _) if stopping => answering(&failed(Stage::Stopping, Errno::SRCH)),
        (Some(Kind::Hello(_)), _) => answering(&done(ITSELF)),
        (Some(Kind::Start(start)), Ok(streams)) => match Starting::begin(start, &streams) {
            Ok(starting) => State::Starting(starting),
            Err(answer) => answering(&answer),
        },
        (Some(Kind::Start(_)), Err(_)) | (None, _) => answering(&failed(Stage::Request, Errno::INVAL)),
    }
}

fn answering(answer: &InitResponse) -> State {
    State::Answering { frame: frame::encode(answer), written: 0 }
}

/// Reads what is there, descriptors too. More of them than a request has end the connection.
fn receive(socket: &UnixStream, buffer: &mut [u8], streams: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            streams.extend(descriptors);
        }
    }
    if streams.len() > 3 { Err(Errno::PROTO) } else { Ok(received.bytes) }
}
