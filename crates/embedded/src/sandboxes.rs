//! The operations on sandboxes: create, inspect, start, stop and remove. Every operation blocks on the disk and on processes.
//!
//! The state of each sandbox is on disk and in the kernel, so that a new server finds everything. Memory holds only what was learned about
//! the host.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use super::{
    cgroup::{Cgroups, MemoryKills, Resource},
    directories::{LockedDirectory, SandboxDirectories},
    disk,
    error::refused,
    host::{Availability, HostCapabilities, HostCapability},
    limits,
    network::Network,
    owner,
    record::{IncarnationId, Record, Reference},
    remove_tree::remove_tree,
    root::{self, Images, Root},
    start::{SandboxStart, is_alive},
    stop,
};
use crate::EmbeddedOptions;
use errand_runtime::{Asked, CreateSandbox, Found, GuestProgram, RuntimeError};

/// The sandboxes in a data directory.
#[derive(Debug)]
pub(super) struct Sandboxes {
    guest: GuestProgram,
    directories: SandboxDirectories,
    images: Images,
    disk_bytes: u64,
    allow_addresses: Vec<String>,
    /// What the host offers. Probed again by each call until nothing necessary is missing.
    host: Mutex<Option<Arc<HostCapabilities>>>,
    /// The counters of memory kills, found at their first use; none when memory is not limited.
    memory_kills: OnceLock<Option<MemoryKills>>,
}

impl Sandboxes {
    /// The sandboxes in a data directory, whose path must be absolute. Makes nothing.
    pub(super) fn new(options: EmbeddedOptions) -> Self {
        let EmbeddedOptions { guest, data_dir, disk_bytes, images, allow_addresses } = options;
        let directories = SandboxDirectories::new(&data_dir);
        let images = Images::new(directories.images(), &images);
        let (host, memory_kills) = (Mutex::default(), OnceLock::new());
        Self { guest, directories, images, disk_bytes, allow_addresses, host, memory_kills }
    }

    /// The guest: the program that is the first process of each sandbox.
    pub(super) fn guest(&self) -> &GuestProgram {
        &self.guest
    }

    /// What the host offers.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] when sandboxes do not work on this host.
    pub(super) fn host(&self) -> Result<Arc<HostCapabilities>, RuntimeError> {
        let mut known = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = &*known {
            return Ok(Arc::clone(host));
        }
        let host = Arc::new(HostCapabilities::detect());
        match host.first_missing() {
            Some(HostCapability { name, availability: Availability::Missing { why, remedy } }) => {
                Err(RuntimeError::Unavailable { detail: format!("{name}: {why}; to fix it: {remedy}") })
            }
            _ => {
                self.remove_leftovers();
                Ok(Arc::clone(known.insert(host)))
            }
        }
    }

