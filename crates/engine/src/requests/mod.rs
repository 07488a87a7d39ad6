//! What callers ask of the engine and what they get. The calls themselves: `tasks`, `signal`, `policy`, `watches`, `output`, `scan` and
//! `sandboxes`.

mod output;
mod policy;
mod sandboxes;
mod scan;
mod signal;
mod tasks;
mod watches;

use std::collections::BTreeMap;

use errand_bridge::OutputPiece;
use errand_runtime::Found;
use errand_store::BotFilter;
use errand_task::{
    NotifyPolicy, Owner, SandboxRecord, SandboxSpec, Secret, SessionId, Task, TaskId, TaskSpec, TenantId, Watch,
};

/// What to start.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// The owner of the new task.
    pub owner: Owner,
    /// What to run. The caller has validated it.
    pub spec: TaskSpec,
    /// What to watch its output for. The caller has validated it.
    pub watches: Vec<Watch>,
    /// How to make the bot's sandbox if the bot has none.
    pub sandbox: Option<SandboxSpec>,
    /// What the session is told about it.
    pub notify: NotifyPolicy,
    /// Variables of the command whose values are secret.
    pub secret_env: BTreeMap<String, Secret>,
}

/// An accepted task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The task.
    pub task: Task,
    /// True when the request id named an earlier task; `task` is that task.
    pub existed: bool,
}

/// Names a task, within what the caller may access.
#[derive(Debug, Clone)]
pub struct TaskRef {
    /// The caller's tenant.
    pub tenant: TenantId,
    /// The bots that the caller asks about and may use.
    pub bots: BotFilter,
    /// The session that the task must belong to.
    pub session: Option<SessionId>,
    /// The task.
    pub id: TaskId,
}

/// Which parts of a log to read. Limits are in bytes; the caller has validated them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadSelection {
    /// From an offset on.
    Range {
        /// First byte.
        offset: u64,
        /// The most bytes.
        limit: u64,
    },
    /// The end of the log.
    Tail {
        /// The most bytes.
        limit: u64,
    },
    /// The beginning and the end of the log.
    HeadTail {
        /// The most bytes of the beginning.
        head: u64,
        /// The most bytes of the end.
        tail: u64,
    },
}

/// Parts of a log, in order and without overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputSlice {
    /// The parts. Each comes from one stream.
    pub parts: Vec<OutputPiece>,
    /// Bytes of all output at the time of reading.
    pub total: u64,
    /// True when the log will not grow any more.
    pub finished: bool,
    /// Rows of the command's terminal when it was started; none without a terminal.
    pub terminal_rows: Option<u16>,
}

/// A sandbox and its current state in the runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxView {
    /// The stored record.
    pub record: SandboxRecord,
    /// The state that the runtime reports.
    pub state: SandboxState,
}

/// The state of a sandbox that the runtime reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxState {
    /// The sandbox runs.
    Running,
    /// The sandbox exists and does not run.
    Stopped,
    /// The sandbox does not exist.
    Gone,
    /// The runtime does not answer.
    Unknown,
}

impl SandboxState {
    pub(super) fn of(found: &Found) -> Self {
        if found.running { Self::Running } else { Self::Stopped }
    }
}
