//! How a command is launched, followed, signalled and read back inside any sandbox, given nothing but what a runtime offers.
//!
//! [`ExecBridge`] is the contract. The resident bridge keeps it with a program of ours that stays in the sandbox, [`DirectBridge`] with a shell
//! and what every sandbox has; [`BridgeChoice`] takes the first where it can run. A bridge owns the task directory and decides nothing: what
//! an ending means for a task is for the engine to say.

mod attachment;
mod choice;
mod clock;
mod direct;
mod files;
pub mod gather;
mod input;
mod log;
mod resident;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use errand_runtime::RuntimeError;
use errand_task::{
    Gap, Nonce, ProcessIdentity, ResourceUsage, Signal, TaskId, TaskSpec, TerminalSize, sentinel::Sentinel,
};

pub use attachment::{Activity, Attached, Attachment, OutputPiece, Report};
pub use choice::BridgeChoice;
pub use direct::DirectBridge;
use files::REMOVE_LIMIT;
pub use files::{Abandoned, FileContent, FileEntries, FileError, FileReader, FileSource, SandboxFiles};
pub use input::{Input, InputError, InputTaken};
pub use log::{LogPiece, LogReader, PackedPiece, Piece, Pieces, ReadError};

/// Runs commands in running sandboxes. Every method names the sandbox by its runtime's id.
#[async_trait]
pub trait ExecBridge: SandboxFiles {
    /// Makes the bridge ready in a running sandbox and says which it is there. Quick where it is ready already.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    async fn prepare(&self, sandbox: &str) -> Result<BridgeState, RuntimeError>;

    /// What [`ExecBridge::prepare`] has found, without asking; none before it was called.
    fn state(&self, sandbox: &str) -> Option<BridgeState>;

    /// Forgets what was kept of a sandbox that is gone.
    fn forget(&self, sandbox: &str);

    /// Whether there is a connection into the sandbox now. As long as there is, the sandbox is in the same life.
    fn is_connected(&self, sandbox: &str) -> bool;

    /// Whether the bridge itself stops a command at its timeout, and reports [`Activity`]. Whoever waits for either needs no timer of
    /// its own then, but for the case that the bridge fails.
    fn keeps_time(&self, sandbox: &str) -> bool;

    /// Path of a task's log in the sandbox.
    fn output_file(&self, task: TaskId) -> String;

    /// Launches a command and follows it. At most one launch of a task ever runs, however often this is called; the others report
    /// [`Report::Claimed`]. The command does not notice when the attachment is dropped.
    ///
    /// # Errors
    /// [`RuntimeError::Uncertain`] when nobody knows whether it was launched; every other error is certain that it was not.
    async fn launch(
        &self,
        sandbox: &str,
        task: TaskId,
        nonce: Nonce,
        spec: &TaskSpec,
        settings: LaunchSettings,
    ) -> Result<Attachment, RuntimeError>;

    /// Follows a command that was launched before, with its output from byte `from` on.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    async fn attach(&self, sandbox: &str, task: TaskId, nonce: Nonce, from: u64) -> Result<Attachment, RuntimeError>;

    /// Says what is known of tasks. With `fence`, a task that was not launched never will be afterwards.
    /// The answers come in the order of the questions.
    ///
    /// # Errors
    /// When the sandbox cannot be reached, or its answer cannot be understood.
    async fn probe(&self, sandbox: &str, tasks: &[(TaskId, Nonce)], fence: bool) -> Result<Vec<Finding>, RuntimeError>;

    /// Signals every process of a task, wherever in the sandbox it has gone, and returns how many there were. SIGKILL is repeated until
    /// none is left. Without a signal they are only counted.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    async fn signal(
        &self,
        sandbox: &str,
        task: TaskId,
        process: Option<ProcessIdentity>,
        signal: Option<Signal>,
    ) -> Result<u32, RuntimeError>;

    /// Writes to a command's standard input or terminal. Returns when the command took all of it, or takes no more for now.
    ///
    /// # Errors
    /// [`InputError::NotOpen`], [`InputError::Closed`], [`InputError::Unsupported`], or when the sandbox cannot be reached.
    async fn write_input(&self, sandbox: &str, task: TaskId, input: Input) -> Result<InputTaken, InputError>;

    /// Changes the size of a command's terminal.
    ///
    /// # Errors
    /// As for [`ExecBridge::write_input`].
    async fn resize_terminal(&self, sandbox: &str, task: TaskId, size: TerminalSize) -> Result<(), InputError>;

    /// Opens a piece of a task's log.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when there is no log any more.
    async fn read(&self, sandbox: &str, task: TaskId, piece: Piece) -> Result<LogReader, ReadError>;

    /// Removes task directories.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    async fn remove(&self, sandbox: &str, tasks: &[TaskId]) -> Result<(), RuntimeError>;
}

/// Which bridge a sandbox has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeState {
    /// `resident` or `direct`.
    pub name: &'static str,
    /// Why it is that one, where another was wanted, or what is to be said of it; may be empty.
    pub detail: String,
}

impl BridgeState {
    /// The name of the bridge that installs nothing.
    pub const DIRECT: &'static str = "direct";
    /// The name of the bridge that stays in the sandbox.
    pub const RESIDENT: &'static str = "resident";

    /// Whether it keeps what only the resident bridge can, see [`TaskSpec::resident_only`].
    pub fn is_resident(&self) -> bool {
        self.name == Self::RESIDENT
    }
}

/// What a bridge has to know of the engine's rules to keep them in the sandbox, also while the server is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchSettings {
    /// Between SIGTERM and SIGKILL at the command's timeout.
    pub grace: Duration,
    /// After how much silence the command's processes are looked at.
    pub quiet_after: Duration,
    /// How often they are then looked at.
    pub look_every: Duration,
}

/// What is known of a task in its sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether its directory is there.
    pub directory: bool,
    /// Whether the command was launched. False after a fence: it never was and never will be.
    pub started: bool,
    /// The command's first process and when it was made, as far as it is recorded.
    pub process: Option<(ProcessIdentity, SystemTime)>,
    /// Whether that process lives.
    pub alive: bool,
    /// Whether the process lives that writes the exit file.
    pub supervised: bool,
    /// What the exit file says.
    pub sentinel: Sentinel,
    /// Bytes of all output, with what the log has not kept.
    pub output_bytes: u64,
    /// True when the log lacks output because it could not be written.
    pub incomplete: bool,
    /// What the log has not kept because of the output limit.
    pub gap: Option<Gap>,
    /// What the command used, if it is over and the bridge tells.
    pub usage: Option<ResourceUsage>,
    /// How many processes of the sandbox were killed for want of memory while the command ran, as the sandbox says.
    pub oom_kills: u32,
}
