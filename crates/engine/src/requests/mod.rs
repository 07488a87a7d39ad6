//! What callers ask of the engine and what they get. The calls themselves: `tasks`, `output` and `sandboxes`.

mod output;
mod sandboxes;
mod tasks;

use std::time::Duration;

use errand_bridge::OutputPiece;
use errand_runtime::Found;
use errand_store::BotFilter;
use errand_task::{Owner, SandboxRecord, SandboxSpec, SessionId, Task, TaskId, TaskSpec, TenantId};

/// What to start.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// Whose task it will be.
    pub owner: Owner,
    /// What to run. Checked by the caller.
    pub spec: TaskSpec,
    /// How to make the bot's sandbox if it has none.
    pub sandbox: Option<SandboxSpec>,
}

/// An accepted task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The task.
    pub task: Task,
    /// True when its request id named an earlier one, which this is.
    pub existed: bool,
}

/// Names a task, within what the caller may see.
#[derive(Debug, Clone)]
pub struct TaskRef {
    /// The caller's tenant.
    pub tenant: TenantId,
    /// The bots that the caller means and may use.
    pub bots: BotFilter,
    /// The session that it must belong to.
    pub session: Option<SessionId>,
    /// The task.
    pub id: TaskId,
}

/// How long to wait, and for what.
#[derive(Debug, Clone, Copy)]
pub struct WaitRequest {
    /// The longest.
    pub timeout: Duration,
    /// Also for a stall.
    pub until_stalled: bool,
    /// Also for this long a silence after output.
    pub until_idle: Option<Duration>,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitResult {
    /// The task is finished.
    Finished,
    /// It is stalled.
    Stalled,
    /// It had output and then none for the time asked.
    Idle,
    /// The time passed.
    Timeout,
}

/// Which pieces of a log to read. Limits are in bytes and checked by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadSelection {
    /// From an offset on.
    Range {
        /// First byte.
        offset: u64,
        /// The most bytes.
        limit: u64,
    },
    /// The end.
    Tail {
        /// The most bytes.
        limit: u64,
    },
    /// Beginning and end.
    HeadTail {
        /// The most bytes of the beginning.
        head: u64,
        /// The most bytes of the end.
        tail: u64,
    },
}

/// Pieces of a log in order, none of which overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputSlice {
    /// Each of one stream.
    pub parts: Vec<OutputPiece>,
    /// Bytes of all output then.
    pub total: u64,
    /// True when the log will not grow any more.
    pub finished: bool,
}

/// A sandbox and how the runtime sees it now.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxView {
    /// What Errand remembers.
    pub record: SandboxRecord,
    /// What the runtime says.
    pub state: SandboxState,
}

/// How the runtime sees a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxState {
    /// It runs.
    Running,
    /// It is there and does not run.
    Stopped,
    /// It is not there.
    Gone,
    /// The runtime does not answer.
    Unknown,
}

impl SandboxState {
    pub(super) fn of(found: &Found) -> Self {
        if found.running { Self::Running } else { Self::Stopped }
    }
}
