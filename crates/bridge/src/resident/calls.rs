//! Interprets the guest's answers.

use std::time::Duration;

use tonic::{Code, Status};

use super::{
    channel::Channel,
    checked::{Breach, words},
};
use crate::InputError;
use errand_runtime::{NotStarted, RuntimeError};

/// How long a call may take that does no long work.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Waits for the answer to a call, for at most [`ANSWER_LIMIT`].
pub(super) async fn answer<T>(
    channel: &Channel,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, RuntimeError> {
    match in_time(call).await? {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(meaning(channel, &status)),
    }
}

/// Waits for the guest's next message, for at most [`ANSWER_LIMIT`].
pub(super) async fn in_time<T>(said: impl Future<Output = T>) -> Result<T, RuntimeError> {
    within(ANSWER_LIMIT, said).await
}

/// Waits for the guest's next message, for at most `limit`.
pub(super) async fn within<T>(limit: Duration, said: impl Future<Output = T>) -> Result<T, RuntimeError> {
    let late = |_| RuntimeError::Unavailable { detail: format!("the bridge did not answer within {limit:?}") };
    tokio::time::timeout(limit, said).await.map_err(late)
}

/// Converts the status of a refused or broken call into an error.
pub(super) fn meaning(channel: &Channel, status: &Status) -> RuntimeError {
    // Only a message that is too large leads to this code, but for a refused input: see `refused_input`.
    if status.code() == Code::OutOfRange {
        return channel.breach(too_large());
    }
    let detail = format!("the bridge: {}", words(status.message()));
    match status.code() {
        Code::InvalidArgument | Code::Internal | Code::Unimplemented | Code::FailedPrecondition => {
            RuntimeError::Refused { detail }
        }
        Code::ResourceExhausted => RuntimeError::NotStarted { reason: NotStarted::Other, detail },
        // A broken connection shows as one of several other codes.
        _ => RuntimeError::Unavailable { detail },
    }
}

/// The breach of sending a message that is larger than the decoder accepts.
pub(super) fn too_large() -> Breach {
    Breach("a message that is larger than its bound".to_owned())
}

/// Converts the status of a refused input into an error.
pub(super) fn refused_input(channel: &Channel, status: &Status) -> InputError {
    match status.code() {
        Code::FailedPrecondition if status.message().starts_with("not_open") => InputError::NotOpen,
        Code::FailedPrecondition => InputError::Closed,
        // The guest's refusal of an offset. A message that is too large has the same code, and other words.
        Code::OutOfRange if status.message().starts_with("offset:") => {
            InputError::Runtime(RuntimeError::Refused { detail: words(status.message()) })
        }
        _ => InputError::Runtime(meaning(channel, status)),
    }
}
