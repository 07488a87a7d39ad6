//! Cgroups of sandboxes: limits of memory, processors and processes, and the certainty that a removed sandbox leaves no process.
//!
//! Small code over files. It knows the many trees of old, the one of today, and both beside each other, as root or with what was handed
//! to an ordinary user. What cannot be limited is said, never passed over. Everything here blocks: call it where that is allowed.

mod end;
mod limits;
mod mounts;
mod place;
#[cfg(test)]
mod tests;

use std::{fmt, fs, io, path::PathBuf, time::Instant};

use mounts::{Mount, Version};
use place::Place;
use rustix::io::Errno;

/// What a sandbox may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    /// Memory with swap, in bytes.
    pub(super) memory_bytes: u64,
    /// Processors, in cores.
    pub(super) cpus: f64,
    /// The most processes and threads at a time.
    pub(super) pids: u64,
}

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    /// Memory.
    Memory,
    /// Time of processors.
    Cpu,
    /// Processes.
    Pids,
}

impl Resource {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    /// The kernel's name of what limits it.
    pub(super) fn controller(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }
}

/// Why something cannot be limited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Hindrance {
    /// The kernel has no such controller, or it is nowhere to be seen.
    #[error("no cgroup file system with it is mounted")]
    NotMounted,
    /// As in most containers.
    #[error("the cgroup file system is read-only")]
    ReadOnly,
    /// Nobody handed a part of the tree to this user.
    #[error("this user may not make cgroups in {}", directory.display())]
    NotPermitted {
        /// The lowest cgroup that was looked at.
        directory: PathBuf,
        /// Whether parts of this tree can be handed to users at all.
        unified: bool,
    },
    /// The part of the tree that may be written comes without it.
    #[error("{} does not offer the controller", directory.display())]
    NotOffered {
        /// The cgroup in question.
        directory: PathBuf,
    },
    /// Controllers are passed on only where no process is, and others than the server are there.
    #[error("other processes are in the cgroup {}", directory.display())]
    Occupied {
        /// The cgroup in question.
        directory: PathBuf,
    },
    /// The kernel refused.
    #[error("{}: {errno}", path.display())]
    Failed {
        /// What could not be made, read or written.
        path: PathBuf,
        /// Why not.
        errno: Errno,
    },
}

/// Something that is not limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    /// What.
    pub(super) resource: Resource,
    /// Why not.
    pub(super) why: Hindrance,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.resource.controller(), self.why)
    }
}

