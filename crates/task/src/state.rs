//! The one state machine of a task. Live operation and recovery both go through [`transition`].

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Ending, Outcome, Signal, StopCause};

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Accepted; certainly not launched.
    Queued,
    /// A launch was begun, and nothing more is known of it.
    Starting {
        /// The sandbox's life in which it was begun.
        incarnation: Incarnation,
    },
    /// The command runs.
    Running {
        /// The sandbox's life in which it runs.
        incarnation: Incarnation,
        /// The command's first process.
        process: ProcessIdentity,
        /// When that process was made.
        started_at: SystemTime,
    },
    /// The command is being stopped.
    Stopping {
        /// The sandbox's life in which it runs.
        incarnation: Incarnation,
        /// The command's first process.
        process: ProcessIdentity,
        /// When that process was made.
        started_at: SystemTime,
        /// Who asked.
        cause: StopCause,
    },
    /// Over. Final.
    Finished {
        /// How.
        outcome: Outcome,
        /// When the command was started, if it was.
        started_at: Option<SystemTime>,
        /// When this was found.
        finished_at: SystemTime,
    },
}

/// One life of a sandbox: it changes when the sandbox is restarted, because that ends every process in it. Opaque; a runtime makes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub String);

/// A process that cannot be taken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Process id inside the sandbox.
    pub pid: u32,
    /// Kernel start time in clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// A state in one word, as the API shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, not launched.
    Queued,
    /// Being launched.
    Starting,
    /// Runs.
    Running,
    /// Being stopped.
    Stopping,
    /// Exited with code 0.
    Succeeded,
    /// Exited with another code, or ended by a signal.
    Failed,
    /// Stopped on purpose.
    Stopped,
    /// Ran out of time.
    TimedOut,
    /// Never ran.
    FailedToStart,
    /// Nobody can know.
    Lost,
}

impl Status {
    /// All of them, in the order of a task's life.
    pub const ALL: [Self; 10] = [
        Self::Queued,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Succeeded,
        Self::Failed,
        Self::Stopped,
        Self::TimedOut,
        Self::FailedToStart,
        Self::Lost,
    ];

    /// The word for it in the store and in texts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::TimedOut => "timed_out",
            Self::FailedToStart => "failed_to_start",
            Self::Lost => "lost",
        }
    }

    /// The status with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }

    /// True for a status that never changes again.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Starting | Self::Running | Self::Stopping => false,
            Self::Succeeded | Self::Failed | Self::Stopped | Self::TimedOut | Self::FailedToStart | Self::Lost => true,
        }
    }
}

impl Outcome {
    /// The terminal status that this outcome leads to.
    pub fn status(&self) -> Status {
        match self {
            Self::Exited { code: 0 } => Status::Succeeded,
            Self::Exited { .. } | Self::Signaled { .. } => Status::Failed,
            Self::TimedOut { .. } => Status::TimedOut,
            Self::Stopped { .. } => Status::Stopped,
            Self::FailedToStart { .. } => Status::FailedToStart,
            Self::Lost { .. } => Status::Lost,
        }
    }
}

impl TaskState {
    /// The state in one word.
    pub fn status(&self) -> Status {
        match self {
            Self::Queued => Status::Queued,
            Self::Starting { .. } => Status::Starting,
            Self::Running { .. } => Status::Running,
            Self::Stopping { .. } => Status::Stopping,
            Self::Finished { outcome, .. } => outcome.status(),
        }
    }

