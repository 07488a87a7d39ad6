//! The state machine of a task. Live operation and recovery both change states only through [`transition`].

use std::time::SystemTime;

use super::{Ending, Outcome, Signal, StopCause};

/// The state of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// Accepted, and certainly not launched: its bot or its tenant has as many unfinished tasks as it may have, and the task waits for one of
    /// them to end. Callers see it as queued.
    AwaitingRoom,
    /// Accepted, and certainly not launched: it waits for a launch permit or its sandbox.
    Queued,
    /// A launch has begun and is not confirmed yet.
    Starting {
        /// The sandbox's incarnation at the launch.
        incarnation: Incarnation,
    },
    /// The command runs.
    Running {
        /// The sandbox's incarnation that it runs in.
        incarnation: Incarnation,
        /// The command's first process.
        process: ProcessIdentity,
        /// When that process started.
        started_at: SystemTime,
    },
    /// The command is being stopped.
    Stopping {
        /// The sandbox's incarnation that it runs in.
        incarnation: Incarnation,
        /// The command's first process.
        process: ProcessIdentity,
        /// When that process started.
        started_at: SystemTime,
        /// The origin of the stop.
        cause: StopCause,
    },
    /// The task has ended. It never changes again.
    Finished {
        /// How it ended.
        outcome: Outcome,
        /// When the command started; `None` if it never did or the time is unknown.
        started_at: Option<SystemTime>,
        /// When the end was found.
        finished_at: SystemTime,
    },
}

/// Identifies the time between a start and a stop of a sandbox. A restart ends every process in the sandbox and makes a new incarnation.
/// Opaque: the runtime chooses the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Incarnation(pub String);

/// A process, identified by more than its number, because the kernel reuses numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Process id inside the sandbox.
    pub pid: u32,
    /// Kernel start time in clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// The status of a task, as the API shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Accepted, not launched yet.
    Queued,
    /// Being launched in the sandbox.
    Starting,
    /// The command runs.
    Running,
    /// The command is being stopped.
    Stopping,
    /// The command exited with code 0.
    Succeeded,
    /// The command exited with another code, or a signal ended it.
    Failed,
    /// The task was stopped on purpose.
    Stopped,
    /// The task ran longer than its timeout and was stopped.
    TimedOut,
    /// The command never ran.
    FailedToStart,
    /// How the command ended cannot be known.
    Lost,
}

impl Status {
    /// All statuses, in the order of a task's life.
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

    /// Its name in the store and in texts.
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

    /// The status with this name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }

    /// True if the task has ended: its status never changes again.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Starting | Self::Running | Self::Stopping => false,
            Self::Succeeded | Self::Failed | Self::Stopped | Self::TimedOut | Self::FailedToStart | Self::Lost => true,
        }
    }
}

impl Outcome {
    /// The terminal status of this outcome.
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
    /// The status of this state.
    pub fn status(&self) -> Status {
        match self {
            Self::AwaitingRoom | Self::Queued => Status::Queued,
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
            Self::AwaitingRoom
            | Self::Queued
            | Self::Starting { .. }
            | Self::Running { .. }
            | Self::Stopping { .. } => None,
        }
    }

    /// When the command started; `None` if it did not or the time is unknown.
    pub fn started_at(&self) -> Option<SystemTime> {
        match self {
            Self::AwaitingRoom | Self::Queued | Self::Starting { .. } => None,
            Self::Running { started_at, .. } | Self::Stopping { started_at, .. } => Some(*started_at),
            Self::Finished { started_at, .. } => *started_at,
        }
    }

    /// When the task ended.
    pub fn finished_at(&self) -> Option<SystemTime> {
        match self {
            Self::Finished { finished_at, .. } => Some(*finished_at),
            Self::AwaitingRoom
            | Self::Queued
            | Self::Starting { .. }
            | Self::Running { .. }
            | Self::Stopping { .. } => None,
        }
    }

    /// The sandbox's incarnation at the launch, while the task is unfinished.
    pub fn incarnation(&self) -> Option<&Incarnation> {
        match self {
            Self::Starting { incarnation } | Self::Running { incarnation, .. } | Self::Stopping { incarnation, .. } => {
                Some(incarnation)
            }
            Self::AwaitingRoom | Self::Queued | Self::Finished { .. } => None,
        }
    }

    /// The command's first process, while the task is unfinished.
    pub fn process(&self) -> Option<ProcessIdentity> {
        match self {
            Self::Running { process, .. } | Self::Stopping { process, .. } => Some(*process),
            Self::AwaitingRoom | Self::Queued | Self::Starting { .. } | Self::Finished { .. } => None,
        }
    }
}

/// An event in the life of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The bot and the tenant have room for the task: it no longer waits for the end of another one.
    Admitted,
    /// The launch begins: from now on the command may run at any moment.
    LaunchBegan {
        /// The sandbox's incarnation.
        incarnation: Incarnation,
    },
    /// The command's first process exists.
    Started {
        /// The first process.
        process: ProcessIdentity,
        /// When it started.
        at: SystemTime,
    },
    /// A stop was requested, or the timeout has passed.
    StopRequested {
        /// The origin and the reason.
        cause: StopCause,
        /// When the stop was requested.
        at: SystemTime,
    },
    /// The command has ended, or never ran, or its end cannot be known.
    Ended {
        /// The end as found.
        ending: Ending,
        /// When the command started, if the finding tells.
        started_at: Option<SystemTime>,
        /// Whether a signal may have reached the command before it ended. Relevant only for a task that is being stopped.
        signalled: bool,
        /// When the end was found.
        at: SystemTime,
    },
}

