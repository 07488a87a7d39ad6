//! Finds, signals and awaits the processes that keep a sandbox alive, from outside of its pid namespace.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::Deserialize;

use super::record::IncarnationId;

/// The file into which bubblewrap writes the process id of the init.
pub(super) const INFO: &str = "init.json";

/// The content of that file.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "child-pid")]
    child: i32,
}

/// A process, held by a pidfd, so that a later process with the same id is not mistaken for it.
#[derive(Debug)]
pub(super) struct Process(OwnedFd);

impl Process {
    /// The process with this id, if it belongs to that incarnation of a sandbox.
    fn open(pid: i32, incarnation: &IncarnationId) -> Option<Self> {
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // Checked after opening: if the id was recycled before, the arguments are those of the process that the pidfd holds.
        belongs(pid, incarnation).then_some(Self(pidfd))
    }

    /// The init of a sandbox; none when it does not run.
    pub(super) fn init(directory: &Path, incarnation: &IncarnationId) -> Option<Self> {
        let info: Info = serde_json::from_slice(&fs::read(directory.join(INFO)).ok()?).ok()?;
        Self::open(info.child, incarnation)
    }

    /// The launcher, bubblewrap and the init of an incarnation, as far as they run. Commands are not among them.
    pub(super) fn keepers(incarnation: &IncarnationId) -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| belongs(*pid, incarnation)).filter_map(|pid| Self::open(pid, incarnation)).collect()
    }

    /// Sends a signal. Does nothing when the process has ended.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.0, signal);
    }

    /// Waits until the process has ended. False when it has not ended within `limit`.
    pub(super) fn ended_within(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&errand_os::until(deadline))) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Whether a process has the id of the incarnation among its arguments. The id is random, so no other process has it.
fn belongs(pid: i32, incarnation: &IncarnationId) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|arguments| arguments.split(|byte| *byte == 0).any(|argument| argument == incarnation.0.as_bytes()))
}