/// Why a cgroup was not made, or not removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CgroupError {
    /// The name is not that of one directory.
    #[error("{name:?} is no name of a cgroup: a name of 1 to 255 bytes without / is")]
    Name {
        /// As given.
        name: String,
    },
    /// Processes are left that do not end.
    #[error("after SIGKILL the processes {pids:?} have not ended for {}s", end::DEADLINE.as_secs())]
    Left {
        /// Which ones.
        pids: Vec<i32>,
    },
    /// The empty cgroup cannot be removed.
    #[error("the cgroup {} cannot be removed", path.display())]
    NotRemoved {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A cgroup that was made.
#[derive(Debug)]
pub(super) struct Made {
    /// Files to write a process's number to, each of which puts it into one of the trees; none when there is no tree to be used.
    pub(super) procs: Vec<PathBuf>,
    /// What could not be limited, and why.
    pub(super) unenforced: Vec<Limit>,
}

/// The counts of kills for want of memory.
#[derive(Debug)]
pub(super) struct KillCount {
    /// The cgroup above those of all sandboxes.
    parent: PathBuf,
    file: &'static str,
}

impl KillCount {
    /// How many processes of a sandbox were killed since its cgroup was made; none when it has none.
    pub(super) fn of(&self, name: &str) -> Option<u64> {
        check(name).ok()?;
        let text = fs::read_to_string(self.parent.join(name).join(self.file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }
}

/// What of the machine's cgroups this process may use.
#[derive(Debug)]
pub(super) struct Cgroups {
    places: Vec<Place>,
    unusable: Vec<Limit>,
}

impl Cgroups {
    /// Looks at the machine. Nothing is made or changed.
    pub(super) fn detect() -> Self {
        // Without either text nothing is mounted as far as this process can know, and that is then said.
        let [mountinfo, cgroup] =
            ["mountinfo", "cgroup"].map(|name| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default());
        Self::among(&mounts::find(&mountinfo, &cgroup))
    }

    fn among(mounts: &[Mount]) -> Self {
        let (mut places, mut unusable) = (Vec::<Place>::new(), Vec::new());
        let unified = mounts.iter().find(|mount| mount.version == Version::Two);
        // Even without any controller this tree tells which processes are a sandbox's, and kills them all at once.
        let unified = unified.map(|mount| Place::choose(mount, Vec::new()));
        for resource in Resource::ALL {
            let has = |mount: &&Mount| matches!(&mount.version, Version::One(options) if options.iter().any(|option| option == resource.controller()));
            let place = match (mounts.iter().find(has), &unified) {
                (Some(mount), _) => Place::choose(mount, vec![resource]),
                (None, Some(Ok(place))) if place.offers(resource) => Ok(place.with(resource)),
                (None, Some(Ok(place))) => Err(Hindrance::NotOffered { directory: place.base.clone() }),
                (None, Some(Err(why))) => Err(why.clone()),
                (None, None) => Err(Hindrance::NotMounted),
            };
            match place {
                Ok(place) => add(&mut places, place),
                Err(why) => unusable.push(Limit { resource, why }),
            }
        }
        if let Some(Ok(place)) = unified {
            add(&mut places, place);
        }
        Self { places, unusable }
    }

    /// Why a resource cannot be limited; none when it can.
    pub(super) fn hindrance(&self, resource: Resource) -> Option<&Hindrance> {
        self.unusable.iter().find(|limit| limit.resource == resource).map(|limit| &limit.why)
    }

    /// Where a resource is limited, for people.
    pub(super) fn whereabouts(&self, resource: Resource) -> String {
        let place = self.places.iter().find(|place| place.resources.contains(&resource));
        place.map(|place| place.parent().display().to_string()).unwrap_or_default()
    }

    /// Makes the cgroup of a sandbox, or takes up the one that is there, and sets its limits. What cannot be limited is no error: it
    /// is said.
    ///
    /// # Errors
    /// [`CgroupError::Name`].
    pub(super) fn make(&self, name: &str, limits: &Limits) -> Result<Made, CgroupError> {
        check(name)?;
        let mut made = Made { procs: Vec::new(), unenforced: self.unusable.clone() };
        for place in &self.places {
            let directory = match place.make(name) {
                Ok(directory) => directory,
                Err(why) => {
                    let lost = place.resources.iter().map(|resource| Limit { resource: *resource, why: why.clone() });
                    made.unenforced.extend(lost);
                    continue;
                }
            };
            for resource in &place.resources {
                if let Err(why) = limits::set(&directory, place.unified, *resource, limits) {
                    made.unenforced.push(Limit { resource: *resource, why });
                }
            }
            made.procs.push(directory.join("cgroup.procs"));
        }
        Ok(made)
    }

    /// Where it is counted how often the kernel killed for want of memory; none where memory is not limited.
    pub(super) fn memory_kills(&self) -> Option<KillCount> {
        let place = self.places.iter().find(|place| place.resources.contains(&Resource::Memory))?;
        let file = if place.unified { "memory.events" } else { "memory.oom_control" };
        Some(KillCount { parent: place.parent(), file })
    }

    /// The processes in the cgroup of a sandbox, as this process numbers them; none when there is no such cgroup.
    #[cfg(test)]
    pub(super) fn processes(&self, name: &str) -> Vec<i32> {
        if check(name).is_err() {
            return Vec::new();
        }
        end::processes(&self.trees(name))
    }

    /// Kills what is left in the cgroup of a sandbox, and removes it. No error when there is none.
    ///
    /// # Errors
    /// [`CgroupError::Name`]; [`CgroupError::Left`] or [`CgroupError::NotRemoved`] when something of it is left: it can be called again.
    pub(super) fn remove(&self, name: &str) -> Result<(), CgroupError> {
        check(name)?;
        let deadline = Instant::now() + end::DEADLINE;
        let trees = self.trees(name);
        for place in self.places.iter().filter(|place| place.resources.contains(&Resource::Pids)) {
            limits::freeze_number(&place.of(name));
        }
        if !end::kill(&trees, deadline) {
            return Err(CgroupError::Left { pids: end::processes(&trees) });
        }
        for path in trees {
            end::remove(&path, deadline).map_err(|source| CgroupError::NotRemoved { path, source })?;
        }
        for place in &self.places {
            // The last one takes the cgroup above it along; while there are others, that stays.
            let _ = fs::remove_dir(place.parent());
        }
        Ok(())
    }

    fn trees(&self, name: &str) -> Vec<PathBuf> {
        self.places.iter().flat_map(|place| end::tree(&place.of(name))).collect()
    }
}

/// Adds a place, or its resources to the same place.
fn add(places: &mut Vec<Place>, place: Place) {
    match places.iter_mut().find(|known| known.base == place.base) {
        Some(known) => known.resources.extend(place.resources),
        None => places.push(place),
    }
}

/// A name must lead to one directory below ours and nowhere else.
fn check(name: &str) -> Result<(), CgroupError> {
    let plain = !name.is_empty() && name.len() <= 255 && !matches!(name, "." | "..") && !name.contains(['/', '\0']);
    if plain { Ok(()) } else { Err(CgroupError::Name { name: name.to_owned() }) }
}
