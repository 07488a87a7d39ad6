//! One request of the server, from its first byte to the last byte of the response.

use std::{
    io::Write as _,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::{event::PollFlags, io::Errno};

use super::child::{Starting, done, failed};
use errand_proto::frame::{self, Decoder};
use errand_proto::init::{InitRequest, InitResponse, Stage, init_request::Kind};

/// How long the server may take to send a request and to read its response.
const LIMIT: Duration = Duration::from_secs(10);
/// The largest request in bytes: the kernel's limit for the arguments and environment of a program.
const REQUEST: usize = 2 * 1024 * 1024;
/// The init's own process id in its sandbox.
const ITSELF: u32 = 1;

/// A connection. Reads and writes never block.
pub(super) struct Client {
    socket: UnixStream,
    deadline: Instant,
    /// None when the connection is finished.
    state: Option<State>,
}

enum State {
    Asking { decoder: Decoder, received: usize, streams: Vec<OwnedFd> },
    Starting(Starting),
    Answering { frame: Vec<u8>, written: usize },
}

impl Client {
    /// Wraps a new connection; none when the socket cannot be used.
    pub(super) fn new(socket: OwnedFd) -> Option<Self> {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(true).ok()?;
        let state = State::Asking { decoder: Decoder::default(), received: 0, streams: Vec::new() };
        Some(Self { socket, deadline: Instant::now() + LIMIT, state: Some(state) })
    }

    /// When the connection is closed, even if its request is not complete.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.state.is_some() && now < self.deadline
    }

    /// The events for which the connection waits.
    pub(super) fn waits_for(&self) -> (BorrowedFd<'_>, PollFlags) {
        match &self.state {
            Some(State::Starting(starting)) => (starting.as_fd(), PollFlags::IN),
            Some(State::Answering { .. }) => (self.socket.as_fd(), PollFlags::OUT),
            Some(State::Asking { .. }) | None => (self.socket.as_fd(), PollFlags::IN),
        }
    }

    /// Goes on with the request as far as possible without blocking.
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

    /// Reads more of the request. Returns the next state, and whether the connection must wait.
    fn ask(
        &self,
        mut decoder: Decoder,
        mut received: usize,
        mut streams: Vec<OwnedFd>,
        stopping: bool,
    ) -> (Option<State>, bool) {
        loop {
            let mut buffer = [0; 16 * 1024];
            match errand_os::rights::receive(&self.socket, &mut buffer, &mut streams) {
                Ok(0) => return (None, false),
                // More descriptors than a request has.
                Ok(_) if streams.len() > 3 => return (None, false),
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
