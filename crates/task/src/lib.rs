//! The domain: tasks, outcomes, sandboxes and notifications, the rules between them, and the formats that server and guest share.
//!
//! Pure: no I/O, no clock, no async. It imports no other package of the workspace.

mod advice;
mod bounds;
mod error_chain;
pub mod escapes;
mod file;
pub mod human;
mod id;
mod notification;
mod notify_policy;
mod observed;
mod outcome;
pub mod output;
pub mod passwd;
pub mod prompt;
mod record;
mod retained;
mod sandbox;
mod secret;
pub mod sentinel;
mod shorten;
mod spec;
mod state;
mod text;
mod texts;
mod trace;
mod watch;

pub use bounds::{Patterns, SandboxBounds, byte_size};
pub use error_chain::error_chain;
pub use file::{
    ChangedFile, FileChange, FileEntry, FileKind, FilePath, FileProblem, FileRefusal, TreeOptions, TreeWritten,
    WriteOptions,
};
pub use id::{BotId, IdError, LeaseId, Nonce, Owner, SandboxId, SessionId, TaskId, TenantId};
pub use notification::{Liveness, NOTIFICATION_LIMIT, NewNotification, Notification, NotificationKind};
pub use notify_policy::{
    CompletionNotice, HEARTBEAT_LEAST, IDLE_LEAST, NOTICE_OUTPUT_LIMIT, NOTICE_TAIL_DEFAULT, NotifyPolicy,
};
pub use observed::{Gap, MemoryKills, OutputSummary, Reads, ResourceUsage, Stall, Stream, Waiting};
pub use outcome::{Ending, LossReason, Outcome, Signal, SignalTarget, StartFailure, StopCause};
pub use record::Task;
pub use retained::{Retained, RetainedOutput, Run};
pub use sandbox::{SandboxRecord, SandboxSpec};
pub use secret::Secret;
pub use spec::{DEFAULT_OUTPUT_LIMIT, Program, ResourceLimits, Stdin, TaskSpec, TerminalSize, WhenFull};
pub use state::{Event, Incarnation, ProcessIdentity, Status, TaskState, Transition, transition};
pub use text::{plain, preview, preview_of, summarize};
pub use trace::{TraceParent, TraceParentError};
pub use watch::{
    ArmedWatch, WATCH_LIMIT, Watch, WatchCount, WatchLines, WatchMatches, WatchNotice, WatchPattern, WatchState,
    Watches,
};
