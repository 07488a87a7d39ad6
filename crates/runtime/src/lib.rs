//! Where sandboxes live. [`Runtime`] is the contract; [`DockerRuntime`] keeps it with a Docker engine; the
//! package `errand-embedded` with nothing but this machine's kernel.
//!
//! A runtime makes and finds sandboxes and runs processes in them. It knows nothing of tasks.

mod docker;
mod exec;
mod guest;
mod own;

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;

use errand_task::{BotId, Incarnation, SandboxId, SandboxSpec, TenantId};

pub use docker::DockerRuntime;
pub use exec::{Chunk, Collected, Exec, ExecInput, ExecOutput};
pub use guest::GuestProgram;
pub use own::is_of_this_process;

/// Makes sandboxes and runs processes in them.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Its name in records and in the API, such as `docker`.
    fn name(&self) -> &'static str;

    /// Whether the bytes of processes pass through an engine, to which each of them costs more than to pack it.
    fn is_through_engine(&self) -> bool;

    /// The program that lives in its sandboxes.
    fn guest(&self) -> &GuestProgram;

    /// Where that program is in sandboxes that this version made, read-only: no command can replace it.
    fn guest_path(&self) -> String;

    /// Checks that the engine answers.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`].
    async fn ping(&self) -> Result<(), RuntimeError>;

    /// Makes and starts a sandbox. When this fails, or is cancelled, nothing half-made is kept: the next call with the same name
    /// removes what a crash may have left.
    ///
    /// # Errors
    /// [`RuntimeError::NoSuchImage`], [`RuntimeError::Refused`] or [`RuntimeError::Unavailable`].
    async fn create(&self, request: &CreateSandbox) -> Result<Found, RuntimeError>;

    /// Finds a sandbox by the runtime's id or name, running or not.
    ///
    /// # Errors
    /// [`RuntimeError::NoSuchSandbox`] or [`RuntimeError::Unavailable`].
    async fn inspect(&self, runtime_id: &str) -> Result<Found, RuntimeError>;

    /// How many processes of a sandbox the kernel has killed in its present life because memory had run out, as counted outside of it; none
    /// where that is not counted. Never waits.
    fn memory_kills(&self, _runtime_id: &str) -> Option<u64> {
        None
    }

    /// Starts a stopped sandbox. A running one is left as it is.
    ///
    /// # Errors
    /// As for [`Runtime::inspect`], and [`RuntimeError::Refused`].
    async fn start(&self, runtime_id: &str) -> Result<Found, RuntimeError>;

    /// Stops a sandbox and with it every process inside. A stopped one is left as it is.
    ///
    /// # Errors
    /// As for [`Runtime::inspect`].
    async fn stop(&self, runtime_id: &str) -> Result<(), RuntimeError>;

    /// Removes a sandbox with its files. No error when there is none.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] or [`RuntimeError::Unavailable`].
    async fn remove(&self, runtime_id: &str) -> Result<(), RuntimeError>;

    /// Starts a process in a running sandbox, as the sandbox's user. It lives on when the returned stream is dropped.
    ///
    /// # Errors
    /// [`RuntimeError::Uncertain`] when nobody knows whether it was started; every other error is certain that it was not. An engine
    /// that finds out only after it has answered says so on the process's output, and nothing else comes there.
    async fn exec(&self, runtime_id: &str, argv: &[String]) -> Result<Exec, RuntimeError>;

    /// What it means when a process printed nothing but `said` instead of doing its work: none, when those are not the engine's words.
    fn explain(&self, said: &str) -> Option<RuntimeError>;

    /// Writes a file in a running sandbox with these permissions, as the sandbox's user, making the directories above it for that user alone.
    ///
    /// # Errors
    /// [`RuntimeError::NotWritten`] when it cannot be written there.
    async fn put_file(&self, runtime_id: &str, path: &str, content: &[u8], mode: u32) -> Result<(), RuntimeError>;

    /// Reads at most the first `limit` bytes of a regular file in a sandbox that does not run. None where there is no such file, and where
    /// this runtime can look into running sandboxes only.
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
    /// Its beginning.
    pub content: Vec<u8>,
}

/// What to make.
#[derive(Debug, Clone)]
pub struct CreateSandbox {
    /// The name it gets: chosen by the caller, so that it is found again even if the answer is lost.
    pub name: String,
    /// The sandbox's id; for labels.
    pub id: SandboxId,
    /// Whose it is; for labels.
    pub tenant: TenantId,
    /// Whose it is; for labels.
    pub bot: BotId,
    /// How.
    pub spec: SandboxSpec,
    /// Which of its limits were asked for, and are not the server's own: where one of those cannot be enforced, it is not made.
    pub asked: Asked,
}

/// Limits that somebody asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// That of memory.
    pub memory: bool,
    /// That of processors.
    pub cpus: bool,
    /// That of processes.
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
    /// Whether it is running and held still: its processes are there and do nothing.
    pub paused: bool,
    /// The life it is in, or was in last.
    pub incarnation: Incarnation,
    /// How it was made, as far as the runtime tells.
    pub spec: SandboxSpec,
    /// Whether it is over, was killed, and its memory had run out.
    pub out_of_memory: bool,
    /// Labels on it.
    pub labels: BTreeMap<String, String>,
}

/// Label that carries the tenant.
pub const LABEL_TENANT: &str = "errand.tenant";
/// Label that carries the bot.
pub const LABEL_BOT: &str = "errand.bot";
/// Label that carries the sandbox's id.
pub const LABEL_SANDBOX: &str = "errand.sandbox";

/// Label by which whoever made a container lets a tenant adopt it.
pub const LABEL_ADOPT_TENANT: &str = "errand.adopt.tenant";
/// Label beside that one which names the only bot that may adopt it.
pub const LABEL_ADOPT_BOT: &str = "errand.adopt.bot";

/// Why a runtime did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine does not answer, or broke off.
    #[error("the runtime does not answer: {detail}")]
    Unavailable {
        /// What was tried and what came of it.
        detail: String,
    },
    /// The runtime does not have the image.
    #[error("the runtime has no image {image:?}")]
    NoSuchImage {
        /// The image.
        image: String,
    },
    /// There is no such sandbox.
    #[error("the sandbox {id:?} does not exist")]
    NoSuchSandbox {
        /// What was looked for.
        id: String,
    },
    /// The sandbox is there and not running.
    #[error("the sandbox {id:?} is not running")]
    NotRunning {
        /// Which one.
        id: String,
    },
    /// The engine broke off while it was starting a process: nobody knows whether it runs.
    #[error("the runtime broke off while it was starting a process: {detail}")]
    Uncertain {
        /// What came of the request.
        detail: String,
    },
    /// The process was certainly not started.
    #[error("the process was not started: {detail}")]
    NotStarted {
        /// Why.
        reason: NotStarted,
        /// The engine's words.
        detail: String,
    },
    /// A file was not written, or not whole, and nothing of it was left.
    #[error("{path} cannot be written: {detail}")]
    NotWritten {
        /// The file.
        path: String,
        /// Why not.
        detail: String,
    },
    /// The engine refused.
    #[error("the runtime refused: {detail}")]
    Refused {
        /// The engine's words.
        detail: String,
    },
}

/// Why a process was certainly not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStarted {
    /// The program is not in the sandbox.
    NotFound,
    /// It cannot be executed.
    NotExecutable,
    /// The sandbox's user does not exist.
    NoSuchUser,
    /// Its arguments and environment are larger than the kernel takes.
    TooLarge,
    /// Any other reason.
    Other,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, &self.runtime_id.get(..12).unwrap_or(&self.runtime_id))
    }
}
