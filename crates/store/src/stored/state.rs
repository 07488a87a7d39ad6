//! Where a task stands.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{
    form::{Form, form},
    outcome::{Outcome, StopCause},
};

form! {
    enum TaskState {
        AwaitingRoom,
        Queued,
        Starting {
            incarnation: Incarnation,
        },
        Running {
            incarnation: Incarnation,
            process: ProcessIdentity,
            started_at: SystemTime,
        },
        Stopping {
            incarnation: Incarnation,
            process: ProcessIdentity,
            started_at: SystemTime,
            cause: StopCause,
        },
        Finished {
            outcome: Outcome,
            started_at: Option<SystemTime>,
            finished_at: SystemTime,
        },
    }
}

/// The form of the domain's type of the same name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Incarnation(String);

impl Form for Incarnation {
    type Domain = errand_task::Incarnation;

    fn of(domain: &Self::Domain) -> Self {
        Self(domain.0.clone())
    }

    fn into_domain(self) -> Self::Domain {
        errand_task::Incarnation(self.0)
    }
}

form! {
    struct ProcessIdentity {
        pid: u32,
        start_ticks: u64,
    }
}

form! {
    enum Status {
        Queued,
        Starting,
        Running,
        Stopping,
        Succeeded,
        Failed,
        Stopped,
        TimedOut,
        FailedToStart,
        Lost,
    }
}
