//! Sandboxes that Errand makes itself, with nothing but this machine's kernel and bubblewrap.
//!
//! A sandbox is a directory below `sandboxes` in the data directory, and while it lives a process: its init, which runs what it is asked to
//! over a socket in that directory. Nothing about a sandbox is remembered by the server: a new one reads the same directory, asks the
//! kernel who holds its lock, and finds the init at the same socket.
//!
//! The way to a living sandbox: the server (threads, an async runtime) starts the *launcher*, a small program of one thread, which joins the
//! cgroup, makes a view of the file system, changes to the sandbox's own user and becomes *bubblewrap*, which makes the namespaces and
//! starts the *init* in them. What is not safe to do in safe Rust is in the launcher and the init, in the crate of the bridge.

mod arguments;
mod cgroup;
mod clear;
mod disk;
mod end;
mod frame;
mod home;
mod init;
mod launch;
mod machine;
mod network;
mod owner;
mod places;
mod processes;
#[allow(unreachable_pub)]
mod proto;
mod record;
mod root;
mod seccomp;
mod streams;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;

use super::{BRIDGE, BRIDGE_NAME, CreateSandbox, Exec, Found, Runtime, RuntimeError};
use arguments::INIT;
use cgroup::{Cgroups, Limits, Resource};
use home::{Home, refused};
use launch::{Launch, is_alive};
pub use machine::{Machine, Part, Verdict};
use network::Network;
use record::{Life, Record, Wanted};
use root::{Images, Root};

/// What a sandbox can hold unless told otherwise, in bytes.
const DISK: u64 = 10 << 30;
/// The most that the program that writes files says.
const SAID: usize = 32 * 1024;
/// What it says when it is done.
const WRITTEN: &[u8] = b"written\n";

/// How sandboxes are made.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The server's data directory: sandboxes are below it.
    pub data_dir: PathBuf,
    /// What a sandbox can hold on the disk, in bytes.
    pub disk_bytes: u64,
    /// Images: directories and archives that sandboxes may have as their root, or directories of such. No other path of this machine can
    /// be asked for. A relative path is never asked for.
    pub images: Vec<PathBuf>,
}

impl EmbeddedOptions {
    /// The usual ones, for a data directory: images are those in its directory `images`.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), disk_bytes: DISK, images: vec![data_dir.join("images")] }
    }
}

/// This machine's kernel.
#[derive(Debug)]
pub struct EmbeddedRuntime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    home: Home,
    images: Images,
    disk_bytes: u64,
    /// What this machine offers, once it has everything that is needed.
    machine: Mutex<Option<Arc<Machine>>>,
}

impl EmbeddedRuntime {
    /// Sandboxes of this machine. Nothing is made yet.
    pub fn new(options: EmbeddedOptions) -> Self {
        // What is below it is given to other processes, which have other working directories.
        let data_dir = std::path::absolute(&options.data_dir).unwrap_or(options.data_dir);
        let home = Home::new(&data_dir);
        let images = Images::new(home.images(), &options.images);
        Self { shared: Arc::new(Shared { home, images, disk_bytes: options.disk_bytes, machine: Mutex::default() }) }
    }

    /// What cannot be limited on this machine, or cannot be had in a sandbox, with the one thing to do about each.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] when no sandbox can be made at all.
    pub async fn warnings(&self) -> Result<Vec<String>, RuntimeError> {
        let machine = self.apart(Shared::machine).await?;
        let said = machine.parts().iter().filter_map(|part| match &part.verdict {
            Verdict::Degraded { why, remedy } => Some(format!("{}: {why} ({remedy})", part.name)),
            Verdict::Ok { .. } | Verdict::Missing { .. } => None,
        });
        Ok(said.collect())
    }

    /// Does work that waits for the disk and for processes where that holds nobody up. It is done to its end, also when nobody waits.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, RuntimeError> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(result) => result,
            Err(error) => Err(RuntimeError::Unavailable { detail: error.to_string() }),
        }
    }
}

