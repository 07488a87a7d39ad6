//! Converts what a session is told about a task to the wire types.

use super::duration;
use errand_proto::v1::{self, CompletionPolicy};
use errand_task::{CompletionNotice, Liveness, NotifyPolicy};

/// Converts a policy. Every field is set that has a value, so that clients need to know no default.
pub(super) fn policy(policy: NotifyPolicy) -> v1::NotifyPolicy {
    let bytes = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    v1::NotifyPolicy {
        completion: completion(policy.completion).into(),
        tail_bytes: Some(bytes(policy.tail_bytes)),
        head_bytes: bytes(policy.head_bytes),
        heartbeat_every: policy.heartbeat_every.map(duration),
        idle_after: policy.idle_after.map(duration),
    }
}

fn completion(completion: CompletionNotice) -> CompletionPolicy {
    match completion {
        CompletionNotice::Always => CompletionPolicy::Always,
        CompletionNotice::UnlessSucceeded => CompletionPolicy::UnlessSucceeded,
        CompletionNotice::Never => CompletionPolicy::Never,
    }
}

/// Converts how a running command is doing.
pub(super) fn heartbeat(liveness: Liveness) -> v1::Heartbeat {
    v1::Heartbeat { silent_for: Some(duration(liveness.silent_for)), last_line: liveness.last_line }
}
