//! The domain: tasks, outcomes, sandboxes and notifications, the rules between them, and the formats that server and guest share.
//!
//! Pure: no I/O, no clock, no async. It imports no other package of the workspace.

mod bounds;
mod error_chain;
pub mod escapes;
mod file;
mod id;
mod notification;
mod observed;
mod outcome;
pub mod output;
pub mod passwd;
pub mod prompt;
mod record;
mod sandbox;
pub mod sentinel;
mod shorten;
mod spec;
mod state;
mod text;

pub use bounds::{Patterns, SandboxBounds, byte_size};
pub use error_chain::error_chain;
pub use file::{
    ChangedFile, FileChange, FileEntry, FileKind, FilePath, FileProblem, FileRefusal, TreeOptions, TreeWritten,
    WriteOptions,
};
pub use id::{BotId, IdError, LeaseId, Nonce, Owner, SandboxId, SessionId, TaskId, TenantId};
pub use notification::{NewNotification, Notification, NotificationKind, TAIL_LIMIT};
pub use observed::{Gap, MemoryKills, OutputSummary, Reads, ResourceUsage, Stall, Stream, Waiting};
pub use outcome::{Ending, LossReason, Outcome, Signal, SignalTarget, StartFailure, StopCause};
pub use record::Task;
pub use sandbox::{SandboxRecord, SandboxSpec};
pub use spec::{DEFAULT_OUTPUT_LIMIT, Program, ResourceLimits, Stdin, TaskSpec, TerminalSize};
pub use state::{Event, Incarnation, ProcessIdentity, Status, TaskState, Transition, transition};
pub use text::{plain, preview, summarize};
