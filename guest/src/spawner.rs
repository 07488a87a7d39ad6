//! The process that makes shims. It has one thread and next to no memory of its own, so that forking it is cheap and safe.
//!
//! It is forked from the bridge before that has a runtime, and lives as long as it has shims, even when the bridge is gone. What a shim
//! leaves when it is killed becomes a child of the spawner, which kills it: an unwatched command must not run on.

use std::{
    collections::HashSet,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
    pipe::PipeFlags,
    process::{Pid, Signal, WaitOptions, wait},
};

use crate::{
    exec,
    process::{self, Stat},
    shim,
};

/// The way to the spawner.
#[derive(Debug)]
pub(crate) struct Spawner {
    socket: OwnedFd,
}

impl Spawner {
    /// Starts the spawner. This process must have one thread only.
    pub(crate) fn start(root: &Path, umask: u32) -> io::Result<Self> {
        let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // SAFETY: there is one thread, so the child may do whatever it likes.
        #[allow(unsafe_code)]
        match unsafe { libc::fork() } {
            0 => {
                let _ = rustix::process::setsid();
                close_all_but(&its);
                serve(its, root, umask);
                std::process::exit(0)
            }
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(Self { socket: ours }),
        }
    }

    /// Makes a shim and gives it one end of a connection.
    ///
    /// # Errors
    /// When the spawner is gone.
    pub(crate) fn spawn(&self, control: &OwnedFd) -> io::Result<()> {
        let descriptors = [control.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.socket, &[IoSlice::new(b"s")], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Lets go of what belongs to the bridge alone, its lock above all: in the spawner it would outlive the bridge.
fn close_all_but(kept: &OwnedFd) {
    let kept = kept.as_raw_fd().unsigned_abs();
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: nothing of this process is used any more that has one of those descriptors.
            #[allow(unsafe_code)]
            unsafe {
                libc::syscall(libc::SYS_close_range, first, last, 0);
            }
        }
    }
}

/// How many shims wait to be asked: the first request then pays for no fork.
const SPARES: usize = 2;

fn serve(socket: OwnedFd, root: &Path, umask: u32) {
    let _ = rustix::thread::set_name(c"errand-spawner");
    let _ = rustix::process::set_child_subreaper(Pid::from_raw(1));
    exec::default_signals();
    let Some(signals) = shim::listen_for_children() else { return };
    let Ok((taken, take)) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC) else { return };
    shim::spare::make(root);
    let mut shims = HashSet::new();
    let mut spares = HashSet::new();
    let mut bridge_is_there = true;
    // Whether somebody asks while there is no spare.
    let mut asked_in_vain = false;
    // Whether nothing has happened for a while; then a second one is made.
    let mut quiet = true;
    loop {
        let mut refused = None;
        let wanted = if quiet { SPARES } else { 1 };
        while bridge_is_there && spares.len() < wanted {
            // SAFETY: there is one thread, so the child may do whatever it likes.
            #[allow(unsafe_code)]
            match unsafe { libc::fork() } {
                0 => {
                    drop((signals, taken));
                    wait_to_be_asked(socket, take, root, umask);
                    std::process::exit(0)
                }
                // The limit of processes is reached.
                -1 => {
                    refused = Some(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::AGAIN));
                    break;
                }
                pid => {
                    shims.insert(pid);
                    spares.insert(pid);
                }
            }
        }
        if let Some(errno) = refused.filter(|_| asked_in_vain && spares.is_empty())
            && let Ok(Some(control)) = receive(&socket)
        {
            shim::refuse(control, errno);
        }
        let mut watched = vec![PollFd::new(&signals, PollFlags::IN), PollFd::new(&taken, PollFlags::IN)];
        if bridge_is_there {
            // The spares read from it, and this process only when there is none.
            let wanted = if spares.is_empty() { PollFlags::IN } else { PollFlags::empty() };
            watched.push(PollFd::new(&socket, wanted));
        }
        let refills = bridge_is_there && refused.is_none() && spares.len() < SPARES;
        match poll(&mut watched, refills.then_some(&shim::QUIET)) {
            Ok(ready) => quiet = ready == 0,
            Err(_) => continue,
        }
        let says = |index: usize| watched.get(index).map_or(PollFlags::empty(), PollFd::revents);
        let (died, asked, socket_says) = (says(0), says(1), says(2));
        if !asked.is_empty() {
            // Each says its number, in one piece.
            let mut pid = [0; 4];
            if rustix::io::read(&taken, &mut pid) == Ok(pid.len()) {
                spares.remove(&i32::from_ne_bytes(pid));
            }
        }
        asked_in_vain = socket_says.contains(PollFlags::IN);
        if socket_says.contains(PollFlags::HUP) {
            // The spares see it too, and end.
            bridge_is_there = false;
        }
        if !died.is_empty() {
            shim::drain(&signals);
            reap(&mut shims);
            spares.retain(|pid| shims.contains(pid));
        }
        if !bridge_is_there && shims.is_empty() {
            return;
        }
    }
}

/// A spare: becomes a shim when it is asked, and says so before it does.
fn wait_to_be_asked(socket: OwnedFd, take: OwnedFd, root: &Path, umask: u32) {
    let Ok(Some(control)) = rustix::io::retry_on_intr(|| receive(&socket).map_err(|_| Errno::IO)) else { return };
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let _ = rustix::io::write(&take, &pid.to_ne_bytes());
    drop((socket, take));
    shim::run(control, root, umask);
}

/// The next request; none when nobody asks any more.
fn receive(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match descriptor {
        Some(descriptor) => Ok(Some(descriptor)),
        None if received.bytes == 0 => Ok(None),
        None => Err(Errno::INVAL.into()),
    }
}

/// Takes note of the children that have ended, and kills what a killed shim has left.
fn reap(shims: &mut HashSet<i32>) {
    let mut killed = false;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let was_shim = shims.remove(&pid.as_raw_nonzero().get());
        killed |= !was_shim || status.terminating_signal().is_some();
    }
    if killed {
        // Those that their killing hands on to this process are found when that is heard of.
        for orphan in orphans(shims) {
            process::send(orphan.pid, Signal::KILL);
            for below in process::descendants(orphan.pid) {
                process::send(below.pid, Signal::KILL);
            }
        }
    }
}

fn orphans(shims: &HashSet<i32>) -> Vec<Stat> {
    let own = std::process::id();
    let mut all = process::all();
    all.retain(|stat| {
        stat.parent == own && stat.lives() && !i32::try_from(stat.pid).is_ok_and(|pid| shims.contains(&pid))
    });
    all
}
