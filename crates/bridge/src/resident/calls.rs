//! What the answers of a bridge mean.

use std::time::Duration;

use tonic::{Code, Status};

use super::{
    checked::{Breach, words},
    wire::Wire,
};
use crate::InputError;
use errand_runtime::{NotStarted, RuntimeError};

/// How long a call may take that does nothing long.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Waits for an answer, for a while.
pub(super) async fn answer<T>(
    wire: &Wire,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, RuntimeError> {
    match in_time(call).await? {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(meaning(wire, &status)),
    }
}

/// Waits for the next that a bridge has to say, for a while.
pub(super) async fn in_time<T>(said: impl Future<Output = T>) -> Result<T, RuntimeError> {
    within(ANSWER_LIMIT, said).await
}

/// Waits for something as long as that.
pub(super) async fn within<T>(limit: Duration, said: impl Future<Output = T>) -> Result<T, RuntimeError> {
    let late = |_| RuntimeError::Unavailable { detail: format!("the bridge did not answer within {limit:?}") };
    tokio::time::timeout(limit, said).await.map_err(late)
}

/// The meaning of a refused or broken call.
pub(super) fn meaning(wire: &Wire, status: &Status) -> RuntimeError {
    // A bridge has no other use for it.
    if status.code() == Code::OutOfRange {
        return wire.breach(too_large());
    }
    let detail = format!("the bridge: {}", words(status.message()));
    match status.code() {
        Code::InvalidArgument | Code::Internal | Code::Unimplemented | Code::FailedPrecondition => {
            RuntimeError::Refused { detail }
        }
        Code::ResourceExhausted => RuntimeError::NotStarted { reason: NotStarted::Other, detail },
        // A broken connection shows as several of the others.
        _ => RuntimeError::Unavailable { detail },
    }
}

/// A message larger than the decoder takes.
pub(super) fn too_large() -> Breach {
    Breach("a message that is larger than its bound".to_owned())
}

/// The meaning of a refused input.
pub(super) fn refused_input(wire: &Wire, status: &Status) -> InputError {
    match status.code() {
        Code::FailedPrecondition if status.message().starts_with("not_open") => InputError::NotOpen,
        Code::FailedPrecondition => InputError::Closed,
        _ => InputError::Runtime(meaning(wire, status)),
    }
}
