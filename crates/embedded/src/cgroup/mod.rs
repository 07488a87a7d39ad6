//! Cgroups of sandboxes: they limit memory, CPU time and processes, and find every process of a sandbox that is removed.
//!
//! Supports the separate hierarchies of cgroup v1, the unified hierarchy of v2, and both at once; as root, or in a part that is delegated
//! to an ordinary user. A limit that cannot be enforced is reported, never dropped silently. Everything here blocks.

mod hierarchy;
mod limits;
mod memory_kills;
mod mounts;
mod obstacle;
mod removal;
#[cfg(test)]
mod tests;

use std::{fs, path::PathBuf, time::Instant};

use hierarchy::Hierarchy;
pub(super) use memory_kills::MemoryKills;
use mounts::{Mount, Version};
pub(super) use obstacle::{CgroupError, Obstacle, Unenforced};

/// What a sandbox may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    /// Memory including swap, in bytes.
    pub(super) memory_bytes: u64,
    /// CPU time, in cores.
    pub(super) cpus: f64,
    /// The most processes and threads at a time.
    pub(super) pids: u64,
}

/// A resource that can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    /// Memory including swap.
    Memory,
    /// CPU time.
    Cpu,
    /// Processes and threads.
    Pids,
}

impl Resource {
    /// All resources.
    pub(super) const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    /// The kernel's name of the controller that limits it.
    pub(super) fn controller(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }
}

/// The cgroup of one sandbox, in every hierarchy.
#[derive(Debug)]
pub(super) struct Cgroup {
    /// The `cgroup.procs` file of each hierarchy: a process that writes its process id there joins. Empty when no hierarchy is usable.
    pub(super) procs: Vec<PathBuf>,
    /// The limits that are not enforced.
    pub(super) unenforced: Vec<Unenforced>,
}

/// The cgroup hierarchies of the host that this process may use.
#[derive(Debug)]
pub(super) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    unenforced: Vec<Unenforced>,
}

impl Cgroups {
    /// Finds the usable hierarchies. Changes nothing.
    pub(super) fn detect() -> Self {
        // An unreadable file means that no hierarchy is known, which every resource then reports as its obstacle.
        let [mountinfo, cgroup] =
            ["mountinfo", "cgroup"].map(|name| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default());
        Self::choose(&mounts::find(&mountinfo, &cgroup))
    }

    fn choose(mounts: &[Mount]) -> Self {
        let (mut hierarchies, mut unenforced) = (Vec::<Hierarchy>::new(), Vec::new());
        let unified = mounts.iter().find(|mount| mount.version == Version::Two);
        // Even without a controller, the unified hierarchy lists a sandbox's processes and kills them all at once.
        let unified = unified.map(|mount| Hierarchy::choose(mount, Vec::new()));
        for resource in Resource::ALL {
            let has = |mount: &&Mount| matches!(&mount.version, Version::One(options) if options.iter().any(|option| option == resource.controller()));
            let chosen = match (mounts.iter().find(has), &unified) {
                (Some(mount), _) => Hierarchy::choose(mount, vec![resource]),
                (None, Some(Ok(unified))) if unified.offers(resource) => Ok(unified.with(resource)),
                (None, Some(Ok(unified))) => Err(Obstacle::NotOffered { directory: unified.base.clone() }),
                (None, Some(Err(obstacle))) => Err(obstacle.clone()),
                (None, None) => Err(Obstacle::NotMounted),
            };
            match chosen {
                Ok(hierarchy) => merge(&mut hierarchies, hierarchy),
                Err(obstacle) => unenforced.push(Unenforced { resource, obstacle }),
            }
        }
        if let Some(Ok(unified)) = unified {
            merge(&mut hierarchies, unified);
        }
        Self { hierarchies, unenforced }
    }

    /// Why a resource cannot be limited; none when it can.
    pub(super) fn obstacle(&self, resource: Resource) -> Option<&Obstacle> {
        self.unenforced.iter().find(|limit| limit.resource == resource).map(|limit| &limit.obstacle)
    }

    /// The directory below which a resource is limited, for display.
    pub(super) fn location(&self, resource: Resource) -> String {
        let hierarchy = self.hierarchies.iter().find(|hierarchy| hierarchy.resources.contains(&resource));
        hierarchy.map(|hierarchy| hierarchy.parent().display().to_string()).unwrap_or_default()
    }

