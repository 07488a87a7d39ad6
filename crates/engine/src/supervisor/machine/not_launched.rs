//! How a task ends whose command was certainly not launched.

use errand_runtime::{NotStarted, RuntimeError};
use errand_task::{Ending, StartFailure};

/// The end of a task whose sandbox does not exist any more, or cannot be used.
pub(super) fn sandbox_gone(reason: &str) -> Ending {
    failed(StartFailure::SandboxGone, reason)
}

/// The end of a task whose launch was certainly refused.
pub(super) fn not_launched(error: &RuntimeError) -> Ending {
    let failure = match error {
        RuntimeError::NoSuchSandbox { .. } | RuntimeError::NotRunning { .. } => StartFailure::SandboxGone,
        RuntimeError::NotStarted { reason: NotStarted::NotFound, .. } => StartFailure::NotFound,
        RuntimeError::NotStarted { reason: NotStarted::NotExecutable, .. } => StartFailure::NotExecutable,
        RuntimeError::NotStarted { reason: NotStarted::NoSuchUser, .. } => StartFailure::NoSuchUser,
        RuntimeError::NotStarted { reason: NotStarted::TooLarge, .. } => StartFailure::ArgumentsTooLarge,
        RuntimeError::NotWritten { detail, .. } if detail.to_lowercase().contains("permission denied") => {
            StartFailure::NotPermitted
        }
        RuntimeError::NotWritten { .. } => StartFailure::NoSpace,
        RuntimeError::NotStarted { reason: NotStarted::Other, .. }
        | RuntimeError::Refused { .. }
        | RuntimeError::NoSuchImage { .. }
        | RuntimeError::Unavailable { .. }
        | RuntimeError::Uncertain { .. } => StartFailure::Refused,
    };
    failed(failure, &error.to_string())
}

fn failed(failure: StartFailure, message: &str) -> Ending {
    Ending::FailedToStart { failure, errno: None, message: message.to_owned() }
}
