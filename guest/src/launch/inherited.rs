//! Resets the process attributes that a sandbox would inherit from the server, such as niceness and limits.
//!
//! Each is set to what a fresh system gives, as far as this user may. What it may not, such as to be less nice, stays: it is no hindrance.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How much later than asked for the kernel may wake a process, in nanoseconds: its own default.
const SLACK: libc::c_ulong = 50_000;
const MIB: u64 = 1 << 20;

/// Limits as a fresh system has them: what is enforced, and up to where a process may raise that. None: nothing.
const LIMITS: [(Resource, Option<u64>, Option<u64>); 14] = [
    (Resource::As, None, None),
    (Resource::Core, Some(0), None),
    (Resource::Cpu, None, None),
    (Resource::Data, None, None),
    (Resource::Fsize, None, None),
    (Resource::Locks, None, None),
    (Resource::Memlock, Some(8 * MIB), Some(8 * MIB)),
    (Resource::Msgqueue, Some(819_200), Some(819_200)),
    (Resource::Nice, Some(0), Some(0)),
    // What listens on select(2) breaks with more, and what needs more raises it.
    (Resource::Nofile, Some(1024), Some(1_048_576)),
    (Resource::Nproc, None, None),
    (Resource::Rss, None, None),
    (Resource::Rtprio, Some(0), Some(0)),
    (Resource::Stack, Some(8 * MIB), None),
];

/// Resets all that this process passes on but for its user, its descriptors, its signals and its environment.
pub(super) fn reset() {
    schedule();
    let _ = rustix::process::setpriority_process(None, 0);
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    let _ = fs::write("/proc/self/coredump_filter", "0x33");
    for (resource, soft, hard) in LIMITS {
        limit(resource, soft, hard);
    }
}

/// The usual policy of processors and of disks, addresses that are random, the usual timers, and no keys.
fn schedule() {
    // SAFETY: the structure is initialised, and everything else is a number. What fails changes nothing.
    #[allow(unsafe_code)]
    unsafe {
        let usual: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const usual);
        // IOPRIO_WHO_PROCESS, this one, no class: that follows the niceness.
        libc::syscall(libc::SYS_ioprio_set, 1, 0, 0);
        libc::personality(0);
        libc::prctl(libc::PR_SET_TIMERSLACK, SLACK, 0, 0, 0);
        libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0);
        // KEYCTL_JOIN_SESSION_KEYRING: a new one without a name.
        libc::syscall(libc::SYS_keyctl, 1, 0);
    }
}

/// Sets a limit, or comes as near to it as this user may.
fn limit(resource: Resource, soft: Option<u64>, hard: Option<u64>) {
    if setrlimit(resource, Rlimit { current: soft, maximum: hard }).is_ok() {
        return;
    }
    // None is more than any.
    let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
    let maximum = least(hard, getrlimit(resource).maximum);
    let _ = setrlimit(resource, Rlimit { current: least(soft, maximum), maximum });
}
