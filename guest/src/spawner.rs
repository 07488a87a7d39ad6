//! The process that forks shims. It has one thread and very little memory, so that forking it is cheap and safe.
//!
//! The bridge process forks it before it starts its async runtime. The spawner lives as long as it has shims, even after the bridge process
//! exits. When a shim is killed, the shim's children become children of the spawner, and the spawner kills them: no command may run without
//! supervision.

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

/// The bridge process's handle on the spawner.
#[derive(Debug)]
pub(crate) struct Spawner {
    socket: OwnedFd,
}

impl Spawner {
    /// Starts the spawner. The calling process must have only one thread.
    pub(crate) fn start(root: &Path, umask: u32) -> io::Result<Self> {
        let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // SAFETY: there is one thread, so the child may call any function.
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

    /// Requests a shim and passes it one end of a connection.
    ///
    /// # Errors
    /// When the spawner has exited.
    pub(crate) fn spawn(&self, control: &OwnedFd) -> io::Result<()> {
        let descriptors = [control.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.socket, &[IoSlice::new(b"s")], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Closes every descriptor that belongs to the bridge process alone, above all its lock: the spawner would hold the lock after the bridge
/// process exits.
fn close_all_but(kept: &OwnedFd) {
    let kept = kept.as_raw_fd().unsigned_abs();
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: this process no longer uses anything that owns one of those descriptors.
            #[allow(unsafe_code)]
            unsafe {
                libc::syscall(libc::SYS_close_range, first, last, 0);
            }
        }
    }
}

/// How many shims are kept ready: the first request then does not wait for a fork.
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
    // Whether a request is waiting while no spare exists.
    let mut asked_in_vain = false;
    // Whether nothing has happened for a while; only then is a second spare forked.
    let mut quiet = true;
    loop {
        let mut refused = None;
        let wanted = if quiet { SPARES } else { 1 };
        while bridge_is_there && spares.len() < wanted {
            // SAFETY: there is one thread, so the child may call any function.
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
            // The spares read requests from the socket. This process reads from it only when it has no spare.
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
            // Each spare that takes a request writes its pid, in one write of 4 bytes.
            let mut pid = [0; 4];
            if rustix::io::read(&taken, &mut pid) == Ok(pid.len()) {
                spares.remove(&i32::from_ne_bytes(pid));
            }
        }
        asked_in_vain = socket_says.contains(PollFlags::IN);
        if socket_says.contains(PollFlags::HUP) {
            // The spares see the end of the socket too, and exit.
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

/// The main function of a spare: waits for a request, announces that it took the request, then becomes a shim.
fn wait_to_be_asked(socket: OwnedFd, take: OwnedFd, root: &Path, umask: u32) {
    let Ok(Some(control)) = rustix::io::retry_on_intr(|| receive(&socket).map_err(|_| Errno::IO)) else { return };
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let _ = rustix::io::write(&take, &pid.to_ne_bytes());
    drop((socket, take));
    shim::run(control, root, umask);
}

/// The next request; none when the other end is closed.
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

/// Reaps the children that have exited, and kills the processes left by a killed shim.
fn reap(shims: &mut HashSet<i32>) {
    let mut killed = false;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let was_shim = shims.remove(&pid.as_raw_nonzero().get());
        killed |= !was_shim || status.terminating_signal().is_some();
    }
    if killed {
        // Children of these orphans become children of this process in turn; the next call finds them.
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
