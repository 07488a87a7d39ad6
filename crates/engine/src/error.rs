//! Why the engine did not do it.

use errand_bridge::{FileError, InputError, ReadError};
use errand_runtime::RuntimeError;
use errand_store::StoreError;
use errand_task::{BotId, FileRefusal, TenantId};

/// Why the engine did not do it. The API has one table from here to a status.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No such task, or not one that the caller may know of.
    #[error("there is no such task")]
    NoSuchTask,
    /// The bot has no sandbox.
    #[error("the bot {0} has no sandbox")]
    NoSandbox(BotId),
    /// The bot's sandbox exists and was made otherwise than asked.
    #[error("the sandbox exists with another {}: delete it first, or ask for it as it is", fields.join(", "))]
    OtherSpec {
        /// Which fields differ.
        fields: Vec<&'static str>,
    },
    /// The bot has another sandbox.
    #[error("the bot has another sandbox, {name}: delete it first")]
    OtherSandbox {
        /// Its container's name.
        name: String,
    },
    /// There is no such container, or not one that this caller may take: which of the two is not said, so that nobody learns what
    /// containers there are.
    #[error(
        "there is no container {container:?} that may be adopted: it must run and carry the label {label}={tenant} (and, for one bot \
         only, {bot_label}={bot}); or the token needs `adopt = true` in the tokens file, or a server without one --allow-adopt"
    )]
    NotAdoptable {
        /// What was asked for.
        container: String,
        /// The label that names the tenant.
        label: &'static str,
        /// The caller's.
        tenant: TenantId,
        /// The label that names the bot.
        bot_label: &'static str,
        /// The one that it was to be adopted for.
        bot: BotId,
    },
    /// The tenant has as many sandboxes as it may have.
    #[error("the tenant has {limit} sandboxes, the most that it may have: delete one first")]
    TooManySandboxes {
        /// How many it may have.
        limit: u32,
    },
    /// The specification is outside of what the tenant may have by now.
    #[error("the sandbox cannot be made: {field} {rule}; delete the sandbox and ask for another")]
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// Its rule.
        rule: String,
    },
    /// The tenant asks for too much work on sandboxes at the same time.
    #[error(
        "{limit} sandboxes of the tenant are being made, started or removed, as many as may be at the same time: try again"
    )]
    TooManyAtOnce {
        /// How many there may be at the same time.
        limit: usize,
    },
    /// Another call about the bot's sandbox takes long.
    #[error("another call is making, starting or removing the sandbox of the bot {0}: try again")]
    SandboxBusy(BotId),
    /// The container belongs to another bot or tenant.
    #[error("the container is the sandbox of another bot")]
    NotYours,
    /// The adopted container does not run, and Errand starts no container that it did not make.
    #[error("the adopted container {name} is not running: start it, or delete the sandbox to get a new one")]
    AdoptedNotRunning {
        /// Its name.
        name: String,
    },
    /// The bot's sandbox is kept by another runtime than this server's, and is not touched.
    #[error(
        "the sandbox {name} is one of the runtime {runtime}, and this server runs with another: it is not touched; \
         start the server with --runtime {runtime}"
    )]
    OtherRuntime {
        /// Its name.
        name: String,
        /// The runtime that keeps it.
        runtime: String,
    },
    /// The sandbox does not run, so that nothing can be read or written in it.
    #[error("the sandbox is not running: nothing can be read or written in it")]
    SandboxNotRunning,
    /// The sandbox has a bridge that cannot keep what the request asks for.
    #[error("the sandbox has only the {bridge} bridge{}, which cannot keep {}", reason(why), fields.join(", "))]
    BridgeCannot {
        /// The fields.
        fields: Vec<&'static str>,
        /// The bridge that the sandbox has.
        bridge: &'static str,
        /// Why it has no other, or empty.
        why: String,
    },
    /// The task was started without input.
    #[error("the task takes no input: it was started with neither stdin nor a terminal")]
    InputNotOpen,
    /// The task was started without a terminal.
    #[error("the task has no terminal")]
    NoTerminal,
    /// Nobody will read it.
    #[error("the task takes no input any more: its input was ended, the command closed it, or the command is over")]
    InputClosed,
    /// The input leaves something out.
    #[error("offset {offset} is past the end of the input, of which {taken} bytes were taken")]
    InputPastTheEnd {
        /// Where it would begin.
        offset: u64,
        /// How much was ever taken.
        taken: u64,
    },
    /// The sandbox's bridge gives no input.
    #[error("the task cannot be given input: {why}")]
    InputUnsupported {
        /// Why not.
        why: String,
    },
    /// Another call's input comes first, and the command did not take that in time.
    #[error("the input of another call has not been taken yet, and comes before this")]
    InputBusy,
    /// The command has not been started, which took too long to be waited for.
    #[error("the command has not started yet")]
    NotStartedYet,
    /// The request id was used for another command.
    #[error("request_id was used for another command of this bot")]
    RequestIdReused,
    /// The log was removed.
    #[error("the log is gone: its directory was removed in the sandbox")]
    LogGone,
    /// The offset is past the end of the log.
    #[error("offset {offset} is past the end of the output, which has {size} bytes")]
    PastTheEnd {
        /// The offset asked for.
        offset: u64,
        /// Size of the log.
        size: u64,
    },
    /// Something is in the way of using a file.
    #[error(transparent)]
    File(FileRefusal),
    /// The content of a file did not come to its end. Nothing was written.
    #[error("the content did not come to its end: nothing was written")]
    FileAbandoned,
    /// The server has not yet accounted for the bot's tasks since it was started.
    #[error("the tasks of the bot {bot} are being reconciled ({reason}): try again in a moment")]
    Reconciling {
        /// The bot.
        bot: BotId,
        /// What that waits for.
        reason: String,
    },
    /// A part of the server broke down while it worked on the request.
    #[error("the request failed because of a defect in the server; its log says more")]
    Defect,
    /// The server is ending.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// Another server supervises the task, or this one is about to supervise it again.
    #[error("the task is between two supervisors: try again")]
    SupervisedElsewhere,
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime did not do it.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// A reason behind what it explains.
fn reason(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(" ({why})") }
}

impl From<InputError> for EngineError {
    fn from(error: InputError) -> Self {
        match error {
            InputError::NotOpen => Self::InputNotOpen,
            InputError::Closed => Self::InputClosed,
            InputError::Unsupported { why } => Self::InputUnsupported { why },
            InputError::Runtime(RuntimeError::NoSuchSandbox { .. } | RuntimeError::NotRunning { .. }) => {
                Self::InputClosed
            }
            InputError::Runtime(error) => Self::Runtime(error),
        }
    }
}

impl From<ReadError> for EngineError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Gone => Self::LogGone,
            ReadError::Runtime(RuntimeError::NoSuchSandbox { .. } | RuntimeError::NotRunning { .. }) => {
                Self::SandboxNotRunning
            }
            ReadError::Runtime(error) => Self::Runtime(error),
        }
    }
}

impl From<FileError> for EngineError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Refused(refusal) => Self::File(refusal),
            FileError::Abandoned => Self::FileAbandoned,
            FileError::Runtime(RuntimeError::NoSuchSandbox { .. } | RuntimeError::NotRunning { .. }) => {
                Self::SandboxNotRunning
            }
            FileError::Runtime(error) => Self::Runtime(error),
        }
    }
}
