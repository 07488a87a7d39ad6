//! What goes into the machine and what comes out of it.

use std::time::{Duration, Instant, SystemTime};

use super::PolicyOrder;
use crate::live::{StopOrder, WatchOrder};
use errand_bridge::{Activity, Finding, LaunchSettings};
use errand_runtime::{FileAtRest, Found, RuntimeError};
use errand_store::StoreError;
use errand_task::{
    Ending, Gap, Incarnation, LossReason, NotificationKind, ProcessIdentity, ResourceUsage, Signal, Task, WatchMatches,
    WatchNotice,
};

/// When an input arrives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Monotonic time. Every deadline is measured by it, so that setting the machine's clock ends no command.
    pub(crate) at: Instant,
    /// Wall time, for records.
    pub(crate) wall: SystemTime,
}

/// Where supervision of a task begins.
#[derive(Debug)]
pub(crate) enum Entry {
    /// The bot or the tenant has no room for the task yet: wait for it.
    Queue,
    /// The command was certainly not launched, or its launch is reserved: launch it.
    Launch,
    /// Find out what became of the command.
    Look,
    /// Decide by what recovery found in the task's sandbox.
    Judge(Box<Found>, Box<Finding>),
    /// Nothing can be found out any more.
    Lost(LossReason),
}

/// What the machine is told.
#[derive(Debug)]
pub(crate) enum Input {
    /// A caller asked for a stop, or changed what it asked for.
    Ordered(StopOrder),
    /// A caller wants other watches.
    Watch(WatchOrder),
    /// Answers [`Operation::Store`]: the stored record, or an error that may be transient.
    Stored(Result<Box<Task>, StoreError>),
    /// Answers [`Operation::AwaitTurn`].
    TurnHasCome,
    /// Answers [`Operation::Admit`].
    Admission(Admission),
    /// Answers [`Operation::Place`].
    Placed(Placed),
    /// Answers [`Operation::CountMemoryKills`]; none where the runtime does not count.
    MemoryKills(Option<u64>),
    /// Answers [`Operation::Launch`]. On success, reports follow.
    Launched(Result<(), RuntimeError>),
    /// Answers [`Operation::Attach`]. On success, reports follow.
    Attached(Result<(), RuntimeError>),
    /// The attachment reports something.
    Reported(Reported),
    /// Answers [`Operation::ReadTail`]: the last bytes of the output.
    Tail(Vec<u8>),
    /// Answers [`Operation::Inspect`].
    Inspected(Result<Found, RuntimeError>),
    /// Answers [`Operation::Probe`]; none when the sandbox answered about no task.
    Probed(Result<Option<Finding>, RuntimeError>),
    /// Answers [`Operation::ReadAtRest`].
    AtRest(Result<Option<FileAtRest>, RuntimeError>),
    /// The signal of [`Action::Signal`] was sent. The number of processes that there were.
    Signalled(Result<u32, RuntimeError>),
    /// Answers [`Operation::Clear`]: the number of processes that there were.
    Cleared(Result<u32, RuntimeError>),
    /// Answers [`Operation::ReadRest`].
    RestRead(RestRead),
    /// A caller changed what is announced.
    PolicyWanted(PolicyOrder),
    /// Answers [`Operation::FindMemoryLimit`]: the sandbox's memory limit in bytes, if it is known.
    MemoryLimit(Option<u64>),
}

/// What came of asking the store for room.
#[derive(Debug)]
pub(crate) enum Admission {
    /// There is room: the stored record.
    Admitted(Box<Task>),
    /// There is none.
    NoRoom,
    /// The store failed, which may be transient.
    Failed,
}

/// What came of waiting for the launch permit and the sandbox.
#[derive(Debug)]
pub(crate) enum Placed {
    /// Both are there, and the sandbox runs in this incarnation.
    Ready(Incarnation),
    /// Not yet. The command was certainly not launched.
    NotYet,
    /// The command can never be launched; the reason as callers are told.
    Never(String),
}

