//! Setting the limits of one cgroup.

use std::{fs, path::Path};

use rustix::io::Errno;

use super::{Hindrance, Limits, Resource, place::failed};

/// The time over which the use of processors is measured, in microseconds. The kernel's own default.
const PERIOD: u64 = 100_000;
/// The shortest time of a period that the kernel gives, in microseconds.
const LEAST_QUOTA: u64 = 1000;

/// The longest that it takes: more is refused, or wraps around to none at all.
const MOST_QUOTA: u64 = (1 << 44) / 1000;

/// Limits one resource of the cgroup at `directory`.
pub(super) fn set(directory: &Path, unified: bool, resource: Resource, limits: &Limits) -> Result<(), Hindrance> {
    let write = |name: &str, value: &str| {
        let file = directory.join(name);
        fs::write(&file, value).map_err(|error| failed(&file, &error))
    };
    match (resource, unified) {
        (Resource::Memory, true) => {
            write("memory.max", &limits.memory_bytes.to_string())?;
            // Swap counts by itself in this tree: none, so that memory is all there is.
            optional(write("memory.swap.max", "0"))
        }
        (Resource::Memory, false) => {
            let bytes = limits.memory_bytes.to_string();
            let both = || {
                write("memory.limit_in_bytes", &bytes)?;
                optional(write("memory.memsw.limit_in_bytes", &bytes))
            };
            // Memory must never be more than memory with swap: a limit that grows takes the other order.
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

/// Keeps the processes of a cgroup from becoming more. It is about to go: nothing depends on this but how fast.
pub(super) fn freeze_number(directory: &Path) {
    if let Err(error) = fs::write(directory.join("pids.max"), "0") {
        tracing::debug!(%error, "a sandbox's processes may go on to multiply while they are killed");
    }
}

/// A file that is there only when the kernel counts swap.
fn optional(written: Result<(), Hindrance>) -> Result<(), Hindrance> {
    match written {
        Err(Hindrance::Failed { errno: Errno::NOENT, .. }) => Ok(()),
        other => other,
    }
}

/// Microseconds of a period for so many cores.
fn quota(cpus: f64) -> u64 {
    // From a float: what is too large or not a number ends at the bounds.
    ((cpus * PERIOD as f64) as u64).clamp(LEAST_QUOTA, MOST_QUOTA)
}
