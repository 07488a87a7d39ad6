//! What is done with sandboxes. Everything here waits for the disk and for processes: it is called where that holds nobody up.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use super::{
    cgroup::{Cgroups, KillCount, Limit, Limits, Resource},
    clear::clear,
    disk, end,
    home::{Held, Home, refused},
    launch::{Launch, is_alive},
    machine::{Machine, Part, Verdict},
    network::Network,
    owner,
    record::{Life, Record, Wanted},
    root::{self, Images, Root},
};
use crate::EmbeddedOptions;
use errand_runtime::{Asked, CreateSandbox, Found, GuestProgram, RuntimeError};

/// The sandboxes of a data directory. What is known of each is on the disk.
#[derive(Debug)]
pub(super) struct Shared {
    guest: GuestProgram,
    home: Home,
    images: Images,
    disk_bytes: u64,
    allow_addresses: Vec<String>,
    /// What this machine offers, once it has everything that is needed.
    machine: Mutex<Option<Arc<Machine>>>,
    /// Where kills for want of memory are counted, once that was looked for.
    memory_kills: OnceLock<Option<KillCount>>,
}

impl Shared {
    /// The sandboxes below a data directory, which must be absolute.
    pub(super) fn new(options: EmbeddedOptions) -> Self {
        let EmbeddedOptions { guest, data_dir, disk_bytes, images, allow_addresses } = options;
        let home = Home::new(&data_dir);
        let images = Images::new(home.images(), &images);
        let (machine, memory_kills) = (Mutex::default(), OnceLock::new());
        Self { guest, home, images, disk_bytes, allow_addresses, machine, memory_kills }
    }

    /// The program that lives in sandboxes.
    pub(super) fn guest(&self) -> &GuestProgram {
        &self.guest
    }

    /// What this machine offers, looked at until it has everything that is needed.
    pub(super) fn machine(&self) -> Result<Arc<Machine>, RuntimeError> {
        let mut known = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(machine) = &*known {
            return Ok(Arc::clone(machine));
        }
        let machine = Arc::new(Machine::look());
        match machine.missing() {
            Some(Part { name, verdict: Verdict::Missing { why, remedy } }) => {
                Err(RuntimeError::Unavailable { detail: format!("{name}: {why}. What helps: {remedy}") })
            }
            _ => {
                self.tidy();
                Ok(Arc::clone(known.insert(machine)))
            }
        }
    }

    /// Removes what a server has left that ended in the middle of something.
    fn tidy(&self) {
        for path in self.home.leftovers().into_iter().chain(self.images.leftovers()) {
            if let Err(error) = clear(&path) {
                tracing::warn!(path = %path.display(), %error, "what a sandbox has left cannot be removed");
            }
        }
    }

    /// The record of a sandbox, and its directory.
    pub(super) fn find(&self, runtime_id: &str) -> Result<(PathBuf, Record), RuntimeError> {
        let wanted = Wanted::parse(runtime_id);
        let no_such = || RuntimeError::NoSuchSandbox { id: runtime_id.to_owned() };
        let directory = self.home.path_of(wanted.name).ok_or_else(no_such)?;
        let record = Record::read(&directory)?.filter(|record| wanted.is(record)).ok_or_else(no_such)?;
        Ok((directory, record))
    }

    /// The same, and nobody else changes it as long as it is held.
    fn hold(&self, runtime_id: &str) -> Result<(Held, Record), RuntimeError> {
        let wanted = Wanted::parse(runtime_id);
        let no_such = || RuntimeError::NoSuchSandbox { id: runtime_id.to_owned() };
        let held = self.home.hold(wanted.name)?.ok_or_else(no_such)?;
        let record = Record::read(held.path())?.filter(|record| wanted.is(record)).ok_or_else(no_such)?;
        Ok((held, record))
    }

    pub(super) fn create(&self, request: &CreateSandbox) -> Result<Found, RuntimeError> {
        self.machine()?;
        // What cannot be is said before anything is made, or removed.
        Network::of(&request.spec.network_mode)?;
        let root = Root::of(&request.spec, &self.images)?;
        let user = match request.spec.user.clone().or_else(|| root.user()) {
            None => (root::UID, root::UID),
            Some(wanted) => root.etc().find(&wanted).ok_or_else(|| RuntimeError::Refused {
                detail: format!("user: there is no user or group {wanted:?} in the sandbox"),
            })?,
        };
        let held = self.make(&request.name)?;
        match self.create_and_start(&held, request, root, user) {
            Ok(found) => Ok(found),
            Err(failure) => {
                // The failure is the answer; the next call with this name removes what could not be removed now.
                if let Err(left) = self.discard(held) {
                    tracing::warn!(sandbox = %request.name, error = %left, "a half-made sandbox is left");
                }
                Err(failure)
            }
        }
    }

    /// Holds the empty directory of a new sandbox. What there is of that name is removed.
    fn make(&self, name: &str) -> Result<Held, RuntimeError> {
        loop {
            let held = self.home.make(name)?;
            if held.is_empty().map_err(|error| refused("the sandbox's directory", &error))? {
                return Ok(held);
            }
            self.discard(held)?;
        }
    }

