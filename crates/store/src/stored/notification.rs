//! What a session is told.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::{
    Undecodable, decode, encode,
    form::{Form as _, form, text},
    notify::{Liveness, TraceParent, is_false},
    observed::{MemoryKills, Stall},
    outcome::Outcome,
    state::Status,
    task::Owner,
    watch::WatchNotice,
};
use crate::StoreError;

form! {
    version 1 struct NewNotification {
        #[serde(with = "text")]
        task: errand_task::TaskId,
        owner: Owner,
        kind: NotificationKind,
        status: Status,
        outcome: Option<Outcome>,
        #[serde(default, skip_serializing_if = "MemoryKills::is_none")]
        memory_kills: MemoryKills,
        description: String,
        command: String,
        #[serde(default)]
        command_truncated: bool,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        output_head: String,
        output_tail: String,
        output_truncated: bool,
        output_bytes: u64,
        output_file: String,
        duration: Duration,
        stall: Option<Stall>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        liveness: Option<Liveness>,
        #[serde(default)]
        takes_input: bool,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<TraceParent>,
        #[serde(default, skip_serializing_if = "is_false")]
        acknowledged: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        watch: Option<WatchNotice>,
        #[serde(default, skip_serializing_if = "is_zero")]
        held_back: u64,
        created_at: SystemTime,
    }
}

form! {
    enum NotificationKind {
        Completed,
        Stalled,
        Resumed,
        LateOutcome,
        Heartbeat,
        Idle,
        WatchMatched,
        WatchDisabled,
        WatchesSuspended,
        WatchesRestored,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The text of a notification.
pub(crate) fn encode_notification(notification: &errand_task::NewNotification) -> Result<String, StoreError> {
    encode(&NewNotification::of(notification))
}

/// The notification back. It may be larger than a new one is: see [`errand_task::NewNotification::bounded`].
pub(crate) fn decode_notification(text: &[u8]) -> Result<errand_task::NewNotification, Undecodable> {
    Ok(decode::<NewNotification>(text)?.into_domain())
}
