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
    process::{Pid, Signal, WaitOptions, wait},
};

use crate::{
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

fn serve(socket: OwnedFd, root: &Path, umask: u32) {
    let _ = rustix::thread::set_name(c"errand-spawner");
    let _ = rustix::process::set_child_subreaper(Pid::from_raw(1));
    let Some(signals) = shim::listen_for_children() else { return };
    let mut socket = Some(socket);
    let mut shims = HashSet::new();
    loop {
        let mut watched = vec![PollFd::new(&signals, PollFlags::IN)];
        watched.extend(socket.as_ref().map(|socket| PollFd::new(socket, PollFlags::IN)));
        if poll(&mut watched, None).is_err() {
            continue;
        }
        let asked = watched.get(1).is_some_and(|socket| !socket.revents().is_empty());
        let died = !watched[0].revents().is_empty();
        if asked && let Some(from) = &socket {
            match receive(from) {
                // SAFETY: there is one thread, so the child may do whatever it likes.
                #[allow(unsafe_code)]
                Ok(Some(control)) => match unsafe { libc::fork() } {
                    0 => {
                        drop((socket, signals));
                        shim::run(control, root, umask);
                        std::process::exit(0)
                    }
                    // The other end of the connection is closed with this one: whoever asked knows.
                    -1 => {}
                    pid => {
                        shims.insert(pid);
                    }
                },
                Ok(None) => socket = None,
                Err(_) => {}
            }
        }
        if died {
            shim::drain(&signals);
            reap(&mut shims);
        }
        if socket.is_none() && shims.is_empty() {
            return;
        }
    }
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