    /// Removes what servers left behind that ended while they removed a sandbox or unpacked an image.
    fn remove_leftovers(&self) {
        for path in self.directories.leftovers().into_iter().chain(self.images.leftovers()) {
            if let Err(error) = remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove the leftovers of a sandbox or an image");
            }
        }
    }

    /// The directory of a sandbox, and its record.
    pub(super) fn find(&self, runtime_id: &str) -> Result<(PathBuf, Record), RuntimeError> {
        let reference = Reference::parse(runtime_id);
        let no_such = || RuntimeError::NoSuchSandbox { id: runtime_id.to_owned() };
        let directory = self.directories.path_of(reference.name).ok_or_else(no_such)?;
        let record = Record::read(&directory)?.filter(|record| reference.matches(record)).ok_or_else(no_such)?;
        Ok((directory, record))
    }

    /// The locked directory of a sandbox, and its record.
    fn lock(&self, runtime_id: &str) -> Result<(LockedDirectory, Record), RuntimeError> {
        let reference = Reference::parse(runtime_id);
        let no_such = || RuntimeError::NoSuchSandbox { id: runtime_id.to_owned() };
        let locked = self.directories.lock(reference.name)?.ok_or_else(no_such)?;
        let record = Record::read(locked.path())?.filter(|record| reference.matches(record)).ok_or_else(no_such)?;
        Ok((locked, record))
    }

    pub(super) fn create(&self, request: &CreateSandbox) -> Result<Found, RuntimeError> {
        self.host()?;
        // An invalid request is refused before anything is made, and before an older sandbox of this name is removed.
        Network::of(&request.spec.network_mode)?;
        let root = Root::of(&request.spec, &self.images)?;
        let user = match request.spec.user.clone().or_else(|| root.user()) {
            None => (root::UID, root::UID),
            Some(wanted) => root.etc().find(&wanted).ok_or_else(|| RuntimeError::Refused {
                detail: format!("user: the sandbox has no user or group {wanted:?}"),
            })?,
        };
        let locked = self.lock_empty(&request.name)?;
        match self.create_and_start(&locked, request, root, user) {
            Ok(found) => Ok(found),
            Err(failure) => {
                // A second failure is only logged: the next call with this name removes what remains.
                if let Err(error) = self.discard(locked) {
                    tracing::warn!(sandbox = %request.name, %error, "cannot remove a sandbox whose creation failed");
                }
                Err(failure)
            }
        }
    }

    /// Locks the empty directory of a new sandbox. Removes an older sandbox of this name.
    fn lock_empty(&self, name: &str) -> Result<LockedDirectory, RuntimeError> {
        loop {
            let locked = self.directories.make(name)?;
            if locked.is_empty().map_err(|error| refused("the sandbox's directory", &error))? {
                return Ok(locked);
            }
            self.discard(locked)?;
        }
    }

    fn create_and_start(
        &self,
        locked: &LockedDirectory,
        request: &CreateSandbox,
        root: Root,
        user: (u32, u32),
    ) -> Result<Found, RuntimeError> {
        let owner = owner::choose(&self.directories);
        let mkfs = owner.and_then(|_| disk::mkfs());
        if let Some(mkfs) = &mkfs {
            disk::make(mkfs, locked.path(), self.disk_bytes).map_err(|error| refused("the sandbox's disk", &error))?;
        }
        let record = Record::new(request, root, user, owner, mkfs.map(|_| self.disk_bytes));
        record.write(locked.path()).map_err(|error| refused("the sandbox's record", &error))?;
        self.start_incarnation(locked.path(), &record, request.asked)
    }

    /// Starts a sandbox that does not run. Refuses when a limit in `asked` cannot be enforced.
    fn start_incarnation(&self, directory: &Path, record: &Record, asked: Asked) -> Result<Found, RuntimeError> {
        let guest = self
            .directories
            .program(self.guest.name(), self.guest.bytes())
            .map_err(|error| refused("the guest's program", &error))?;
        let host = self.host()?;
        let Some(bwrap) = host.bubblewrap() else {
            return Err(RuntimeError::Unavailable { detail: "bubblewrap is not installed any more".to_owned() });
        };
        let cgroup = limits::apply(record, asked)?;
        let no_pids_cgroup = cgroup.unenforced.iter().any(|limit| limit.resource == Resource::Pids);
        let start = SandboxStart {
            directory,
            record,
            allow_addresses: &self.allow_addresses,
            guest: &guest,
            bwrap,
            limits_tmpfs: host.limits_tmpfs(),
            cgroup_procs: cgroup.procs,
            process_limit: no_pids_cgroup.then_some(record.spec.pids_limit),
            file_bytes: if record.disk.is_some() { 0 } else { self.disk_bytes },
        };
        if let Err(failure) = start.run() {
            if let Err(error) = Cgroups::detect().remove(&record.runtime_id()) {
                tracing::warn!(sandbox = %record.name, %error, "cannot remove the cgroup of a sandbox that did not start");
            }
            return Err(failure);
        }
        Ok(record.found(true, IncarnationId::read(directory)))
    }

    pub(super) fn inspect(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        let (directory, record) = self.find(runtime_id)?;
        let alive = is_alive(&directory);
        let found = record.found(alive, IncarnationId::read(&directory));
        // The cgroup of a sandbox that ended by itself, with its counter, remains until the next start or stop.
        let killed = || self.memory_kills(&found.runtime_id).is_some_and(|count| count > 0);
        Ok(Found { out_of_memory: !alive && killed(), ..found.clone() })
    }

    /// How many processes the kernel has killed in a sandbox's current incarnation because of its memory limit. Takes a few microseconds.
    pub(super) fn memory_kills(&self, runtime_id: &str) -> Option<u64> {
        self.memory_kills.get_or_init(|| Cgroups::detect().memory_kills()).as_ref()?.count(runtime_id)
    }

    pub(super) fn start(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        let (locked, record) = self.lock(runtime_id)?;
        if is_alive(locked.path()) {
            return Ok(record.found(true, IncarnationId::read(locked.path())));
        }
        self.end(locked.path(), &record)?;
        self.start_incarnation(locked.path(), &record, Asked::default())
    }

    pub(super) fn stop(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        let (locked, record) = self.lock(runtime_id)?;
        self.end(locked.path(), &record)
    }

    /// Ends every process of a sandbox, and removes its cgroup.
    fn end(&self, directory: &Path, record: &Record) -> Result<(), RuntimeError> {
        stop::stop(directory, record)?;
        // Also kills processes that belong to the sandbox but are outside of its pid namespace, such as the connector.
        Cgroups::detect()
            .remove(&record.runtime_id())
            .map_err(|error| RuntimeError::Unavailable { detail: format!("the sandbox {:?}: {error}", record.name) })
    }

    pub(super) fn remove(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        let reference = Reference::parse(runtime_id);
        let Some(locked) = self.directories.lock(reference.name)? else { return Ok(()) };
        match Record::read(locked.path())? {
            Some(record) if !reference.matches(&record) => Ok(()),
            _ => self.discard(locked),
        }
    }

    /// Ends a sandbox and removes all of its files. A directory without a record has no processes: its creation was interrupted.
    fn discard(&self, locked: LockedDirectory) -> Result<(), RuntimeError> {
        if let Some(record) = Record::read(locked.path())? {
            self.end(locked.path(), &record)?;
        }
        let discarded =
            self.directories.discard(locked).map_err(|error| refused("removing the sandbox's directory", &error))?;
        remove_tree(&discarded).map_err(|error| refused("removing the sandbox's files", &error))
    }
}