impl Shared {
    /// What this machine offers, looked at until it has everything that is needed.
    fn machine(&self) -> Result<Arc<Machine>, RuntimeError> {
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
            if let Err(error) = clear::clear(&path) {
                tracing::warn!(path = %path.display(), %error, "what a sandbox has left cannot be removed");
            }
        }
    }

    /// The record of a sandbox, and its directory.
    fn find(&self, runtime_id: &str) -> Result<(PathBuf, Record), RuntimeError> {
        let wanted = Wanted::parse(runtime_id);
        let no_such = || RuntimeError::NoSuchSandbox { id: runtime_id.to_owned() };
        let directory = self.home.path_of(wanted.name).ok_or_else(no_such)?;
        let record = Record::read(&directory)?.filter(|record| wanted.is(record)).ok_or_else(no_such)?;
        Ok((directory, record))
    }

    /// The same, and nobody else changes it as long as it is held.
    fn hold(&self, runtime_id: &str) -> Result<(home::Held, Record), RuntimeError> {
        let wanted = Wanted::parse(runtime_id);
        let no_such = || RuntimeError::NoSuchSandbox { id: runtime_id.to_owned() };
        let held = self.home.hold(wanted.name)?.ok_or_else(no_such)?;
        let record = Record::read(held.path())?.filter(|record| wanted.is(record)).ok_or_else(no_such)?;
        Ok((held, record))
    }

    fn create(&self, request: &CreateSandbox) -> Result<Found, RuntimeError> {
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
        self.remove(&request.name)?;
        match self.create_and_start(request, root, user) {
            Ok(found) => Ok(found),
            Err(failure) => {
                // The failure is the answer; the next call with this name removes what could not be removed now.
                if let Err(left) = self.remove(&request.name) {
                    tracing::warn!(sandbox = %request.name, error = %left, "a half-made sandbox is left");
                }
                Err(failure)
            }
        }
    }

    fn create_and_start(&self, request: &CreateSandbox, root: Root, user: (u32, u32)) -> Result<Found, RuntimeError> {
        let held = self.home.make(&request.name)?;
        let owner = owner::choose(&self.home);
        let maker = owner.and_then(|_| disk::maker());
        if let Some(maker) = &maker {
            disk::make(maker, held.path(), self.disk_bytes).map_err(|error| refused("the sandbox's disk", &error))?;
        }
        let record = Record::new(request, root, user, owner, maker.map(|_| self.disk_bytes));
        record.write(held.path()).map_err(|error| refused("the sandbox's record", &error))?;
        self.begin(held.path(), &record)
    }

    /// Begins a life of a sandbox that has none.
    fn begin(&self, directory: &Path, record: &Record) -> Result<Found, RuntimeError> {
        let program =
            self.home.program(&BRIDGE_NAME, BRIDGE).map_err(|error| refused("the program of the init", &error))?;
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
        let uncounted = made.unenforced.iter().any(|limit| limit.resource == Resource::Pids);
        let launch = Launch {
            directory,
            record,
            program: &program,
            bwrap,
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

    fn inspect(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        let (directory, record) = self.find(runtime_id)?;
        Ok(record.found(is_alive(&directory), Life::read(&directory)))
    }

    fn start(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        let (held, record) = self.hold(runtime_id)?;
        if is_alive(held.path()) {
            return Ok(record.found(true, Life::read(held.path())));
        }
        self.end(held.path(), &record)?;
        self.begin(held.path(), &record)
    }

    fn stop(&self, runtime_id: &str) -> Result<(), RuntimeError> {
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

    fn remove(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        let wanted = Wanted::parse(runtime_id);
        let Some(held) = self.home.hold(wanted.name)? else { return Ok(()) };
        match Record::read(held.path())? {
            Some(record) if wanted.is(&record) => self.end(held.path(), &record)?,
            Some(_) => return Ok(()),
            // Its making was cut short before anything was started.
            None => {}
        }
        let gone = self.home.discard(held).map_err(|error| refused("removing the sandbox's directory", &error))?;
        clear::clear(&gone).map_err(|error| refused("removing the sandbox's files", &error))
    }
}

#[async_trait]
impl Runtime for EmbeddedRuntime {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn is_through_engine(&self) -> bool {
        false
    }

    async fn ping(&self) -> Result<(), RuntimeError> {
        self.apart(Shared::machine).await.map(drop)
    }

    async fn create(&self, request: &CreateSandbox) -> Result<Found, RuntimeError> {
        let request = request.clone();
        self.apart(move |shared| shared.create(&request)).await
    }

    async fn inspect(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        let id = runtime_id.to_owned();
        self.apart(move |shared| shared.inspect(&id)).await
    }

    async fn start(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        let id = runtime_id.to_owned();
        self.apart(move |shared| shared.start(&id)).await
    }

    async fn stop(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        let id = runtime_id.to_owned();
        self.apart(move |shared| shared.stop(&id)).await
    }

    async fn remove(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        let id = runtime_id.to_owned();
        self.apart(move |shared| shared.remove(&id)).await
    }

    async fn exec(&self, runtime_id: &str, argv: &[String]) -> Result<Exec, RuntimeError> {
        let id = runtime_id.to_owned();
        let (directory, owner) =
            self.apart(move |shared| shared.find(&id).map(|(directory, record)| (directory, record.owner))).await?;
        let (ours, its) =
            streams::make(owner).map_err(|error| RuntimeError::Unavailable { detail: error.to_string() })?;
        init::start(&directory, runtime_id, argv, &its).await?;
        Ok(ours.into_exec())
    }

    fn explain(&self, _said: &str) -> Option<RuntimeError> {
        // What could not be started is known before anything is printed.
        None
    }

    async fn put_file(&self, runtime_id: &str, path: &str, content: &[u8], mode: u32) -> Result<(), RuntimeError> {
        let argv = [INIT, "write", path, &content.len().to_string(), &format!("{mode:o}")].map(str::to_owned);
        let said = self.exec(runtime_id, &argv).await?.feed(content, SAID).await?;
        if &said.stdout[..] == WRITTEN {
            return Ok(());
        }
        let detail = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        if detail.is_empty() {
            return Err(RuntimeError::Unavailable { detail: format!("the sandbox ended while {path} was written") });
        }
        Err(RuntimeError::NotWritten { path: path.to_owned(), detail })
    }
}