    fn create_and_start(
        &self,
        held: &Held,
        request: &CreateSandbox,
        root: Root,
        user: (u32, u32),
    ) -> Result<Found, RuntimeError> {
        let owner = owner::choose(&self.home);
        let maker = owner.and_then(|_| disk::maker());
        if let Some(maker) = &maker {
            disk::make(maker, held.path(), self.disk_bytes).map_err(|error| refused("the sandbox's disk", &error))?;
        }
        let record = Record::new(request, root, user, owner, maker.map(|_| self.disk_bytes));
        record.write(held.path()).map_err(|error| refused("the sandbox's record", &error))?;
        self.begin(held.path(), &record, request.asked)
    }

    /// Begins a life of a sandbox that has none. A limit that was asked for must be enforced in it.
    fn begin(&self, directory: &Path, record: &Record, asked: Asked) -> Result<Found, RuntimeError> {
        let program = self
            .home
            .program(self.guest.name(), self.guest.bytes())
            .map_err(|error| refused("the program of the init", &error))?;
        let machine = self.machine()?;
        let Some(bwrap) = machine.bwrap() else {
            return Err(RuntimeError::Unavailable { detail: "bubblewrap is gone".to_owned() });
        };
        let spec = &record.spec;
        let limits = Limits { memory_bytes: spec.memory_bytes, cpus: spec.cpus, pids: spec.pids_limit };
        let made = Cgroups::detect()
            .make(&record.runtime_id(), &limits)
            .map_err(|error| refused("the sandbox's cgroup", &error))?;
        for limit in &made.unenforced {
            tracing::debug!(sandbox = %record.name, %limit, "not limited by a cgroup");
        }
        if let Some(detail) = unkept(&made.unenforced, asked) {
            // Nothing is in it yet.
            let _ = Cgroups::detect().remove(&record.runtime_id());
            return Err(RuntimeError::Refused { detail });
        }
        let uncounted = made.unenforced.iter().any(|limit| limit.resource == Resource::Pids);
        let launch = Launch {
            directory,
            record,
            allow_addresses: &self.allow_addresses,
            program: &program,
            bwrap,
            limits_memory_files: machine.limits_memory_files(),
            cgroup_procs: made.procs,
            processes: uncounted.then_some(spec.pids_limit),
            file_bytes: if record.disk.is_some() { 0 } else { self.disk_bytes },
        };
        if let Err(failure) = launch.run() {
            // The failure is the answer.
            if let Err(error) = Cgroups::detect().remove(&record.runtime_id()) {
                tracing::warn!(sandbox = %record.name, %error, "the cgroup of a sandbox that was not made is left");
            }
            return Err(failure);
        }
        Ok(record.found(true, Life::read(directory)))
    }

    pub(super) fn inspect(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        let (directory, record) = self.find(runtime_id)?;
        let alive = is_alive(&directory);
        let found = record.found(alive, Life::read(&directory));
        // The cgroup stays until the sandbox is started again.
        let killed = || self.memory_kills(&found.runtime_id).is_some_and(|count| count > 0);
        Ok(Found { out_of_memory: !alive && killed(), ..found.clone() })
    }

    /// How many processes of a sandbox were killed for want of memory in its present life. A few microseconds.
    pub(super) fn memory_kills(&self, runtime_id: &str) -> Option<u64> {
        self.memory_kills.get_or_init(|| Cgroups::detect().memory_kills()).as_ref()?.of(runtime_id)
    }

    pub(super) fn start(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        let (held, record) = self.hold(runtime_id)?;
        if is_alive(held.path()) {
            return Ok(record.found(true, Life::read(held.path())));
        }
        self.end(held.path(), &record)?;
        self.begin(held.path(), &record, Asked::default())
    }

    pub(super) fn stop(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        let (held, record) = self.hold(runtime_id)?;
        self.end(held.path(), &record)
    }

    fn end(&self, directory: &Path, record: &Record) -> Result<(), RuntimeError> {
        end::end(directory, record)?;
        // Whatever is left of it there, and of what was started beside it, ends now.
        Cgroups::detect()
            .remove(&record.runtime_id())
            .map_err(|error| RuntimeError::Unavailable { detail: format!("the sandbox {:?}: {error}", record.name) })
    }

    pub(super) fn remove(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        let wanted = Wanted::parse(runtime_id);
        let Some(held) = self.home.hold(wanted.name)? else { return Ok(()) };
        match Record::read(held.path())? {
            Some(record) if !wanted.is(&record) => Ok(()),
            _ => self.discard(held),
        }
    }

    /// Ends a sandbox and removes all of it. One without a record was cut short before anything was started.
    fn discard(&self, held: Held) -> Result<(), RuntimeError> {
        if let Some(record) = Record::read(held.path())? {
            self.end(held.path(), &record)?;
        }
        let gone = self.home.discard(held).map_err(|error| refused("removing the sandbox's directory", &error))?;
        clear(&gone).map_err(|error| refused("removing the sandbox's files", &error))
    }
}

/// Which limits that were asked for are not kept, and why; none when all are.
fn unkept(unenforced: &[Limit], asked: Asked) -> Option<String> {
    let name = |resource: Resource| match resource {
        Resource::Memory => asked.memory.then_some("memory_bytes"),
        Resource::Cpu => asked.cpus.then_some("cpus"),
        // Where no cgroup counts processes, the kernel counts those of the sandbox's user.
        Resource::Pids => None,
    };
    let told = unenforced.iter().filter_map(|limit| Some(format!("{}: {}", name(limit.resource)?, limit.why)));
    let told = told.collect::<Vec<_>>().join("; ");
    (!told.is_empty()).then(|| {
        format!("the limit that was asked for cannot be enforced here: {told}; leave it out to go without, or see: errand doctor")
    })
}
