//! Applies the limits of a sandbox through its cgroup, and refuses a requested limit that the host cannot enforce.

use super::{
    cgroup::{Cgroup, Cgroups, Limits, Resource, Unenforced},
    error::refused,
    record::Record,
};
use errand_runtime::{Asked, RuntimeError};

/// Makes the cgroup of a sandbox with the limits of its record.
///
/// # Errors
/// [`RuntimeError::Refused`] when a limit that the caller asked for cannot be enforced. No cgroup remains then.
pub(super) fn apply(record: &Record, asked: Asked) -> Result<Cgroup, RuntimeError> {
    let spec = &record.spec;
    let limits = Limits { memory_bytes: spec.memory_bytes, cpus: spec.cpus, pids: spec.pids_limit };
    let cgroups = Cgroups::detect();
    let cgroup =
        cgroups.make(&record.runtime_id(), &limits).map_err(|error| refused("the sandbox's cgroup", &error))?;
    for limit in &cgroup.unenforced {
        tracing::debug!(sandbox = %record.name, %limit, "no cgroup enforces this limit");
    }
    match refusal(&cgroup.unenforced, asked) {
        None => Ok(cgroup),
        Some(detail) => {
            // No process has joined the cgroup yet, so only an empty directory could remain.
            let _ = cgroups.remove(&record.runtime_id());
            Err(RuntimeError::Refused { detail })
        }
    }
}

/// The message for requested limits that are not enforced; none when all of them are.
fn refusal(unenforced: &[Unenforced], asked: Asked) -> Option<String> {
    let field = |resource: Resource| match resource {
        Resource::Memory => asked.memory.then_some("memory_bytes"),
        Resource::Cpu => asked.cpus.then_some("cpus"),
        // Without a cgroup, a resource limit of the sandbox's user bounds the number of processes.
        Resource::Pids => None,
    };
    let unmet: Vec<String> =
        unenforced.iter().filter_map(|limit| Some(format!("{}: {}", field(limit.resource)?, limit.obstacle))).collect();
    (!unmet.is_empty()).then(|| {
        let unmet = unmet.join("; ");
        format!("this host cannot enforce a requested limit: {unmet}; leave the field out to go without the limit, or run: errand doctor")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;
    use crate::cgroup::Obstacle;

    #[test]
    fn only_requested_unenforced_limits_are_refused() {
        let unenforced = Resource::ALL.map(|resource| Unenforced { resource, obstacle: Obstacle::ReadOnly });
        assert_eq!(refusal(&unenforced, Asked::default()), None);
        assert_eq!(refusal(&[], Asked { memory: true, cpus: true, pids: true }), None);
        let message = refusal(&unenforced, Asked { cpus: true, ..Asked::default() }).unwrap();
        assert!(message.contains("cpus: the cgroup file system is read-only"), "{message}");
        assert!(!message.contains("memory_bytes") && !message.contains("pids"), "{message}");
    }
}
