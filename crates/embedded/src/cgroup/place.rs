//! Where in a hierarchy this process may make cgroups.
//!
//! As high up as it is allowed to: there the place is the same for every server of this user, however it was started, and what the
//! machine does to the cgroup of a server that ends does not touch the sandboxes.

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
    Hindrance, Resource,
    mounts::{Mount, Version},
};

/// Name of the cgroup above those of all sandboxes.
const PARENT: &str = "errand";
/// Name of the cgroup that a server goes into where it stands in the way.
const SERVER: &str = "errand-server";

/// A hierarchy in which cgroups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Whether this is the kind of tree that passes controllers on.
    pub(super) unified: bool,
    /// The cgroup below which ours are.
    pub(super) base: PathBuf,
    /// What is limited here.
    pub(super) resources: Vec<Resource>,
    /// Whether the server itself is in `base`, where it would keep the controllers from being passed on.
    in_the_way: bool,
}

impl Place {
    /// The place for `resources` in this hierarchy, as high up as this process may write.
    pub(super) fn choose(mount: &Mount, resources: Vec<Resource>) -> Result<Self, Hindrance> {
        let unified = mount.version == Version::Two;
        let mut hindrance = None;
        for base in &mount.path {
            match writable(base, unified) {
                Ok(in_the_way) => return Ok(Self { unified, base: base.clone(), resources, in_the_way }),
                // The last one says it: that is where this process is.
                Err(other) => hindrance = Some(other),
            }
        }
        Err(hindrance.unwrap_or(Hindrance::NotMounted))
    }

    /// Whether a resource can be limited below here.
    pub(super) fn offers(&self, resource: Resource) -> bool {
        let offered = fs::read_to_string(self.base.join("cgroup.controllers")).unwrap_or_default();
        offered.split_whitespace().any(|name| name == resource.controller())
    }

    /// The same place, for this resource.
    pub(super) fn with(&self, resource: Resource) -> Self {
        Self { resources: vec![resource], ..self.clone() }
    }

    /// The cgroup above those of all sandboxes.
    pub(super) fn parent(&self) -> PathBuf {
        self.base.join(PARENT)
    }

    /// The cgroup of one sandbox.
    pub(super) fn of(&self, name: &str) -> PathBuf {
        self.parent().join(name)
    }

    /// Makes the cgroup of a sandbox, or finds it there.
    pub(super) fn make(&self, name: &str) -> Result<PathBuf, Hindrance> {
        let (parent, directory) = (self.parent(), self.of(name));
        loop {
            make_directory(&parent)?;
            if self.unified {
                self.pass_on(&self.base)?;
                self.pass_on(&parent)?;
            }
            match make_directory(&directory) {
                // The parent was removed in between, with the last sandbox of another server.
                Err(Hindrance::Failed { errno: Errno::NOENT, .. }) => {}
                Err(hindrance) => return Err(hindrance),
                Ok(()) => return Ok(directory),
            }
        }
    }

    /// Lets the cgroups below have the controllers.
    fn pass_on(&self, directory: &Path) -> Result<(), Hindrance> {
        let file = directory.join("cgroup.subtree_control");
        for resource in &self.resources {
            let text = format!("+{}", resource.controller());
            match fs::write(&file, &text) {
                Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) && self.in_the_way => {
                    self.step_aside()?;
                    fs::write(&file, &text).map_err(|error| failed(&file, &error))?;
                }
                // Removed in between; the caller begins again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                result => result.map_err(|error| failed(&file, &error))?,
            }
        }
        Ok(())
    }

    /// Moves this process into a cgroup of its own: controllers are passed on only where no process is.
    fn step_aside(&self) -> Result<(), Hindrance> {
        let directory = self.base.join(SERVER);
        make_directory(&directory)?;
        let procs = directory.join("cgroup.procs");
        fs::write(&procs, process::id().to_string()).map_err(|error| failed(&procs, &error))
    }
}

/// Whether cgroups can be made here and processes be put into them; and whether this process is in the way.
fn writable(base: &Path, unified: bool) -> Result<bool, Hindrance> {
    let procs = base.join("cgroup.procs");
    for path in [base, procs.as_path()] {
        access(path, Access::WRITE_OK).map_err(|error| match error {
            Errno::ROFS => Hindrance::ReadOnly,
            Errno::ACCESS | Errno::PERM => Hindrance::NotPermitted { directory: base.to_owned(), unified },
            other => Hindrance::Failed { path: path.to_owned(), errno: other },
        })?;
    }
    // The root of all, which alone has no type, may have processes and pass controllers on.
    if !unified || !base.join("cgroup.type").exists() {
        return Ok(false);
    }
    let there = fs::read_to_string(&procs).map_err(|error| failed(&procs, &error))?;
    let own = process::id().to_string();
    if there.lines().all(|pid| pid == own) {
        return Ok(!there.is_empty());
    }
    Err(Hindrance::Occupied { directory: base.to_owned() })
}

fn make_directory(directory: &Path) -> Result<(), Hindrance> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(|error| failed(directory, &error)),
    }
}

/// What went wrong with a file or directory of the cgroup file system.
pub(super) fn failed(path: &Path, error: &io::Error) -> Hindrance {
    Hindrance::Failed { path: path.to_owned(), errno: Errno::from_io_error(error).unwrap_or(Errno::IO) }
}
