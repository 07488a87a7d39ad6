//! Makes sandboxes and runs processes in them. [`Runtime`] is the contract. [`DockerRuntime`] fulfils it with a Docker engine, and the
//! package `errand-embedded` with this machine's kernel alone. [`Runtimes`] holds the runtimes of one server.
//!
//! A runtime knows nothing of tasks.

mod docker;
mod error;
mod exec;
#[cfg(feature = "fake")]
pub mod fake;
mod guest;
mod own;
mod runtimes;
mod sandbox;

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;

use errand_task::{BotId, Incarnation, SandboxId, SandboxSpec, TenantId};

pub use docker::DockerRuntime;
pub use error::{NotStarted, RuntimeError};
pub use exec::{Chunk, Collected, Exec, ExecInput, ExecOutput, ExitStatus};
pub use guest::GuestProgram;
pub use own::is_of_this_process;
pub use runtimes::{Runtimes, UnknownRuntime};
pub use sandbox::SandboxRef;

/// Makes sandboxes and runs processes in them. `runtime_id` is this runtime's own id of a sandbox; see [`SandboxRef`] for a name that is
/// unique among all runtimes.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// The runtime's name in records and in the API, such as `docker`.
    fn name(&self) -> &'static str;

    /// Whether a byte of a process's streams costs more to carry than to compress. Long outputs are compressed inside the sandbox then.
    fn prefers_compressed_streams(&self) -> bool;

    /// The guest that this runtime puts into its sandboxes.
    fn guest(&self) -> &GuestProgram;

    /// The guest's path in sandboxes that this version made. It is read-only there, so that no command can replace the guest.
    fn guest_path(&self) -> String;

    /// Checks that the runtime answers.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`].
    async fn ping(&self) -> Result<(), RuntimeError>;

    /// Makes and starts a sandbox. Keeps nothing half-made when it fails or is cancelled: the next call with the same name removes what a
    /// crash may have left.
    ///
    /// # Errors
    /// [`RuntimeError::NoSuchImage`], [`RuntimeError::Refused`] or [`RuntimeError::Unavailable`].
    async fn create(&self, request: &CreateSandbox) -> Result<Found, RuntimeError>;

    /// Finds a sandbox by the runtime's id or name, running or not.
    ///
    /// # Errors
    /// [`RuntimeError::NoSuchSandbox`] or [`RuntimeError::Unavailable`].
    async fn inspect(&self, runtime_id: &str) -> Result<Found, RuntimeError>;

    /// How many processes of a sandbox the kernel has killed for lack of memory in the sandbox's present incarnation, counted outside the
    /// sandbox. None where the runtime does not count them. Never waits.
    fn memory_kills(&self, _runtime_id: &str) -> Option<u64> {
        None
    }

    /// Starts a stopped sandbox. Leaves a running one as it is.
    ///
    /// # Errors
    /// As for [`Runtime::inspect`], and [`RuntimeError::Refused`].
    async fn start(&self, runtime_id: &str) -> Result<Found, RuntimeError>;

    /// Stops a sandbox, and with it every process inside. Leaves a stopped one as it is.
    ///
    /// # Errors
    /// As for [`Runtime::inspect`].
    async fn stop(&self, runtime_id: &str) -> Result<(), RuntimeError>;

    /// Removes a sandbox with its files. Succeeds if the sandbox does not exist.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] or [`RuntimeError::Unavailable`].
    async fn remove(&self, runtime_id: &str) -> Result<(), RuntimeError>;

    /// Starts a process in a running sandbox, as the sandbox's user. The process keeps running when the returned streams are dropped.
    ///
    /// A runtime that learns only after this call that it could not start the process reports [`RuntimeError::NotStarted`] as the only item
    /// of the output.
    ///
    /// # Errors
    /// [`RuntimeError::Uncertain`] when it is unknown whether the process was started. After every other error, it certainly was not.
    async fn exec(&self, runtime_id: &str, argv: &[String]) -> Result<Exec, RuntimeError>;

    /// Writes a file in a running sandbox with these permissions, as the sandbox's user. Makes missing parent directories, accessible to
    /// that user only.
    ///
    /// # Errors
    /// [`RuntimeError::NotWritten`] when it cannot be written there.
    async fn put_file(&self, runtime_id: &str, path: &str, content: &[u8], mode: u32) -> Result<(), RuntimeError>;

    /// Reads at most the first `limit` bytes of a regular file in a sandbox that does not run. None where the file does not exist, and
    /// where the runtime can read files in running sandboxes only.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`], [`RuntimeError::NoSuchSandbox`].
    async fn read_at_rest(
        &self,
        runtime_id: &str,
        path: &str,
        limit: usize,
    ) -> Result<Option<FileAtRest>, RuntimeError>;
}

/// A file of a sandbox that does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAtRest {
    /// Its whole size in bytes.
    pub size: u64,
    /// Its first bytes.
    pub content: Vec<u8>,
}

/// The sandbox to make.
#[derive(Debug, Clone)]
pub struct CreateSandbox {
    /// The sandbox's name. The caller chooses it, so that the sandbox is found again even if the answer is lost.
    pub name: String,
    /// The sandbox's id, for labels.
    pub id: SandboxId,
    /// The owner's tenant, for labels.
    pub tenant: TenantId,
    /// The owner, for labels.
    pub bot: BotId,
    /// How to make it.
    pub spec: SandboxSpec,
    /// Which limits the caller asked for. If the runtime cannot enforce one of these, it does not make the sandbox.
    pub asked: Asked,
}

/// Limits that a caller asked for, as opposed to the server's defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// The memory limit.
    pub memory: bool,
    /// The CPU limit.
    pub cpus: bool,
    /// The limit of processes.
    pub pids: bool,
}

impl Asked {
    /// The limits in which a specification differs from the usual one.
    pub fn of(spec: &SandboxSpec, usual: &SandboxSpec) -> Self {
        Self {
            memory: spec.memory_bytes != usual.memory_bytes,
            cpus: spec.cpus.to_bits() != usual.cpus.to_bits(),
            pids: spec.pids_limit != usual.pids_limit,
        }
    }
}

/// A sandbox as the runtime sees it now.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The runtime's own id.
    pub runtime_id: String,
    /// The runtime's own name.
    pub name: String,
    /// Whether processes can run in it.
    pub running: bool,
    /// Whether it is paused: it counts as running, and its processes make no progress.
    pub paused: bool,
    /// Its present incarnation, or its last one.
    pub incarnation: Incarnation,
    /// How it was made, as far as the runtime reports.
    pub spec: SandboxSpec,
    /// Whether it has ended because it was killed for lack of memory.
    pub out_of_memory: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Label that carries the tenant.
pub const LABEL_TENANT: &str = "errand.tenant";
/// Label that carries the bot.
pub const LABEL_BOT: &str = "errand.bot";
/// Label that carries the sandbox's id.
pub const LABEL_SANDBOX: &str = "errand.sandbox";

/// Label by which a container's maker lets a tenant adopt it.
pub const LABEL_ADOPT_TENANT: &str = "errand.adopt.tenant";
/// Label beside [`LABEL_ADOPT_TENANT`] that names the only bot that may adopt the container.
pub const LABEL_ADOPT_BOT: &str = "errand.adopt.bot";

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, &self.runtime_id.get(..12).unwrap_or(&self.runtime_id))
    }
}
