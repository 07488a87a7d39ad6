//! What the answers of a bridge mean.

use std::time::Duration;

use tonic::{Code, Status};

use crate::{
    bridge::InputError,
    runtime::{NotStarted, RuntimeError},
};

/// How long a call may take that does nothing long.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Waits for an answer, for a while.
pub(super) async fn answer<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, RuntimeError> {
    match tokio::time::timeout(ANSWER_LIMIT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(meaning(&status)),
        Err(_) => {
            Err(RuntimeError::Unavailable { detail: format!("the bridge did not answer within {ANSWER_LIMIT:?}") })
        }
    }
}

/// The meaning of a refused or broken call.
pub(super) fn meaning(status: &Status) -> RuntimeError {
    let detail = format!("the bridge: {}", status.message());
    match status.code() {
        Code::InvalidArgument | Code::Internal | Code::Unimplemented | Code::OutOfRange | Code::FailedPrecondition => {
            RuntimeError::Refused { detail }
        }
        Code::ResourceExhausted => RuntimeError::NotStarted { reason: NotStarted::Other, detail },
        // A broken connection shows as several of the others.
        _ => RuntimeError::Unavailable { detail },
    }
}

/// The meaning of a refused input.
pub(super) fn refused_input(status: &Status) -> InputError {
    match status.code() {
        Code::FailedPrecondition if status.message().starts_with("not_open") => InputError::NotOpen,
        Code::FailedPrecondition => InputError::Closed,
        _ => InputError::Runtime(meaning(status)),
    }
}