    /// The outcome of a finished task.
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Finished { outcome, .. } => Some(outcome),
            Self::Queued | Self::Starting { .. } | Self::Running { .. } | Self::Stopping { .. } => None,
        }
    }

    /// When the command was started, if that is known.
    pub fn started_at(&self) -> Option<SystemTime> {
        match self {
            Self::Queued | Self::Starting { .. } => None,
            Self::Running { started_at, .. } | Self::Stopping { started_at, .. } => Some(*started_at),
            Self::Finished { started_at, .. } => *started_at,
        }
    }

    /// When the task was found to be over.
    pub fn finished_at(&self) -> Option<SystemTime> {
        match self {
            Self::Finished { finished_at, .. } => Some(*finished_at),
            Self::Queued | Self::Starting { .. } | Self::Running { .. } | Self::Stopping { .. } => None,
        }
    }

    /// The sandbox's life in which the command was launched, while it is unfinished.
    pub fn incarnation(&self) -> Option<&Incarnation> {
        match self {
            Self::Starting { incarnation } | Self::Running { incarnation, .. } | Self::Stopping { incarnation, .. } => {
                Some(incarnation)
            }
            Self::Queued | Self::Finished { .. } => None,
        }
    }

    /// The command's first process, while it is unfinished.
    pub fn process(&self) -> Option<ProcessIdentity> {
        match self {
            Self::Running { process, .. } | Self::Stopping { process, .. } => Some(*process),
            Self::Queued | Self::Starting { .. } | Self::Finished { .. } => None,
        }
    }
}

/// What can happen to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// From here on the command may run at any moment.
    LaunchBegan {
        /// The sandbox's life.
        incarnation: Incarnation,
    },
    /// The command's first process exists.
    Started {
        /// That process.
        process: ProcessIdentity,
        /// When it was made.
        at: SystemTime,
    },
    /// Somebody wants the command stopped, or its time is up.
    StopRequested {
        /// Who, and why.
        cause: StopCause,
        /// When.
        at: SystemTime,
    },
    /// The command is over, or never was, or nobody can know.
    Ended {
        /// What was found.
        ending: Ending,
        /// When the command was started, where the finding tells.
        started_at: Option<SystemTime>,
        /// Whether a signal of a stop may have reached the command before. Counts for a task that is being stopped.
        signalled: bool,
        /// When it was found.
        at: SystemTime,
    },
}

/// What an event does to a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// The task moves.
    To(TaskState),
    /// The event says nothing new, or comes too late or too early to matter.
    Unchanged,
    /// A result for a task that already ended otherwise. Recorded beside its outcome, never in its place.
    Late(Outcome),
}

/// What `event` makes of `state`. Total: every pair is decided here and nowhere else.
pub fn transition(state: &TaskState, event: Event) -> Transition {
    use Transition::{Late, To, Unchanged};
    match (state, event) {
        (TaskState::Queued, Event::LaunchBegan { incarnation }) => To(TaskState::Starting { incarnation }),
        // Only a launch can bring a process about.
        (TaskState::Queued, Event::Started { .. }) => Unchanged,
        (TaskState::Queued, Event::StopRequested { cause, at }) => {
            To(TaskState::Finished { outcome: stopped(cause, None), started_at: None, finished_at: at })
        }
        (TaskState::Queued, Event::Ended { ending, started_at, at, .. }) => {
            To(TaskState::Finished { outcome: unasked(ending), started_at, finished_at: at })
        }

        // A launch that certainly did not happen is begun again, perhaps in another life of the sandbox.
        (TaskState::Starting { incarnation: before }, Event::LaunchBegan { incarnation }) if *before != incarnation => {
            To(TaskState::Starting { incarnation })
        }
        (TaskState::Starting { .. }, Event::LaunchBegan { .. }) => Unchanged,
        (TaskState::Starting { incarnation }, Event::Started { process, at }) => {
            To(TaskState::Running { incarnation: incarnation.clone(), process, started_at: at })
        }
        // A launch cannot be called back: the supervisor keeps the order until it is known what came of the launch.
        (TaskState::Starting { .. }, Event::StopRequested { .. }) => Unchanged,
        (TaskState::Starting { .. }, Event::Ended { ending, started_at, at, .. }) => {
            To(TaskState::Finished { outcome: unasked(ending), started_at, finished_at: at })
        }

        (TaskState::Running { .. }, Event::LaunchBegan { .. } | Event::Started { .. }) => Unchanged,
        (TaskState::Running { incarnation, process, started_at }, Event::StopRequested { cause, .. }) => {
            To(TaskState::Stopping {
                incarnation: incarnation.clone(),
                process: *process,
                started_at: *started_at,
                cause,
            })
        }
        (TaskState::Running { started_at, .. }, Event::Ended { ending, at, .. }) => {
            To(TaskState::Finished { outcome: unasked(ending), started_at: Some(*started_at), finished_at: at })
        }

        // The first cause stands: a timeout that strikes during a stop is still that stop.
        (
            TaskState::Stopping { .. },
            Event::LaunchBegan { .. } | Event::Started { .. } | Event::StopRequested { .. },
        ) => Unchanged,
        (TaskState::Stopping { cause, started_at, .. }, Event::Ended { ending, signalled, at, .. }) => {
            // What ended before any signal went ended by itself.
            let outcome = if signalled { asked(cause.clone(), ending) } else { unasked(ending) };
            To(TaskState::Finished { outcome, started_at: Some(*started_at), finished_at: at })
        }

        (
            TaskState::Finished { .. },
            Event::LaunchBegan { .. } | Event::Started { .. } | Event::StopRequested { .. },
        ) => Unchanged,
        (TaskState::Finished { outcome, .. }, Event::Ended { ending, .. }) => {
            if agrees(outcome, &ending) {
                Unchanged
            } else {
                Late(unasked(ending))
            }
        }
    }
}

