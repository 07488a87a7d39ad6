//! Why the engine could not do what was asked.

use std::time::Duration;

use errand_bridge::{FileError, InputError, ReadError};
use errand_runtime::RuntimeError;
use errand_secrets::VaultError;
use errand_store::StoreError;
use errand_task::{BotId, FileRefusal, TaskId, TenantId};

/// Why the engine could not do what was asked. One table in the API maps each variant to a gRPC status.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The task does not exist, or the caller may not know of it.
    #[error("there is no such task")]
    NoSuchTask,
    /// The bot has no sandbox.
    #[error("the bot {0} has no sandbox")]
    NoSandbox(BotId),
    /// The bot has a sandbox with another specification than the request asks for.
    #[error("the sandbox exists with another {}; delete it first, or request it unchanged", fields.join(", "))]
    OtherSpec {
        /// Which fields differ.
        fields: Vec<&'static str>,
    },
    /// The bot has another sandbox.
    #[error("the bot has another sandbox, {name}; delete it first")]
    OtherSandbox {
        /// Name of the sandbox's container.
        name: String,
    },
    /// The container does not exist, or this caller may not adopt it. The error does not say which, so that a caller cannot find out which
    /// containers exist.
    #[error(
        "there is no container {container:?} that may be adopted: it must run and carry the label {label}={tenant} (and, for one bot \
         only, {bot_label}={bot}); or the token needs `adopt = true` in the tokens file, or a server without one --allow-adopt"
    )]
    NotAdoptable {
        /// The container that the request names.
        container: String,
        /// The label that names the tenant.
        label: &'static str,
        /// The caller's tenant.
        tenant: TenantId,
        /// The label that names the bot.
        bot_label: &'static str,
        /// The bot that was to adopt the container.
        bot: BotId,
    },
    /// The tenant has as many sandboxes as its allowance permits.
    #[error("the tenant has {limit} sandboxes, its maximum; delete one first")]
    TooManySandboxes {
        /// The most sandboxes that the tenant may have.
        limit: u32,
    },
    /// The sandbox's specification exceeds the tenant's current allowance.
    #[error("the sandbox cannot be made: {field} {rule}; delete it and request another one")]
    OutOfBounds {
        /// The field that exceeds it.
        field: &'static str,
        /// The rule that the field breaks.
        rule: String,
    },
    /// A pattern of a watch holds a secret. It would be shown with the task.
    #[error(
        "watches: pattern {index} holds a secret of the task, or something that looks like one, and would be shown"
    )]
    SecretInWatch {
        /// The watch's place in the request.
        index: usize,
    },
    /// The tenant has too many sandbox operations in progress.
    #[error("the tenant already has {limit} sandboxes that are being made, started or removed, its maximum; try again")]
    TooManyAtOnce {
        /// The most such operations at the same time.
        limit: usize,
    },
    /// Another call about the same bot's sandbox has held the lock for too long.
    #[error("another call is making, starting or removing the sandbox of the bot {0}; try again")]
    SandboxBusy(BotId),
    /// The container is already the sandbox of another bot or tenant.
    #[error("the container is the sandbox of another bot")]
    NotYours,
    /// The adopted container does not run. Errand never starts a container that it did not make.
    #[error("the adopted container {name} is not running; start it, or delete the sandbox to get a new one")]
    AdoptedNotRunning {
        /// Its name.
        name: String,
    },
    /// The bot's sandbox belongs to a runtime that this server does not offer. The server does not touch it.
    #[error(
        "the sandbox {name} belongs to the runtime {runtime}, which this server does not offer; \
         start the server with --runtime {runtime}"
    )]
    OtherRuntime {
        /// Its name.
        name: String,
        /// The runtime that the sandbox belongs to.
        runtime: String,
    },
    /// The sandbox does not run, so nothing can be read or written in it.
    #[error("the sandbox is not running: nothing can be read or written in it")]
    SandboxNotRunning,
    /// The sandbox's kind of bridge cannot do what the request asks for.
    #[error("the sandbox has only the {bridge} bridge{}, which cannot keep {}", reason(why), fields.join(", "))]
    BridgeCannot {
        /// The fields of the request that it cannot honour.
        fields: Vec<&'static str>,
        /// The kind of bridge that the sandbox has.
        bridge: &'static str,
        /// Why the sandbox has no other kind of bridge; empty when unknown.
        why: String,
    },
    /// The task was started without input.
    #[error("the task takes no input: it was started with neither stdin nor a terminal")]
    InputNotOpen,
    /// The task was started without a terminal.
    #[error("the task has no terminal")]
    NoTerminal,
    /// The command reads no more input.
    #[error("the input of the task is closed: a caller ended it, the command closed it, or the command has ended")]
    InputClosed,
    /// The input would start after the end of what was taken, and leave a gap.
    #[error("offset {offset} is past the end of the input, of which {taken} bytes were taken")]
    InputPastTheEnd {
        /// Where the input would start.
        offset: u64,
        /// How many bytes the command has taken in all.
        taken: u64,
    },
    /// The sandbox's kind of bridge cannot pass input to a command.
    #[error("the task cannot take input: {why}")]
    InputUnsupported {
        /// Why not.
        why: String,
    },
    /// Another call's input comes first, and the command did not take that input in time.
    #[error("the command has not yet taken the input of an earlier call; try again")]
    InputBusy,
    /// The command did not start in time.
    #[error("the command has not started yet")]
    NotStartedYet,
    /// The task is finished: it has no processes.
    #[error("the task has finished")]
    AlreadyFinished,
    /// A change of the task could not be stored in time.
    #[error("the change is not stored yet: the task is being launched, or the server cannot store it; try again")]
    ChangePending,
    /// The store did not take the new watches in time. It may still do so.
    #[error("the watches could not be stored in time; try again")]
    WatchesNotStored,
    /// No process of the command can be signalled.
    #[error("no process of the task is left that the signal could go to")]
    NothingToSignal,
    /// One of the tasks of a request does not exist, or the caller may not know of it.
    #[error("there is no task {task}")]
    NoneOfThese {
        /// The task.
        task: TaskId,
    },
    /// Tasks that wait for room come before the new one.
    #[error("other tasks of the {subject} wait in the queue and come first; wait too, with when_full, or try again")]
    OthersFirst {
        /// Whose tasks: `bot` or `tenant`.
        subject: &'static str,
    },
    /// The request id was used for another command.
    #[error("request_id was used for another command of this bot")]
    RequestIdReused,
    /// The log was removed from the sandbox.
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
    /// The task's log does not tell its streams apart.
    #[error("the task records both streams together; start it with separate_stderr to read one of them")]
    StreamsTogether,
    /// The end of the log was not reached in time, so that its last lines are unknown.
    #[error(
        "only {read} of the log's {size} bytes could be read within {limit:?}; select lines from the beginning, or bytes"
    )]
    ScanTooLong {
        /// How long a scan may take.
        limit: Duration,
        /// How many bytes were read.
        read: u64,
        /// Size of all output.
        size: u64,
    },
    /// An operation on a file was refused; the refusal says why.
    #[error(transparent)]
    File(FileRefusal),
    /// The upload of a file is incomplete. Nothing was written.
    #[error("upload incomplete; nothing was written")]
    FileAbandoned,
    /// The server has not yet reconciled the bot's tasks since it started.
    #[error("the tasks of the bot {bot} are being reconciled ({reason}); try again")]
    Reconciling {
        /// The bot.
        bot: BotId,
        /// What the reconciliation is waiting for.
        reason: String,
    },
    /// The secrets of the request cannot be encrypted.
    #[error("the request cannot be stored with its secrets: {0}")]
    Secrets(VaultError),
    /// A part of the server panicked while it worked on the request.
    #[error("the request failed because of a bug in the server; see the server's log")]
    Defect,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// Another server supervises the task, or this one is about to supervise it again.
    #[error("the task is between two supervisors; try again")]
    SupervisedElsewhere,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Formats a reason so that it can follow the text that it explains.
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
