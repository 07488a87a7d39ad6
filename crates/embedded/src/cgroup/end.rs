//! The end of a cgroup: every process in it, then the directory.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// How long the processes of a sandbox have to be gone after SIGKILL. Only one that the kernel holds up takes that long.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// The longest pause before another look.
const PAUSE: Duration = Duration::from_millis(5);

/// The cgroup and those below it, the lowest first; none when it is not there.
pub(super) fn tree(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut all: Vec<PathBuf> = below.flat_map(|entry| tree(&entry.path())).collect();
    all.push(directory.to_owned());
    all
}

/// The processes in these cgroups.
pub(super) fn processes(directories: &[PathBuf]) -> Vec<i32> {
    let texts = directories.iter().filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok());
    // 0 stands for a process that this one cannot see.
    let mut pids: Vec<i32> =
        texts.flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect();
    pids.retain(|pid| *pid > 0);
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Kills every process in these cgroups and waits until none is left.
pub(super) fn kill(directories: &[PathBuf], deadline: Instant) -> bool {
    loop {
        // All at once where the kernel can do that, so that none escapes by making another.
        for directory in directories {
            if let Err(error) = fs::write(directory.join("cgroup.kill"), "1")
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(%error, directory = %directory.display(), "not killed at once");
            }
        }
        let opened = open(&processes(directories));
        if opened.is_empty() && processes(directories).is_empty() {
            return true;
        }
        // A number that is still listed after its process was taken hold of is that process's: no later one is hit.
        let listed = processes(directories);
        for (pid, process) in &opened {
            if listed.contains(pid) {
                // It may have ended by now.
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
        }
        if Instant::now() >= deadline {
            return false;
        }
        await_one(&opened);
    }
}

fn open(pids: &[i32]) -> Vec<(i32, OwnedFd)> {
    let open = |pid: i32| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?));
    pids.iter().copied().filter_map(open).collect()
}

/// Waits until one of these processes has ended, or a moment.
fn await_one(processes: &[(i32, OwnedFd)]) {
    let mut waits: Vec<PollFd<'_>> = processes.iter().map(|(_, process)| PollFd::new(process, PollFlags::IN)).collect();
    let moment = Timespec { tv_sec: 0, tv_nsec: i64::from(PAUSE.subsec_nanos()) };
    // With no process it is the moment alone. An interruption is a look too early, which does no harm.
    let _ = poll(&mut waits, Some(&moment));
}

/// Removes an empty cgroup. No error when it is not there.
pub(super) fn remove(directory: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // The kernel lets go of a process a moment after it has ended.
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) && Instant::now() < deadline => {
                thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}
