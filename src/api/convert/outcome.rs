//! Converts outcomes to the wire type.

use super::{count, duration};
use errand_proto::v1::{self, outcome::Kind};
use errand_task::{LossReason, MemoryKills, Outcome, Signal, StartFailure, StopCause};

/// Converts an outcome, including the exit code that a shell would show and the processes killed for lack of memory. Bounds its texts
/// again, because records of older servers hold longer ones.
pub(in crate::api) fn outcome(outcome: &Outcome, kills: MemoryKills) -> v1::Outcome {
    let outcome = &outcome.clone().bounded();
    let kind = match outcome {
        Outcome::Exited { code } => Kind::Exited(v1::Exited { code: i32::from(*code) }),
        Outcome::Signaled { signal } => Kind::Signaled(v1::Signaled { signal: signal.number(), name: signal.name() }),
        Outcome::TimedOut { after } => Kind::TimedOut(v1::TimedOut { after: Some(duration(*after)) }),
        Outcome::Stopped { cause, signal } => Kind::Stopped(v1::Stopped {
            by: cause.by().to_owned(),
            signal: signal.map_or(0, Signal::number),
            reason: reason(cause),
        }),
        Outcome::FailedToStart { failure, errno, message } => Kind::FailedToStart(v1::FailedToStart {
            failure: start_failure(*failure).into(),
            message: message.clone(),
            errno: errno.unwrap_or_default(),
        }),
        Outcome::Lost { reason, message } => {
            Kind::Lost(v1::Lost { reason: loss_reason(*reason).into(), message: message.clone() })
        }
    };
    let out_of_memory = (kills.count > 0).then(|| v1::OutOfMemory {
        killed_processes: kills.count.into(),
        limit_bytes: count(kills.limit.unwrap_or_default()),
    });
    v1::Outcome { kind: Some(kind), shell_exit_code: outcome.shell_exit_code(), out_of_memory }
}

/// Converts a stop that came too late.
pub(in crate::api) fn stop_request(cause: &StopCause) -> v1::StopRequest {
    v1::StopRequest { by: cause.by().to_owned(), reason: reason(cause) }
}

/// The caller's own reason, if there is one.
fn reason(cause: &StopCause) -> String {
    match cause {
        StopCause::Request { reason, .. } => reason.clone(),
        StopCause::Disconnect
        | StopCause::SandboxStopped
        | StopCause::SandboxDeleted
        | StopCause::ServerShutdown
        | StopCause::Timeout { .. } => String::new(),
    }
}

fn start_failure(failure: StartFailure) -> v1::StartFailure {
    match failure {
        StartFailure::NotFound => v1::StartFailure::NotFound,
        StartFailure::NotExecutable => v1::StartFailure::NotExecutable,
        StartFailure::BadInterpreter => v1::StartFailure::BadInterpreter,
        StartFailure::NoSuchDirectory => v1::StartFailure::NoSuchDirectory,
        StartFailure::NotPermitted => v1::StartFailure::NotPermitted,
        StartFailure::NoSuchUser => v1::StartFailure::NoSuchUser,
        StartFailure::NoSpace => v1::StartFailure::NoSpace,
        StartFailure::SandboxGone => v1::StartFailure::SandboxGone,
        StartFailure::LaunchInterrupted => v1::StartFailure::LaunchInterrupted,
        StartFailure::ForkRefused => v1::StartFailure::ForkRefused,
        StartFailure::ArgumentsTooLarge => v1::StartFailure::ArgumentsTooLarge,
        StartFailure::Refused => v1::StartFailure::Refused,
        StartFailure::QueueDeadline => v1::StartFailure::QueueDeadline,
    }
}

fn loss_reason(reason: LossReason) -> v1::LossReason {
    match reason {
        LossReason::SandboxRestarted => v1::LossReason::SandboxRestarted,
        LossReason::SandboxRemoved => v1::LossReason::SandboxRemoved,
        LossReason::SandboxStopped => v1::LossReason::SandboxStopped,
        LossReason::LogDirectoryGone => v1::LossReason::LogDirectoryGone,
        LossReason::ExitFileUnreadable => v1::LossReason::ExitFileUnreadable,
        LossReason::SupervisorKilled => v1::LossReason::SupervisorKilled,
        LossReason::LaunchInterrupted => v1::LossReason::LaunchInterrupted,
        LossReason::SandboxUnresponsive => v1::LossReason::SandboxUnresponsive,
        LossReason::SandboxOutOfMemory => v1::LossReason::SandboxOutOfMemory,
    }
}
