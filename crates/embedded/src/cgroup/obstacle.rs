//! Why a limit cannot be enforced, and the errors of making and removing cgroups.

use std::{fmt, io, path::PathBuf};

use rustix::io::Errno;

use super::{Resource, removal};

/// Why a resource cannot be limited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Obstacle {
    /// No mounted hierarchy has the controller.
    #[error("no cgroup file system with this controller is mounted")]
    NotMounted,
    /// The hierarchy is mounted read-only, as in most containers.
    #[error("the cgroup file system is read-only")]
    ReadOnly,
    /// No part of the hierarchy is delegated to this user.
    #[error("this user may not make cgroups in {}", directory.display())]
    NotPermitted {
        /// The lowest cgroup that was tried.
        directory: PathBuf,
        /// Whether this is the unified hierarchy (cgroup v2), which can be delegated to users.
        unified: bool,
    },
    /// The writable part of the hierarchy lacks the controller.
    #[error("{} does not offer the controller", directory.display())]
    NotOffered {
        /// The cgroup that lacks it.
        directory: PathBuf,
    },
    /// The kernel enables controllers only for children of a cgroup without processes, and other processes than the server are in it.
    #[error("other processes are in the cgroup {}", directory.display())]
    Occupied {
        /// The cgroup with the processes.
        directory: PathBuf,
    },
    /// The kernel refused an operation.
    #[error("{}: {errno}", path.display())]
    Failed {
        /// The file or directory that could not be made, read or written.
        path: PathBuf,
        /// The kernel's error.
        errno: Errno,
    },
}

/// A limit that is not enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unenforced {
    /// The resource that is not limited.
    pub(crate) resource: Resource,
    /// Why not.
    pub(crate) obstacle: Obstacle,
}

impl fmt::Display for Unenforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.resource.controller(), self.obstacle)
    }
}

/// Why a cgroup was not made, or not removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    /// The name is not that of one directory.
    #[error("invalid cgroup name {name:?}: use 1 to 255 bytes without \"/\"")]
    InvalidName {
        /// As given.
        name: String,
    },
    /// Killed processes are still there.
    #[error("the processes {pids:?} did not end within {}s of SIGKILL", removal::DEADLINE.as_secs())]
    ProcessesRemain {
        /// Their process ids.
        pids: Vec<i32>,
    },
    /// The empty cgroup cannot be removed.
    #[error("the cgroup {} cannot be removed", path.display())]
    NotRemoved {
        /// Its directory.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}
