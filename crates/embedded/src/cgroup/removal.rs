//! Removes a cgroup: kills every process in it, then removes the directory.

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

/// How long processes may take to end after SIGKILL. Only a process that is blocked in the kernel takes that long.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// The longest pause between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// The cgroup and all cgroups below it, children first; empty when it does not exist.
pub(super) fn subtree(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut all: Vec<PathBuf> = below.flat_map(|entry| subtree(&entry.path())).collect();
    all.push(directory.to_owned());
    all
}

/// The processes in these cgroups.
pub(super) fn processes(directories: &[PathBuf]) -> Vec<i32> {
    let texts = directories.iter().filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok());
    // The kernel lists a process outside of this process's pid namespace as 0.
    let mut pids: Vec<i32> =
        texts.flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect();
    pids.retain(|pid| *pid > 0);
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Kills every process in these cgroups and waits for their ends. False when some have not ended at the deadline.
pub(super) fn kill(directories: &[PathBuf], deadline: Instant) -> bool {
    loop {
        // Kills all processes at once, so that none escapes by forking. Exists in the unified hierarchy since Linux 5.14.
        for directory in directories {
            if let Err(error) = fs::write(directory.join("cgroup.kill"), "1")
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(%error, directory = %directory.display(), "cannot kill all processes of a cgroup at once");
            }
        }
        let opened = open(&processes(directories));
        if opened.is_empty() && processes(directories).is_empty() {
            return true;
        }
        // A pid that is still listed after its pidfd was opened belongs to that pidfd, so no recycled pid is signalled.
        let listed = processes(directories);
        for (pid, process) in &opened {
            if listed.contains(pid) {
                // The process may have ended meanwhile.
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
        }
        if Instant::now() >= deadline {
            return false;
        }
        wait_for_any(&opened);
    }
}

fn open(pids: &[i32]) -> Vec<(i32, OwnedFd)> {
    let open = |pid: i32| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?));
    pids.iter().copied().filter_map(open).collect()
}

/// Waits until one of these processes has ended, at most [`PAUSE`].
fn wait_for_any(processes: &[(i32, OwnedFd)]) {
    let mut waits: Vec<PollFd<'_>> = processes.iter().map(|(_, process)| PollFd::new(process, PollFlags::IN)).collect();
    let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(PAUSE.subsec_nanos()) };
    // An interruption only makes the next attempt early.
    let _ = poll(&mut waits, Some(&pause));
}

/// Removes an empty cgroup. Does nothing when it does not exist.
pub(super) fn remove(directory: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A process counts as a member for a short time after it has ended.
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) && Instant::now() < deadline => {
                thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}
