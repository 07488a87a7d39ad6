//! The shim: the process that supervises one task at a time, with its command, log and exit file. It outlives the bridge process that
//! requested it.
//!
//! One thread, one loop, no async runtime: a thousand shims must cost little. Bridge processes connect to its socket at any time; their
//! reports contain nothing that the task directory will not also record.

mod awaits;
mod children;
mod claim;
mod command;
mod input;
mod line;
mod link;
mod log;
mod look;
mod memory;
mod reuse;
pub(crate) mod spare;
mod task;
mod turn;
mod user;
mod watch;

use std::{
    os::fd::{FromRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{event::Timespec, io::Errno};

use errand_proto::bridge::Process;
use link::Link;
use reuse::{FreeShim, Launch};

/// The most free memory, in bytes, that a shim keeps between tasks: more than a launch needs.
const MEMORY: libc::c_int = 1024 * 1024;

/// How long no request must arrive before a process or a directory is prepared for the next task: the preparation must not slow down a
/// command that was just launched.
pub(crate) const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What all tasks of one shim have in common.
struct Place<'a> {
    /// The directory that holds the task directories.
    root: &'a Path,
    /// The umask of the commands.
    umask: u32,
    /// This process.
    shim: Process,
    /// The count of processes killed for lack of memory.
    memory: memory::MemoryKills,
}

/// Supervises the task that is requested on `control`, below `root`, and then the next tasks requested there, as far as [`reuse`] allows.
/// Returns when no more requests can come, or when processes of a task are left after its end.
pub(crate) fn run(control: OwnedFd, root: &Path, umask: u32) {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"errand-shim");
    // Every process that the command leaves behind becomes this process's child, wherever it moves.
    let _ = rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1));
    keep_memory();
    let Some(signals) = listen_for_children() else { return };
    let memory = memory::MemoryKills::open();
    let place = Place { root, umask, shim: claim::identity(std::process::id()), memory };
    let mut free = Link::first(control).ok().map(FreeShim::new);
    while let Some(launch) = free.and_then(|shim| shim.next_launch(root)) {
        free = supervise(launch, &place, &signals);
    }
}

/// Reports on `control` that no process can be made for the task requested there.
pub(crate) fn refuse(control: OwnedFd, errno: Errno) {
    if let Ok(mut link) = Link::first(control) {
        claim::refuse(&mut link, errno);
    }
}

/// Supervises one task to its end. Returns the shim if it may take another task.
fn supervise(launch: Launch, place: &Place<'_>, signals: &OwnedFd) -> Option<FreeShim> {
    let Launch { mut link, mut request, budget } = launch;
    let watches = std::mem::take(&mut request.watches);
    let mut task = claim::launch(&mut link, &request, budget, place)?;
    // The command runs by now: compiling patterns delays only its first output.
    link.watch(watches);
    drop(request);
    let mut links = vec![link];
    while !task.is_over() {
        task = turn::turn(task, &mut links, signals);
    }
    FreeShim::after(task.leave()?, links)
}

/// Keeps memory that one task has freed for the next one. A long task gives it back, see [`task`].
fn keep_memory() {
    // SAFETY: takes two numbers; there is one thread.
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, MEMORY);
    }
}

/// A descriptor that becomes readable when a child changes state. Blocks every other signal: a signal meant for the command must not kill
/// its shim.
pub(crate) fn listen_for_children() -> Option<OwnedFd> {
    // SAFETY: the sets are initialised before they are used; the descriptor is new and has no other owner.
    #[allow(unsafe_code)]
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
        let mut children = std::mem::zeroed();
        libc::sigemptyset(&mut children);
        libc::sigaddset(&mut children, libc::SIGCHLD);
        let descriptor = libc::signalfd(-1, &children, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        (descriptor >= 0).then(|| OwnedFd::from_raw_fd(descriptor))
    }
}

/// Reads and discards the arrived signals; the caller finds out elsewhere which children have ended.
pub(crate) fn drain(signals: &OwnedFd) {
    let mut buffer = [0u8; 128 * 8];
    while matches!(rustix::io::read(signals, &mut buffer), Ok(read) if read > 0) {}
}
