//! The process that forks shims. It has one thread and very little memory, so that forking it is cheap and safe.
//!
//! The bridge process forks it before it starts its async runtime. The spawner lives as long as it has shims, even after the bridge process
//! exits. When a shim is killed, the shim's children become children of the spawner, and the spawner kills them: no command may run without
//! supervision.
//!
//! It has two phases: [`serving`], while its bridge process lives, and [`orphaned`] afterwards.

mod orphaned;
mod serving;
mod shims;

use std::{
    io,
    ops::ControlFlow,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::Pid,
};

use crate::{descriptors, exec};
use serving::{Place, Serving};

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
                // Above all the lock: the spawner would hold the lock after the bridge process exits.
                descriptors::close_all_but(&its);
                run(its, Place { root, umask });
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
        errand_os::rights::send(&self.socket, b"s", &[control.as_fd()])?;
        Ok(())
    }
}

/// The main function of the spawner.
fn run(socket: OwnedFd, place: Place<'_>) {
    let _ = rustix::thread::set_name(c"errand-spawner");
    let _ = rustix::process::set_child_subreaper(Pid::from_raw(1));
    exec::default_signals();
    let Some(mut serving) = Serving::begin(socket, place) else { return };
    let orphaned = loop {
        match serving.turn() {
            ControlFlow::Continue(next) => serving = next,
            ControlFlow::Break(orphaned) => break orphaned,
        }
    };
    orphaned.stay();
}
