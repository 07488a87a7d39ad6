//! Processes of a sandbox, as this machine sees them.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::Deserialize;

use super::record::Life;

/// The file into which bubblewrap writes the number of the init.
pub(super) const INFO: &str = "init.json";

/// What bubblewrap writes.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "child-pid")]
    child: i32,
}

/// A process that is not mixed up with a later one of the same number.
#[derive(Debug)]
pub(super) struct Process(OwnedFd);

impl Process {
    /// The process of this number, if it belongs to that life of a sandbox.
    fn of(pid: i32, life: &Life) -> Option<Self> {
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // Looked at only now: the number cannot change hands any more without that showing.
        belongs(pid, life).then_some(Self(pidfd))
    }

    /// The init of a sandbox; none when there is none.
    pub(super) fn init(directory: &Path, life: &Life) -> Option<Self> {
        let info: Info = serde_json::from_slice(&fs::read(directory.join(INFO)).ok()?).ok()?;
        Self::of(info.child, life)
    }

    /// Every process that was started to keep a life of a sandbox: whoever makes it, and its init.
    pub(super) fn keepers(life: &Life) -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter(|pid| belongs(*pid, life)).filter_map(|pid| Self::of(pid, life)).collect()
    }

    /// Sends a signal. One that is gone is no matter.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.0, signal);
    }

    /// Waits until it has ended. False when it has not within `limit`.
    pub(super) fn ended_within(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Whether a process has the name of the life among its arguments. That name is nobody else's.
fn belongs(pid: i32, life: &Life) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|arguments| arguments.split(|byte| *byte == 0).any(|argument| argument == life.0.as_bytes()))
}
