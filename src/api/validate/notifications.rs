//! Validates requests about notifications.

use std::time::Duration;

use tonic::Status;

use super::{
    Violations,
    fields::{PAGE_LIMIT, Span},
    tasks::read_scope,
};
use crate::api::auth::Caller;
use errand_engine::notify::Delivery;
use errand_proto::v1::{DeliveryMode, DrainNotificationsRequest, ListNotificationsRequest, SubscribeRequest};
use errand_store::{NotificationQuery, Scope, Selection};

/// Entries of a page when the request does not say.
const PAGE_DEFAULT: u32 = 50;
/// The most notifications that a drain returns when the request does not say.
const DRAIN_DEFAULT: u32 = 100;
/// How long a lease may last.
const LEASE: Span = Span { at_least: Duration::from_secs(1), at_most: Duration::from_secs(3600) };

/// Reads a Subscribe request. `lease` is the duration of a lease when the request does not say.
pub(in crate::api) fn subscribe(
    request: &SubscribeRequest,
    caller: &Caller,
    lease: Duration,
) -> Result<(Scope, i64, Delivery), Status> {
    let mut violations = Violations::new();
    let scope = read_scope(&request.bot_id, &request.session_id, caller, &mut violations);
    if request.after_sequence < 0 {
        violations.add("after_sequence", format!("must not be negative, is {}", request.after_sequence));
    }
    let mode = violations.choice("delivery", request.delivery);
    let duration = violations.duration("lease_duration", request.lease_duration, LEASE);
    let read = (|| {
        let delivery = match mode? {
            DeliveryMode::Unspecified | DeliveryMode::Broadcast => Delivery::Broadcast,
            DeliveryMode::Exclusive => Delivery::Exclusive { lease: duration?.unwrap_or(lease) },
        };
        Some((scope?, request.after_sequence, delivery))
    })();
    violations.or(read)
}

/// Reads a DrainNotifications request: the scope, the most notifications, and the duration of their lease.
pub(in crate::api) fn drain(
    request: &DrainNotificationsRequest,
    caller: &Caller,
    lease: Duration,
) -> Result<(Scope, u32, Duration), Status> {
    let mut violations = Violations::new();
    let scope = read_scope(&request.bot_id, &request.session_id, caller, &mut violations);
    let limit = violations.page_size("max_notifications", request.max_notifications, DRAIN_DEFAULT);
    let duration = violations.duration("lease_duration", request.lease_duration, LEASE);
    let read = (|| Some((scope?, limit?, duration?.unwrap_or(lease))))();
    violations.or(read)
}

/// Reads what AckNotifications and NackNotifications have in common: either sequences or a lease.
pub(in crate::api) fn chosen(
    bot_id: &str,
    session_id: &str,
    sequences: Vec<i64>,
    lease_id: &str,
    caller: &Caller,
) -> Result<(Scope, Selection), Status> {
    let mut violations = Violations::new();
    let scope = read_scope(bot_id, session_id, caller, &mut violations);
    let limit = PAGE_LIMIT as usize;
    if sequences.len() > limit {
        violations.add("sequences", format!("must have at most {limit} entries, has {}", sequences.len()));
    }
    let lease = violations.optional_id("lease_id", lease_id);
    let selection = match (sequences.is_empty(), lease) {
        (_, None) => None,
        (true, Some(Some(lease))) => Some(Selection::Lease(lease)),
        (false, Some(None)) => Some(Selection::Sequences(sequences)),
        (true, Some(None)) => {
            violations.add("sequences", "must be set, or lease_id");
            None
        }
        (false, Some(Some(_))) => {
            violations.add("sequences", "must not be set together with lease_id");
            None
        }
    };
    violations.or(scope.zip(selection))
}

/// Reads a ListNotifications request.
pub(in crate::api) fn list(request: &ListNotificationsRequest, caller: &Caller) -> Result<NotificationQuery, Status> {
    let mut violations = Violations::new();
    let scope = read_scope(&request.bot_id, &request.session_id, caller, &mut violations);
    let task = violations.optional_id("task_id", &request.task_id);
    let limit = violations.page_size("page_size", request.page_size, PAGE_DEFAULT);
    let after = violations.page_token(&request.page_token);
    let read = (|| {
        Some(NotificationQuery {
            scope: scope?,
            task: task?,
            acknowledged: request.include_acknowledged,
            after: after?.unwrap_or(0),
            limit: limit?,
        })
    })();
    violations.or(read)
}
