//! Sets the limits of one cgroup.

use std::{fs, path::Path};

use rustix::io::Errno;

use super::{Limits, Obstacle, Resource, hierarchy::failed};

/// The period over which the kernel measures CPU time, in microseconds. The kernel's default.
const PERIOD: u64 = 100_000;
/// The least CPU time for each period that the kernel accepts, in microseconds.
const LEAST_QUOTA: u64 = 1000;
/// The most CPU time for each period, in microseconds. The kernel refuses larger values, or they overflow.
const MOST_QUOTA: u64 = (1 << 44) / 1000;

/// Limits one resource of the cgroup at `directory`.
pub(super) fn set(directory: &Path, unified: bool, resource: Resource, limits: &Limits) -> Result<(), Obstacle> {
    let write = |name: &str, value: &str| {
        let file = directory.join(name);
        fs::write(&file, value).map_err(|error| failed(&file, &error))
    };
    match (resource, unified) {
        (Resource::Memory, true) => {
            write("memory.max", &limits.memory_bytes.to_string())?;
            // In the unified hierarchy swap has a limit of its own; 0 makes `memory.max` the limit of both.
            optional(write("memory.swap.max", "0"))
        }
        (Resource::Memory, false) => {
            let bytes = limits.memory_bytes.to_string();
            let both = || {
                write("memory.limit_in_bytes", &bytes)?;
                optional(write("memory.memsw.limit_in_bytes", &bytes))
            };
            // The kernel refuses a memory limit above that of memory with swap, so a growing limit sets the latter first.
            both().or_else(|_| {
                optional(write("memory.memsw.limit_in_bytes", &bytes))?;
                both()
            })
        }
        (Resource::Cpu, true) => write("cpu.max", &format!("{} {PERIOD}", quota(limits.cpus))),
        (Resource::Cpu, false) => {
            write("cpu.cfs_period_us", &PERIOD.to_string())?;
            write("cpu.cfs_quota_us", &quota(limits.cpus).to_string())
        }
        (Resource::Pids, _) => write("pids.max", &limits.pids.to_string()),
    }
}

/// Keeps the processes of a cgroup from forking while they are killed. Best effort: it only makes the removal faster.
pub(super) fn forbid_forks(directory: &Path) {
    if let Err(error) = fs::write(directory.join("pids.max"), "0") {
        tracing::debug!(%error, "cannot keep the processes of a sandbox from forking while they are killed");
    }
}

/// Ignores a missing file: the kernel has the files for swap only if it counts swap.
fn optional(written: Result<(), Obstacle>) -> Result<(), Obstacle> {
    match written {
        Err(Obstacle::Failed { errno: Errno::NOENT, .. }) => Ok(()),
        other => other,
    }
}

/// The CPU time for each period that equals a number of cores, in microseconds.
fn quota(cpus: f64) -> u64 {
    // The conversion saturates, and makes NaN 0.
    ((cpus * PERIOD as f64) as u64).clamp(LEAST_QUOTA, MOST_QUOTA)
}