/// What an attachment reports. The bytes of the output do not pass through the machine.
#[derive(Debug)]
pub(crate) enum Reported {
    /// Another launch has the task.
    Claimed,
    /// The command's first process exists, and is this old.
    Started { process: ProcessIdentity, age: Duration },
    /// Output arrived; all of it together ends at this byte.
    Output { end: u64 },
    /// Output was skipped; what is known of it ends at this byte.
    Skipped { end: u64 },
    /// The processes of a silent command were examined.
    Activity(Activity),
    /// The output matches watches.
    Matched { matches: Vec<WatchMatches>, unsearched: u64 },
    /// The command is over, or never ran.
    Ended { ending: Ending, usage: Option<ResourceUsage>, oom_kills: u32 },
    /// The log is complete.
    Over { bytes: u64, incomplete: bool, gap: Option<Gap> },
    /// The attachment broke off.
    Broken,
    /// The process that would have launched or followed the command was not started.
    Failed(RuntimeError),
}

/// What came of reading the unread end of the log.
#[derive(Debug)]
pub(crate) struct RestRead {
    /// Size of the log in bytes and what it has not kept, if that was found.
    pub(crate) log: Option<(u64, Option<Gap>)>,
    /// The output that is known now ends at this byte.
    pub(crate) end: u64,
    /// True when another attempt makes sense.
    pub(crate) again: bool,
}

/// What the carrier has to do. Actions are carried out in order.
#[derive(Debug)]
pub(crate) enum Action {
    /// Begin this operation and report its answer. It takes the place of an operation that still runs.
    Do(Operation),
    /// Send this signal in the background and report how that went.
    Signal { process: Option<ProcessIdentity>, signal: Signal },
    /// Ask the attachment for further output.
    FollowOutput,
    /// Drop the attachment.
    Detach,
    /// Leave the queue to the others.
    LeaveQueue,
    /// Release the launch permit.
    ReleasePermit,
    /// Let calls about the bot proceed.
    ReleaseHold,
    /// Say what calls about the bot wait for.
    HoldBecause(String),
    /// Show callers a record that is newer than what is stored.
    Publish { task: Box<Task>, log_bytes: u64 },
    /// Continue the output at this byte: what is missing before it was not kept.
    SkipTo(u64),
    /// A record with the policy of this number was stored.
    PolicyStored(u64),
}

/// Something that takes time. At most one runs at a time.
#[derive(Debug)]
pub(crate) enum Operation {
    /// Store a record together with a notification about it.
    Store { task: Box<Task>, notice: Option<Notice>, log_bytes: u64 },
    /// Wait until no other task comes first.
    AwaitTurn,
    /// Store this record if the bot and the tenant have room for the task.
    Admit { task: Box<Task> },
    /// Wait for a launch permit and the sandbox.
    Place,
    /// Count the processes that the sandbox's kernel killed for lack of memory.
    CountMemoryKills,
    /// Launch the command.
    Launch(LaunchSettings),
    /// Attach to the running command, with its output from this byte on.
    Attach { from: u64, limit: Duration },
    /// Read this many bytes at the end of the output.
    ReadTail { limit: usize },
    /// Ask the runtime about the sandbox.
    Inspect,
    /// Ask the sandbox about the task.
    Probe { fence: bool, limit: Duration },
    /// Read a file of a sandbox that does not run.
    ReadAtRest { path: String, limit: usize },
    /// Signal the processes of a command that has ended; without a signal, count them.
    Clear { process: Option<ProcessIdentity>, signal: Option<Signal>, limit: Option<Duration> },
    /// Read the unread end of the log.
    ReadRest { limit: Duration },
    /// Find the memory limit of the sandbox.
    FindMemoryLimit,
}

/// A notification to store with a record.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) kind: NotificationKind,
    pub(crate) at: SystemTime,
    /// How long the command has been silent, where that is told.
    pub(crate) silent_for: Option<Duration>,
    /// What matched.
    pub(crate) watch: Option<Box<WatchNotice>>,
    /// Matches that were not told when they were found.
    pub(crate) held_back: u64,
}

impl Notice {
    /// A notification that tells nothing of a silence or of watches.
    pub(crate) fn new(kind: NotificationKind, now: Moment) -> Self {
        Self { kind, at: now.wall, silent_for: None, watch: None, held_back: 0 }
    }
}
