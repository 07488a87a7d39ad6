//! A cgroup hierarchy, and the cgroup in it below which those of sandboxes are made.
//!
//! That is the highest cgroup that this process may write to. It is the same for every server of a user, however the server was started,
//! and sandboxes survive when the host removes the cgroup of a server that has ended.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use rustix::{
    fs::{Access, access},
    io::Errno,
};

use super::{
    Obstacle, Resource,
    mounts::{Mount, Version},
};

/// Name of the cgroup that contains those of all sandboxes.
const PARENT: &str = "errand";
/// Name of the cgroup that the server moves itself into when its own place must be free of processes.
const SERVER: &str = "errand-server";

/// A hierarchy in which this process can make cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Whether this is the unified hierarchy (cgroup v2), where each cgroup enables the controllers of its children.
    pub(super) unified: bool,
    /// The highest writable cgroup.
    pub(super) base: PathBuf,
    /// The resources that are limited in this hierarchy.
    pub(super) resources: Vec<Resource>,
    /// Whether the server itself is in `base`, which keeps the kernel from enabling controllers for the children.
    server_in_base: bool,
}

impl Hierarchy {
    /// Chooses the highest cgroup of a mounted hierarchy that this process may write to.
    pub(super) fn choose(mount: &Mount, resources: Vec<Resource>) -> Result<Self, Obstacle> {
        let unified = mount.version == Version::Two;
        let mut obstacle = None;
        for base in &mount.path {
            match check_writable(base, unified) {
                Ok(server_in_base) => return Ok(Self { unified, base: base.clone(), resources, server_in_base }),
                // The obstacle of this process's own cgroup, which is the last one, is the most useful to report.
                Err(other) => obstacle = Some(other),
            }
        }
        Err(obstacle.unwrap_or(Obstacle::NotMounted))
    }

    /// Whether the children of `base` can limit a resource.
    pub(super) fn offers(&self, resource: Resource) -> bool {
        let offered = fs::read_to_string(self.base.join("cgroup.controllers")).unwrap_or_default();
        offered.split_whitespace().any(|name| name == resource.controller())
    }

    /// This hierarchy, used for one resource.
    pub(super) fn with(&self, resource: Resource) -> Self {
        Self { resources: vec![resource], ..self.clone() }
    }

    /// The cgroup that contains those of all sandboxes.
    pub(super) fn parent(&self) -> PathBuf {
        self.base.join(PARENT)
    }

    /// The cgroup of one sandbox.
    pub(super) fn of(&self, name: &str) -> PathBuf {
        self.parent().join(name)
    }

    /// Makes the cgroup of a sandbox, unless it exists.
    pub(super) fn make(&self, name: &str) -> Result<PathBuf, Obstacle> {
        let (parent, directory) = (self.parent(), self.of(name));
        loop {
            make_directory(&parent)?;
            if self.unified {
                self.enable_controllers(&self.base)?;
                self.enable_controllers(&parent)?;
            }
            match make_directory(&directory) {
                // Another server has just removed the parent together with its last sandbox.
                Err(Obstacle::Failed { errno: Errno::NOENT, .. }) => {}
                Err(obstacle) => return Err(obstacle),
                Ok(()) => return Ok(directory),
            }
        }
    }

    /// Enables the controllers for the children of a cgroup.
    fn enable_controllers(&self, directory: &Path) -> Result<(), Obstacle> {
        let file = directory.join("cgroup.subtree_control");
        for resource in &self.resources {
            let text = format!("+{}", resource.controller());
            match fs::write(&file, &text) {
                Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) && self.server_in_base => {
                    self.move_server()?;
                    fs::write(&file, &text).map_err(|error| failed(&file, &error))?;
                }
                // Another server has just removed the cgroup. The caller tries again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                result => result.map_err(|error| failed(&file, &error))?,
            }
        }
        Ok(())
    }

    /// Moves this process into a cgroup of its own: the kernel enables controllers only where no process is.
    fn move_server(&self) -> Result<(), Obstacle> {
        let directory = self.base.join(SERVER);
        make_directory(&directory)?;
        let procs = directory.join("cgroup.procs");
        fs::write(&procs, process::id().to_string()).map_err(|error| failed(&procs, &error))
    }
}

/// Checks that this process can make cgroups in `base` and add processes to them. True when the server must first leave `base`.
fn check_writable(base: &Path, unified: bool) -> Result<bool, Obstacle> {
    let procs = base.join("cgroup.procs");
    for path in [base, procs.as_path()] {
        access(path, Access::WRITE_OK).map_err(|error| match error {
            Errno::ROFS => Obstacle::ReadOnly,
            Errno::ACCESS | Errno::PERM => Obstacle::NotPermitted { directory: base.to_owned(), unified },
            other => Obstacle::Failed { path: path.to_owned(), errno: other },
        })?;
    }
    // Only the root cgroup, which has no `cgroup.type`, may have processes of its own and enable controllers.
    if !unified || !base.join("cgroup.type").exists() {
        return Ok(false);
    }
    let members = fs::read_to_string(&procs).map_err(|error| failed(&procs, &error))?;
    let own = process::id().to_string();
    if members.lines().all(|pid| pid == own) {
        return Ok(!members.is_empty());
    }
    Err(Obstacle::Occupied { directory: base.to_owned() })
}

fn make_directory(directory: &Path) -> Result<(), Obstacle> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(|error| failed(directory, &error)),
    }
}

/// The obstacle for a failed operation in the cgroup file system.
pub(super) fn failed(path: &Path, error: &io::Error) -> Obstacle {
    Obstacle::Failed { path: path.to_owned(), errno: Errno::from_io_error(error).unwrap_or(Errno::IO) }
}
