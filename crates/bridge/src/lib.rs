//! Launches, follows, signals and reads back commands inside any sandbox, using only what a runtime offers.
//!
//! [`SandboxBridge`] is the contract: an object for one sandbox. The resident bridge fulfils it with the guest, a program that stays in the
//! sandbox. [`DirectBridge`] fulfils it with a shell and tools that every sandbox has. [`Bridges`] gives each sandbox its bridge: the
//! resident bridge where the guest can run, otherwise the direct bridge. A bridge owns the task directory and decides nothing: the engine
//! decides what an ending means for a task.

mod attachment;
mod bridges;
mod chosen;
mod clock;
pub mod coalesce;
mod direct;
mod files;
mod input;
mod log;
mod resident;
mod scan;

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use errand_reading::Scan;
use errand_runtime::RuntimeError;
use errand_task::{
    ArmedWatch, Gap, Nonce, ProcessIdentity, ResourceUsage, Signal, SignalTarget, TaskId, TaskSpec, TerminalSize,
    sentinel::Sentinel,
};

pub use attachment::{Activity, Attached, Attachment, OutputPiece, Report};
pub use bridges::Bridges;
pub use direct::DirectBridge;
use files::REMOVE_LIMIT;
pub use files::{Abandoned, FileChanges, FileContent, FileEntries, FileError, FileReader, FileSource, SandboxFiles};
pub use input::{Input, InputError, InputTaken};
pub use log::{LogPiece, LogReader, PackedPiece, Piece, Pieces, ReadError};
pub use scan::{SCAN_TIME, ScannedLog};

/// Runs commands in one sandbox. The object stays usable when a connection breaks, when the guest is replaced, and when the sandbox is
/// restarted: each call finds out anew how the sandbox can be reached.
#[async_trait]
pub trait SandboxBridge: SandboxFiles {
    /// Makes the bridge ready in the running sandbox and returns which kind it is. Quick if it is ready already.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    async fn prepare(&self) -> Result<BridgeState, RuntimeError>;

    /// What was last found in the sandbox, without asking it; none before the first call that asked.
    fn state(&self) -> Option<BridgeState>;

    /// Whether there is a connection into the sandbox now. As long as the connection lasts, the sandbox has the same incarnation.
    fn is_connected(&self) -> bool;

    /// Whether the guest enforces a command's timeout and reports [`Activity`]. The server then needs its own timers only for the case that
    /// the guest fails.
    fn enforces_timeout(&self) -> bool;

    /// Path of a task's log in the sandbox.
    fn output_file(&self, task: TaskId) -> String;

    /// Launches a command and follows it. Its output is searched for `watches` if the attachment reports [`Report::Watching`]; otherwise the
    /// caller has to search it. At most one launch of a task ever runs, however often this is called; the others report
    /// [`Report::Claimed`]. Dropping the attachment does not affect the command.
    ///
    /// # Errors
    /// [`RuntimeError::Uncertain`] when it is unknown whether the command was launched. After every other error, it certainly was not.
    async fn launch(
        &self,
        task: TaskId,
        nonce: Nonce,
        spec: &TaskSpec,
        settings: LaunchSettings,
        watches: &[ArmedWatch],
    ) -> Result<Attachment, RuntimeError>;

