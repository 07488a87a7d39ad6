//! The spawner while its bridge process lives: it keeps shims ready, so that a request does not wait for a fork.

use std::{collections::HashSet, io, ops::ControlFlow, os::fd::OwnedFd, path::Path};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    pipe::PipeFlags,
};

use super::{orphaned::Orphaned, shims::Shims};
use crate::shim;

/// How many shims are kept ready: the first request then does not wait for a fork.
const SPARES: usize = 2;

/// What all shims of a spawner have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The directory that holds the task directories.
    pub(super) root: &'a Path,
    /// The umask of the commands.
    pub(super) umask: u32,
}

/// The phase.
pub(super) struct Serving<'a> {
    place: Place<'a>,
    /// The bridge process's requests. The spares read them.
    socket: OwnedFd,
    /// Becomes readable when a child changes state.
    signals: OwnedFd,
    /// Each spare that takes a request writes its pid here.
    take: OwnedFd,
    /// The other end of `take`.
    taken: OwnedFd,
    shims: Shims,
    /// The shims that wait for a request.
    spares: HashSet<i32>,
    lately: Lately,
}

/// What happened in the last iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lately {
    /// Nothing for a while; only then is a second spare forked.
    Quiet,
    Busy,
    /// A request arrived while there was no spare.
    AskedInVain,
}

/// The events that the spawner waits for.
struct Ready {
    children: bool,
    taken: bool,
    asked: bool,
    /// The bridge process has closed its end, or has exited.
    hung_up: bool,
    nothing: bool,
}

impl<'a> Serving<'a> {
    /// Prepares to serve the requests on `socket`. None when the kernel refuses the descriptors for that.
    pub(super) fn begin(socket: OwnedFd, place: Place<'a>) -> Option<Self> {
        let signals = shim::listen_for_children()?;
        let (taken, take) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).ok()?;
        shim::spare::make(place.root);
        let (shims, spares) = (Shims::default(), HashSet::new());
        Some(Self { place, socket, signals, take, taken, shims, spares, lately: Lately::Quiet })
    }

    /// Forks the missing spares, waits until something happens, and handles it.
    pub(super) fn turn(self) -> ControlFlow<Orphaned, Self> {
        let (mut serving, forked) = self.refill();
        if let Err(errno) = forked {
            serving.refuse_request(errno);
        }
        let Ok(ready) = serving.wait(forked.is_ok()) else { return ControlFlow::Continue(serving) };
        if ready.taken {
            serving.note_taken();
        }
        serving.lately = match ready {
            Ready { asked: true, .. } => Lately::AskedInVain,
            Ready { nothing: true, .. } => Lately::Quiet,
            _ => Lately::Busy,
        };
        if ready.children {
            shim::drain(&serving.signals);
            serving.shims.reap();
            serving.spares.retain(|pid| serving.shims.contains(*pid));
        }
        if ready.hung_up {
            // The spares see the end of the socket too, and exit.
            return ControlFlow::Break(Orphaned::new(serving.signals, serving.shims));
        }
        ControlFlow::Continue(serving)
    }

    /// Forks the missing spares. The result is the kernel's error when it makes no process, as at the limit of processes.
    fn refill(mut self) -> (Self, Result<(), Errno>) {
        let wanted = if self.lately == Lately::Quiet { SPARES } else { 1 };
        while self.spares.len() < wanted {
            // SAFETY: there is one thread, so the child may call any function.
            #[allow(unsafe_code)]
            match unsafe { libc::fork() } {
                0 => {
                    let Self { place, socket, signals, take, taken, .. } = self;
                    drop((signals, taken));
                    wait_to_be_asked(socket, take, place);
                    std::process::exit(0)
                }
                -1 => {
                    let errno = Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::AGAIN);
                    return (self, Err(errno));
                }
                pid => {
                    self.shims.insert(pid);
                    self.spares.insert(pid);
                }
            }
        }
        (self, Ok(()))
    }

    /// Refuses a request that no spare can take, because no process can be made.
    fn refuse_request(&self, errno: Errno) {
        if self.lately == Lately::AskedInVain
            && self.spares.is_empty()
            && let Ok(Some(control)) = receive(&self.socket)
        {
            shim::refuse(control, errno);
        }
    }

    /// Waits for an event. `may_fork`: the last fork was not refused.
    fn wait(&self, may_fork: bool) -> Result<Ready, Errno> {
        // The spares read requests from the socket. This process reads from it only when it has no spare.
        let requests = if self.spares.is_empty() { PollFlags::IN } else { PollFlags::empty() };
        let mut watched = [
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.taken, PollFlags::IN),
            PollFd::new(&self.socket, requests),
        ];
        let refills = may_fork && self.spares.len() < SPARES;
        let count = poll(&mut watched, refills.then_some(&shim::QUIET))?;
        let [signals, taken, socket] = watched.map(|entry| entry.revents());
        Ok(Ready {
            children: !signals.is_empty(),
            taken: !taken.is_empty(),
            asked: socket.contains(PollFlags::IN),
            hung_up: socket.contains(PollFlags::HUP),
            nothing: count == 0,
        })
    }

    /// Reads which spare has taken a request. Each pid was written in one write of 4 bytes.
    fn note_taken(&mut self) {
        let mut pid = [0; 4];
        if rustix::io::read(&self.taken, &mut pid) == Ok(pid.len()) {
            self.spares.remove(&i32::from_ne_bytes(pid));
        }
    }
}

/// The main function of a spare: waits for a request, announces that it took the request, then becomes a shim.
fn wait_to_be_asked(socket: OwnedFd, take: OwnedFd, place: Place<'_>) {
    let Ok(Some(control)) = rustix::io::retry_on_intr(|| receive(&socket)) else { return };
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let _ = rustix::io::write(&take, &pid.to_ne_bytes());
    drop((socket, take));
    shim::run(control, place.root, place.umask);
}

/// The next request; none when the other end is closed.
fn receive(socket: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let mut descriptors = Vec::new();
    let received = errand_os::rights::receive(socket, &mut [0], &mut descriptors)?;
    match descriptors.pop() {
        Some(descriptor) => Ok(Some(descriptor)),
        None if received == 0 => Ok(None),
        None => Err(Errno::INVAL),
    }
}
