//! What the engine's answers mean.

use bollard::errors::Error;

use crate::{NotStarted, RuntimeError};

/// The status and words of an answer, or the sign that there was none.
enum Answer {
    Status(u16, String),
    None(String),
}

fn answer(error: Error) -> Answer {
    match error {
        Error::DockerResponseServerError { status_code, message } => Answer::Status(status_code, message),
        // The words of the innermost cause are the ones that say what to do.
        other => Answer::None(errand_task::error_chain(&other)),
    }
}

/// Meaning of a failed call that names an existing container.
pub(super) fn about_container(error: Error, id: &str) -> RuntimeError {
    match answer(error) {
        // A container that is there can miss something else, such as its network.
        Answer::Status(404, message) if message.to_lowercase().contains("no such container") => {
            RuntimeError::NoSuchSandbox { id: id.to_owned() }
        }
        Answer::Status(409, message) if message.contains("is not running") || message.contains("is paused") => {
            RuntimeError::NotRunning { id: id.to_owned() }
        }
        Answer::Status(_, detail) => RuntimeError::Refused { detail },
        Answer::None(detail) => RuntimeError::Unavailable { detail },
    }
}

/// Meaning of a failed creation.
pub(super) fn about_creation(error: Error, image: &str) -> RuntimeError {
    match answer(error) {
        Answer::Status(404, message) if message.to_lowercase().contains("no such image") => {
            RuntimeError::NoSuchImage { image: image.to_owned() }
        }
        Answer::Status(_, detail) => RuntimeError::Refused { detail },
        Answer::None(detail) => RuntimeError::Unavailable { detail },
    }
}

/// Meaning of a failed start of a process that had been prepared. Without an answer nobody knows whether it was started.
pub(super) fn about_exec_start(error: Error) -> RuntimeError {
    match answer(error) {
        Answer::Status(_, detail) => not_started(detail),
        Answer::None(detail) => RuntimeError::Uncertain { detail },
    }
}

/// How the engine begins when it says on a process's output that it could not start it.
const OPENINGS: [&str; 3] = ["OCI runtime exec failed", "unable to find user", "failed to create task"];

/// The meaning of what a process printed, if those are the engine's words about its start.
pub(super) fn explain(said: &str) -> Option<RuntimeError> {
    OPENINGS.iter().any(|opening| said.starts_with(opening)).then(|| not_started(said.to_owned()))
}

/// Meaning of the engine's words about a process that it could not start.
fn not_started(detail: String) -> RuntimeError {
    let lower = detail.to_lowercase();
    let reason = if lower.contains("executable file not found") || lower.contains("no such file or directory") {
        NotStarted::NotFound
    } else if lower.contains("permission denied") {
        NotStarted::NotExecutable
    } else if lower.contains("unable to find user") || lower.contains("no matching entries in passwd") {
        NotStarted::NoSuchUser
    } else if lower.contains("argument list too long") {
        NotStarted::TooLarge
    } else {
        NotStarted::Other
    };
    RuntimeError::NotStarted { reason, detail: detail.trim().to_owned() }
}