/// The outcome of an ending that Errand did not cause.
fn unasked(ending: Ending) -> Outcome {
    match ending {
        Ending::Exited(code) => Outcome::Exited { code },
        Ending::Signaled(signal) => Outcome::Signaled { signal },
        Ending::TimedOut { after } => Outcome::TimedOut { after },
        Ending::FailedToStart { failure, errno, message } => Outcome::FailedToStart { failure, errno, message },
        Ending::Lost { reason, message } => Outcome::Lost { reason, message },
    }
}

/// The outcome of an ending that came while Errand was stopping the command.
fn asked(cause: StopCause, ending: Ending) -> Outcome {
    match ending {
        // A command may answer SIGTERM by exiting with any code: it was stopped all the same.
        Ending::Exited(_) => stopped(cause, Some(Signal::TERM)),
        Ending::Signaled(signal) => stopped(cause, Some(signal)),
        // Its time was up while it was being stopped: the stop came first, and the sandbox did not know of it.
        Ending::TimedOut { .. } => stopped(cause, Some(Signal::TERM)),
        Ending::FailedToStart { failure, errno, message } => Outcome::FailedToStart { failure, errno, message },
        Ending::Lost { reason, message } => Outcome::Lost { reason, message },
    }
}

fn stopped(cause: StopCause, signal: Option<Signal>) -> Outcome {
    match cause {
        StopCause::Timeout { after } => Outcome::TimedOut { after },
        cause @ (StopCause::Request { .. }
        | StopCause::Disconnect
        | StopCause::SandboxStopped
        | StopCause::SandboxDeleted
        | StopCause::ServerShutdown) => Outcome::Stopped { cause, signal },
    }
}

/// True when `ending` is no news beside `outcome`.
fn agrees(outcome: &Outcome, ending: &Ending) -> bool {
    match outcome {
        Outcome::Exited { code } => *ending == Ending::Exited(*code),
        Outcome::Signaled { signal } => *ending == Ending::Signaled(*signal),
        Outcome::TimedOut { .. } => !matches!(ending, Ending::FailedToStart { .. }),
        // Losing sight of a command that was stopped is no news; a sign of life from one that never ran is.
        Outcome::Stopped { cause, signal } => {
            matches!(ending, Ending::Lost { .. })
                || (signal.is_some() && matches!(ending, Ending::TimedOut { .. }))
                || asked(cause.clone(), ending.clone()) == stopped(cause.clone(), *signal)
        }
        Outcome::FailedToStart { .. } => matches!(ending, Ending::FailedToStart { .. }),
        Outcome::Lost { .. } => matches!(ending, Ending::Lost { .. }),
    }
}

#[cfg(test)]
mod tests;