/// The effect of an event on a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// The task changes to this state.
    To(TaskState),
    /// The event is no news, or comes too early or too late.
    Unchanged,
    /// A result for a task that has already ended with another outcome. It is recorded beside the outcome and never replaces it.
    Late(Outcome),
}

/// The effect of `event` on `state`. Every pair of state and event is decided here and nowhere else.
pub fn transition(state: &TaskState, event: Event) -> Transition {
    use Transition::{Late, To, Unchanged};
    match (state, event) {
        (TaskState::AwaitingRoom, Event::Admitted) => To(TaskState::Queued),
        // A task that waits for room is not launched, so a process of it is impossible.
        (TaskState::AwaitingRoom, Event::LaunchBegan { .. } | Event::Started { .. }) => Unchanged,
        (TaskState::AwaitingRoom | TaskState::Queued, Event::StopRequested { cause, at }) => {
            To(TaskState::Finished { outcome: stopped(cause, None), started_at: None, finished_at: at })
        }
        (TaskState::AwaitingRoom | TaskState::Queued, Event::Ended { ending, started_at, at, .. }) => {
            To(TaskState::Finished { outcome: unasked(ending), started_at, finished_at: at })
        }

        (TaskState::Queued, Event::Admitted) => Unchanged,
        (TaskState::Queued, Event::LaunchBegan { incarnation }) => To(TaskState::Starting { incarnation }),
        // A process can exist only after a launch has begun.
        (TaskState::Queued, Event::Started { .. }) => Unchanged,

        // A launch that certainly did not happen is begun again, perhaps in another life of the sandbox.
        (TaskState::Starting { incarnation: before }, Event::LaunchBegan { incarnation }) if *before != incarnation => {
            To(TaskState::Starting { incarnation })
        }
        (TaskState::Starting { .. }, Event::Admitted | Event::LaunchBegan { .. }) => Unchanged,
        (TaskState::Starting { incarnation }, Event::Started { process, at }) => {
            To(TaskState::Running { incarnation: incarnation.clone(), process, started_at: at })
        }
        // A launch in flight cannot be cancelled: the supervisor remembers the stop until the launch has an answer.
        (TaskState::Starting { .. }, Event::StopRequested { .. }) => Unchanged,
        (TaskState::Starting { .. }, Event::Ended { ending, started_at, at, .. }) => {
            To(TaskState::Finished { outcome: unasked(ending), started_at, finished_at: at })
        }

        (TaskState::Running { .. }, Event::Admitted | Event::LaunchBegan { .. } | Event::Started { .. }) => Unchanged,
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

        // The first cause counts: a timeout that passes during a stop does not change the outcome.
        (
            TaskState::Stopping { .. },
            Event::Admitted | Event::LaunchBegan { .. } | Event::Started { .. } | Event::StopRequested { .. },
        ) => Unchanged,
        (TaskState::Stopping { cause, started_at, .. }, Event::Ended { ending, signalled, at, .. }) => {
            // The command ended before any signal was sent, so it ended by itself.
            let outcome = if signalled { asked(cause.clone(), ending) } else { unasked(ending) };
            To(TaskState::Finished { outcome, started_at: Some(*started_at), finished_at: at })
        }

        (
            TaskState::Finished { .. },
            Event::Admitted | Event::LaunchBegan { .. } | Event::Started { .. } | Event::StopRequested { .. },
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

/// The outcome of a command that ended by itself.
fn unasked(ending: Ending) -> Outcome {
    match ending {
        Ending::Exited(code) => Outcome::Exited { code },
        Ending::Signaled(signal) => Outcome::Signaled { signal },
        Ending::TimedOut { after } => Outcome::TimedOut { after },
        Ending::FailedToStart { failure, errno, message } => Outcome::FailedToStart { failure, errno, message },
        Ending::Lost { reason, message } => Outcome::Lost { reason, message },
    }
}

/// The outcome of a command that ended while Errand was stopping it.
fn asked(cause: StopCause, ending: Ending) -> Outcome {
    match ending {
        // A command may handle SIGTERM and exit with any code: the outcome is still *stopped*.
        Ending::Exited(_) => stopped(cause, Some(Signal::TERM)),
        Ending::Signaled(signal) => stopped(cause, Some(signal)),
        // The guest enforced the timeout without knowing of the earlier stop: the stop came first.
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

/// True if `ending` adds nothing to `outcome`.
fn agrees(outcome: &Outcome, ending: &Ending) -> bool {
    match outcome {
        Outcome::Exited { code } => *ending == Ending::Exited(*code),
        Outcome::Signaled { signal } => *ending == Ending::Signaled(*signal),
        Outcome::TimedOut { .. } => !matches!(ending, Ending::FailedToStart { .. }),
        // A loss after a stop is no news. A result of a command that was said to have never run is.
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