    /// Makes the cgroup of a sandbox, or reuses an existing one, and sets its limits. A limit that cannot be enforced is no error; the
    /// result lists it.
    ///
    /// # Errors
    /// [`CgroupError::InvalidName`].
    pub(super) fn make(&self, name: &str, limits: &Limits) -> Result<Cgroup, CgroupError> {
        check_name(name)?;
        let mut cgroup = Cgroup { procs: Vec::new(), unenforced: self.unenforced.clone() };
        for hierarchy in &self.hierarchies {
            let directory = match hierarchy.make(name) {
                Ok(directory) => directory,
                Err(obstacle) => {
                    let lost = |resource: &Resource| Unenforced { resource: *resource, obstacle: obstacle.clone() };
                    cgroup.unenforced.extend(hierarchy.resources.iter().map(lost));
                    continue;
                }
            };
            for resource in &hierarchy.resources {
                if let Err(obstacle) = limits::set(&directory, hierarchy.unified, *resource, limits) {
                    cgroup.unenforced.push(Unenforced { resource: *resource, obstacle });
                }
            }
            cgroup.procs.push(directory.join("cgroup.procs"));
        }
        Ok(cgroup)
    }

    /// The counters of memory kills; none when memory is not limited.
    pub(super) fn memory_kills(&self) -> Option<MemoryKills> {
        let hierarchy = self.hierarchies.iter().find(|hierarchy| hierarchy.resources.contains(&Resource::Memory))?;
        let file = if hierarchy.unified { "memory.events" } else { "memory.oom_control" };
        Some(MemoryKills { parent: hierarchy.parent(), file })
    }

    /// The processes in the cgroup of a sandbox; none when it has no cgroup.
    #[cfg(test)]
    pub(super) fn processes(&self, name: &str) -> Vec<i32> {
        if check_name(name).is_err() {
            return Vec::new();
        }
        removal::processes(&self.directories(name))
    }

    /// Kills every process in the cgroup of a sandbox, and removes it. Does nothing when there is none.
    ///
    /// # Errors
    /// [`CgroupError::InvalidName`]; [`CgroupError::ProcessesRemain`] or [`CgroupError::NotRemoved`] when a part of it remains. A later
    /// call continues the removal.
    pub(super) fn remove(&self, name: &str) -> Result<(), CgroupError> {
        check_name(name)?;
        let deadline = Instant::now() + removal::DEADLINE;
        let directories = self.directories(name);
        for hierarchy in self.hierarchies.iter().filter(|hierarchy| hierarchy.resources.contains(&Resource::Pids)) {
            limits::forbid_forks(&hierarchy.of(name));
        }
        if !removal::kill(&directories, deadline) {
            return Err(CgroupError::ProcessesRemain { pids: removal::processes(&directories) });
        }
        for path in directories {
            removal::remove(&path, deadline).map_err(|source| CgroupError::NotRemoved { path, source })?;
        }
        for hierarchy in &self.hierarchies {
            // Fails while other sandboxes have cgroups in it; the removal of the last one succeeds.
            let _ = fs::remove_dir(hierarchy.parent());
        }
        Ok(())
    }

    /// The cgroup of a sandbox and all cgroups below it, in every hierarchy, children first.
    fn directories(&self, name: &str) -> Vec<PathBuf> {
        self.hierarchies.iter().flat_map(|hierarchy| removal::subtree(&hierarchy.of(name))).collect()
    }
}

/// Adds a hierarchy, or its resources to the same hierarchy.
fn merge(hierarchies: &mut Vec<Hierarchy>, hierarchy: Hierarchy) {
    match hierarchies.iter_mut().find(|known| known.base == hierarchy.base) {
        Some(known) => known.resources.extend(hierarchy.resources),
        None => hierarchies.push(hierarchy),
    }
}

/// Checks that a name means one directory directly below the parent cgroup.
fn check_name(name: &str) -> Result<(), CgroupError> {
    let plain = !name.is_empty() && name.len() <= 255 && !matches!(name, "." | "..") && !name.contains(['/', '\0']);
    if plain { Ok(()) } else { Err(CgroupError::InvalidName { name: name.to_owned() }) }
}
