//! Converts the domain's types to the wire types. Total: every value of the domain has a counterpart on the wire.

mod file;
mod notify;
mod outcome;
mod process;
mod sandbox;
mod task;
mod wait;
mod watches;

use std::time::{Duration, SystemTime};

use errand_proto::v1;
use errand_task::{Notification, NotificationKind, Stall};

pub(super) use file::{file, file_change, tree};
pub(super) use outcome::outcome;
pub(super) use sandbox::{active_bot, sandbox};
pub(super) use task::{status, task, wanted_status};
pub(super) use wait::{change, wait_result};
pub(super) use watches::watches;

/// Converts a notification, including its text.
pub(super) fn notification(notification: Notification) -> v1::Notification {
    let Notification { sequence, body, acknowledged_at, deliveries } = notification;
    let text = body.text();
    v1::Notification {
        sequence,
        task_id: body.task.to_string(),
        bot_id: body.owner.bot.to_string(),
        session_id: body.owner.session.to_string(),
        kind: kind(body.kind).into(),
        status: status(body.status).into(),
        outcome: body.outcome.as_ref().map(|ended| outcome(ended, body.memory_kills)),
        description: body.description,
        command: body.command,
        command_truncated: body.command_truncated,
        output_head: body.output_head,
        output_tail: body.output_tail,
        output_truncated: body.output_truncated,
        output_bytes: count(body.output_bytes),
        output_file: body.output_file,
        duration: Some(duration(body.duration)),
        stall: body.stall.map(stall),
        heartbeat: body.liveness.map(notify::heartbeat),
        labels: body.labels.into_iter().collect(),
        traceparent: body.traceparent.map(|traceparent| traceparent.to_string()).unwrap_or_default(),
        created_at: Some(timestamp(body.created_at)),
        acknowledged_at: acknowledged_at.map(timestamp),
        deliveries: i32::try_from(deliveries).unwrap_or(i32::MAX),
        text,
        watch: body.watch.map(watches::notice),
        held_back: count(body.held_back),
    }
}

fn kind(kind: NotificationKind) -> v1::NotificationKind {
    match kind {
        NotificationKind::Completed => v1::NotificationKind::Completed,
        NotificationKind::Stalled => v1::NotificationKind::Stalled,
        NotificationKind::Resumed => v1::NotificationKind::Resumed,
        NotificationKind::LateOutcome => v1::NotificationKind::LateOutcome,
        NotificationKind::Heartbeat => v1::NotificationKind::Heartbeat,
        NotificationKind::Idle => v1::NotificationKind::Idle,
        NotificationKind::WatchMatched => v1::NotificationKind::WatchMatched,
        NotificationKind::WatchDisabled => v1::NotificationKind::WatchDisabled,
        NotificationKind::WatchesSuspended => v1::NotificationKind::WatchesSuspended,
        NotificationKind::WatchesRestored => v1::NotificationKind::WatchesRestored,
    }
}

fn stall(stall: Stall) -> v1::Stall {
    let stall = stall.bounded();
    v1::Stall {
        since: Some(timestamp(stall.since)),
        silent_for: Some(duration(stall.silent_for)),
        last_line: stall.last_line,
        waiting: stall.waiting.map(process::waiting),
    }
}

/// Converts a time of the system's clock.
pub(super) fn timestamp(moment: SystemTime) -> prost_types::Timestamp {
    moment.into()
}

/// Converts a duration. One that is longer than the wire format allows becomes the longest allowed.
fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

/// Converts a count or a position to the wire's signed numbers.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
