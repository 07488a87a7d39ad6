//! How a command ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    form::{Form, form},
    notify::is_false,
};

form! {
    enum Outcome {
        Exited {
            code: u8,
        },
        Signaled {
            signal: Signal,
        },
        TimedOut {
            after: Duration,
        },
        Stopped {
            cause: StopCause,
            signal: Option<Signal>,
        },
        FailedToStart {
            failure: StartFailure,
            #[serde(default)]
            errno: Option<i32>,
            message: String,
        },
        Lost {
            reason: LossReason,
            message: String,
        },
    }
}

form! {
    enum StopCause {
        Request {
            reason: String,
            #[serde(default, skip_serializing_if = "is_false")]
            acknowledge: bool,
        },
        Disconnect,
        SandboxStopped,
        SandboxDeleted,
        ServerShutdown,
        Timeout {
            after: Duration,
        },
    }
}

form! {
    enum StartFailure {
        NotFound,
        NotExecutable,
        BadInterpreter,
        NoSuchDirectory,
        NotPermitted,
        NoSuchUser,
        NoSpace,
        SandboxGone,
        LaunchInterrupted,
        ForkRefused,
        ArgumentsTooLarge,
        Refused,
        QueueDeadline,
    }
}

form! {
    enum LossReason {
        SandboxRestarted,
        SandboxRemoved,
        SandboxStopped,
        LogDirectoryGone,
        ExitFileUnreadable,
        SupervisorKilled,
        LaunchInterrupted,
        SandboxUnresponsive,
        SandboxOutOfMemory,
    }
}

/// A signal by its number. A number that is no signal is refused.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(into = "i32", try_from = "i32")]
pub(super) struct Signal(errand_task::Signal);

impl From<Signal> for i32 {
    fn from(signal: Signal) -> Self {
        signal.0.number()
    }
}

impl TryFrom<i32> for Signal {
    type Error = &'static str;

    fn try_from(number: i32) -> Result<Self, Self::Error> {
        errand_task::Signal::new(number).map(Self).ok_or("not the number of a signal")
    }
}

impl Form for Signal {
    type Domain = errand_task::Signal;

    fn of(domain: &Self::Domain) -> Self {
        Self(*domain)
    }

    fn into_domain(self) -> Self::Domain {
        self.0
    }
}
