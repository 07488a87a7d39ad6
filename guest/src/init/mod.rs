//! The first process of an embedded sandbox: starts what the server asks for, reaps exited processes, and ends the sandbox on request.
//!
//! One thread and one loop that never waits for a client. The server connects to a socket that was opened outside of the sandbox, so
//! nothing inside can talk to the init. No process inside can read or trace the init. The init knows nothing of tasks.

mod child;
mod client;
mod signals;

use std::{
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{DumpableBehavior, Resource, Rlimit, Signal, WaitOptions, wait},
};

use client::Client;
use signals::Signals;

/// The descriptor of the listening socket.
pub const LISTENER: RawFd = 3;
/// The descriptor that holds the lock. The lock shows that the sandbox lives. The init never uses the descriptor; it only keeps it open.
pub const LOCK: RawFd = 4;
/// How long processes have to end after SIGTERM before they are killed.
const GRACE: Duration = Duration::from_secs(2);
/// The most concurrent clients. Further clients wait to be accepted.
const CLIENTS: usize = 64;

/// Runs as the sandbox's first process until it is told to end. `processes` limits how many processes the sandbox may have, this one
/// included, where nothing else sets such a limit.
///
/// # Errors
/// When the init cannot start.
pub fn run(processes: Option<u64>) -> io::Result<()> {
    // SAFETY: the launcher has put the socket at this number, and nothing else in this process owns it.
    #[allow(unsafe_code)]
    let listener = unsafe { UnixListener::from_raw_fd(LISTENER) };
    listener.set_nonblocking(true)?;
    crate::descriptors::close_on_exec();
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // The name is for process listings only.
    let _ = rustix::thread::set_name(c"errand-init");
    if let Some(processes) = processes {
        let limit = Rlimit { current: Some(processes), maximum: Some(processes) };
        rustix::process::setrlimit(Resource::Nproc, limit)?;
    }
    let signals = Signals::listen()?;
    rustix::stdio::dup2_stderr(std::fs::File::options().write(true).open("/dev/null")?)?;
    Init { listener, signals, clients: Vec::new(), ends: None }.work();
    Ok(())
}

struct Init {
    listener: UnixListener,
    signals: Signals,
    clients: Vec<Client>,
    /// The deadline for the sandbox's end, once the init was told to end it.
    ends: Option<Instant>,
}

impl Init {
    fn work(mut self) {
        loop {
            self.wait();
            let now = Instant::now();
            if self.signals.told_to_end() && self.ends.is_none() {
                self.ends = Some(now + GRACE);
                signals::send_to_all(Signal::TERM);
                // A stopped process cannot handle SIGTERM.
                signals::send_to_all(Signal::CONT);
            }
            let alone = reap();
            if self.ends.is_some_and(|ends| alone || ends <= now) {
                // When the init exits, the kernel kills every process that is left.
                return;
            }
            self.accept();
            let stopping = self.ends.is_some();
            for client in &mut self.clients {
                client.go_on(stopping);
            }
            self.clients.retain(|client| client.is_open(now));
        }
    }

    /// Waits until a client or a signal is ready.
    fn wait(&self) {
        let deadlines = self.clients.iter().map(Client::deadline).chain(self.ends);
        let timeout = deadlines.min().map(errand_os::until);
        let mut watched = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
        if self.clients.len() < CLIENTS {
            watched.push(PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN));
        }
        watched.extend(self.clients.iter().map(|client| {
            let (descriptor, flags): (BorrowedFd<'_>, _) = client.waits_for();
            PollFd::from_borrowed_fd(descriptor, flags)
        }));
        // Every source is checked next, whatever poll returned, even an error.
        let _ = poll(&mut watched, timeout.as_ref());
    }

    fn accept(&mut self) {
        while self.clients.len() < CLIENTS {
            match self.listener.accept() {
                Ok((socket, _)) => self.clients.extend(Client::new(OwnedFd::from(socket))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// Reaps every exited process. Returns true when no process is left.
fn reap() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}