    /// Follows a command that was launched before, with its output from byte `from` on. Its output is searched for `watches` as after a
    /// launch, also what was written before.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    async fn attach(
        &self,
        task: TaskId,
        nonce: Nonce,
        from: u64,
        watches: &[ArmedWatch],
    ) -> Result<Attachment, RuntimeError>;

    /// Returns what is known of tasks, in the order of `tasks`. With `fence`, a task that has not been launched can never be launched
    /// afterwards.
    ///
    /// # Errors
    /// When the sandbox cannot be reached, or its answer cannot be understood.
    async fn probe(&self, tasks: &[(TaskId, Nonce)], fence: bool) -> Result<Vec<Finding>, RuntimeError>;

    /// Signals every process of a task, wherever in the sandbox it has gone, and returns how many processes there were. Repeats SIGKILL
    /// until no process is left. Without a signal, only counts the processes.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    async fn signal(
        &self,
        task: TaskId,
        process: Option<ProcessIdentity>,
        signal: Option<Signal>,
    ) -> Result<u32, RuntimeError>;

    /// Sends a signal once to processes of a task that a caller chose, and returns how many there were. A process that only has the number
    /// of `leader` is never signalled.
    ///
    /// # Errors
    /// When the sandbox cannot be reached. The signal may have been sent.
    async fn send_signal(
        &self,
        task: TaskId,
        leader: ProcessIdentity,
        signal: Signal,
        target: SignalTarget,
    ) -> Result<u32, RuntimeError>;

    /// The TCP ports on which processes of the sandbox listen. With `known`, returns once they differ from these, or after [`PORTS_WAIT`].
    /// Beyond [`PORTS_LIMIT`] ports, the highest are left out.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] when the sandbox does not show its sockets; when the sandbox cannot be reached.
    async fn listening(&self, known: Option<&BTreeSet<u16>>) -> Result<BTreeSet<u16>, RuntimeError>;

    /// Writes to a command's standard input or terminal. Returns once the command has taken all of it, or takes no more for now.
    ///
    /// # Errors
    /// [`InputError::NotOpen`], [`InputError::Closed`], [`InputError::Unsupported`], or when the sandbox cannot be reached.
    async fn write_input(&self, task: TaskId, input: Input) -> Result<InputTaken, InputError>;

    /// Changes the size of a command's terminal.
    ///
    /// # Errors
    /// As for [`SandboxBridge::write_input`].
    async fn resize_terminal(&self, task: TaskId, size: TerminalSize) -> Result<(), InputError>;

    /// Opens a part of a task's log.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when the log no longer exists.
    async fn read(&self, task: TaskId, piece: Piece) -> Result<LogReader, ReadError>;

    /// Finds lines in a task's log, in the sandbox, for at most [`SCAN_TIME`]. None if nothing in the sandbox can do that: then the caller
    /// reads the log and looks for them itself. A scan whose caller is dropped ends soon.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when the log no longer exists.
    async fn scan(&self, task: TaskId, scan: &Scan) -> Result<Option<ScannedLog>, ReadError>;

    /// Removes task directories.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    async fn remove(&self, tasks: &[TaskId]) -> Result<(), RuntimeError>;
}

/// How long [`SandboxBridge::listening`] waits for a difference.
pub const PORTS_WAIT: Duration = Duration::from_secs(20);
/// The most listening ports that are told apart.
pub const PORTS_LIMIT: usize = 4096;

/// Path of a task's log, below the root of the task directories. The same for both bridges: each reads what the other launched.
fn output_file(root: &str, task: TaskId) -> String {
    format!("{root}/{task}/output.log")
}

/// Which kind of bridge a sandbox has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeState {
    /// `resident` or `direct`.
    pub name: &'static str,
    /// Why the sandbox has this kind of bridge if another was preferred, or a remark on it; may be empty.
    pub detail: String,
}

impl BridgeState {
    /// The direct bridge, with this detail.
    pub fn direct(detail: String) -> Self {
        Self { name: Self::DIRECT, detail }
    }

    /// The resident bridge, with this detail.
    pub fn resident(detail: String) -> Self {
        Self { name: Self::RESIDENT, detail }
    }

    /// The name of the bridge that installs nothing.
    pub const DIRECT: &'static str = "direct";
    /// The name of the bridge whose guest stays in the sandbox.
    pub const RESIDENT: &'static str = "resident";

    /// Whether this bridge provides what only the resident bridge can, see [`TaskSpec::resident_only`].
    pub fn is_resident(&self) -> bool {
        self.name == Self::RESIDENT
    }
}

/// The engine's rules that are enforced in the sandbox, also while the server is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchSettings {
    /// Time between SIGTERM and SIGKILL at the command's timeout.
    pub grace: Duration,
    /// How long a command must be silent before its processes are examined.
    pub quiet_after: Duration,
    /// How often the processes are examined then.
    pub look_every: Duration,
}

/// What is known of a task in its sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the task directory exists.
    pub directory: bool,
    /// Whether the command was launched. False after a fence: it was not launched and never will be.
    pub started: bool,
    /// The command's first process and when it was created, as far as this is recorded.
    pub process: Option<(ProcessIdentity, SystemTime)>,
    /// Whether that process lives.
    pub alive: bool,
    /// Whether the process that writes the exit file lives.
    pub supervised: bool,
    /// What the exit file says.
    pub sentinel: Sentinel,
    /// Size of all output in bytes, including what the log has not kept.
    pub output_bytes: u64,
    /// True when output is missing from the log because it could not be written.
    pub incomplete: bool,
    /// What the log has not kept because of the output limit.
    pub gap: Option<Gap>,
    /// What the command used, if it has ended and the bridge reports it.
    pub usage: Option<ResourceUsage>,
    /// How many processes in the sandbox were killed for lack of memory while the command ran, as the sandbox reports.
    pub oom_kills: u32,
}
