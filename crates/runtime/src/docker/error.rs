//! Classifies the engine's answers.

use bollard::errors::Error;

use crate::{NotStarted, RuntimeError};

/// An answer's status and message, or why there was no answer.
enum Answer {
    Status(u16, String),
    None(String),
}

fn answer(error: Error) -> Answer {
    match error {
        Error::DockerResponseServerError { status_code, message } => Answer::Status(status_code, message),
        // The message of the innermost cause says what to do.
        other => Answer::None(errand_task::error_chain(&other)),
    }
}

/// Meaning of a failed call that names an existing container.
pub(super) fn about_container(error: Error, id: &str) -> RuntimeError {
    match answer(error) {
        // A container that exists can lack something else, such as its network.
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

/// Meaning of a failed start of a prepared process. Without an answer, it is unknown whether the process was started.
pub(super) fn about_exec_start(error: Error) -> RuntimeError {
    match answer(error) {
        Answer::Status(_, detail) => not_started(detail),
        Answer::None(detail) => RuntimeError::Uncertain { detail },
    }
}

/// How the engine's message begins when it reports on a process's output that it could not start the process.
const OPENINGS: [&str; 3] = ["OCI runtime exec failed", "unable to find user", "failed to create task"];

/// Whether a process's first output may become the engine's message that it could not start the process.
pub(super) fn may_begin_refusal(output: &[u8]) -> bool {
    OPENINGS.iter().any(|opening| {
        let length = opening.len().min(output.len());
        output[..length] == opening.as_bytes()[..length]
    })
}

/// Meaning of a process's whole output, if that is the engine's message that it could not start the process.
pub(super) fn late_refusal(output: &[u8]) -> Option<RuntimeError> {
    let output = String::from_utf8_lossy(output);
    OPENINGS.iter().any(|opening| output.starts_with(opening)).then(|| not_started(output.into_owned()))
}

/// Meaning of the engine's message about a process that it could not start.
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
