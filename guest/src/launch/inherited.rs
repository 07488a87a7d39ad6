//! Resets the process attributes that a sandbox would inherit from the server, such as niceness and limits.
//!
//! Sets each to the value that a freshly booted system gives, as far as this user may. A value that this user may not set, such as a lower
//! niceness, stays and is not an error.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The kernel's default timer slack: how much later than requested it may wake a process, in nanoseconds.
const SLACK: libc::c_ulong = 50_000;
const MIB: u64 = 1 << 20;

/// Resource limits of a freshly booted system: the soft limit and the hard limit. None: unlimited.
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
    // Programs that use select(2) break with a higher soft limit; a program that needs more can raise it.
    (Resource::Nofile, Some(1024), Some(1_048_576)),
    (Resource::Nproc, None, None),
    (Resource::Rss, None, None),
    (Resource::Rtprio, Some(0), Some(0)),
    (Resource::Stack, Some(8 * MIB), None),
];

/// Resets everything that this process passes on except its user, descriptors, signals and environment.
pub(super) fn reset() {
    schedule();
    let _ = rustix::process::setpriority_process(None, 0);
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    let _ = fs::write("/proc/self/coredump_filter", "0x33");
    for (resource, soft, hard) in LIMITS {
        limit(resource, soft, hard);
    }
}

/// Sets the default scheduling policy, I/O priority, address randomisation and timer slack, and a new empty keyring.
fn schedule() {
    // SAFETY: the structure is initialised, and everything else is a number. A call that fails changes nothing.
    #[allow(unsafe_code)]
    unsafe {
        let usual: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const usual);
        // IOPRIO_WHO_PROCESS, this process, no class: the I/O priority then follows the niceness.
        libc::syscall(libc::SYS_ioprio_set, 1, 0, 0);
        libc::personality(0);
        libc::prctl(libc::PR_SET_TIMERSLACK, SLACK, 0, 0, 0);
        libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0);
        // KEYCTL_JOIN_SESSION_KEYRING: a new session keyring without a name.
        libc::syscall(libc::SYS_keyctl, 1, 0);
    }
}

/// Sets a limit, or the nearest value that this user may set.
fn limit(resource: Resource, soft: Option<u64>, hard: Option<u64>) {
    if setrlimit(resource, Rlimit { current: soft, maximum: hard }).is_ok() {
        return;
    }
    // None means unlimited, so it is larger than any number.
    let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
    let maximum = least(hard, getrlimit(resource).maximum);
    let _ = setrlimit(resource, Rlimit { current: least(soft, maximum), maximum });
}
