//! Validates what a session is told about a task, and how answers acknowledge.

use tonic::Status;

use super::{Violations, fields::Span, tasks::reference};
use crate::api::auth::Caller;
use errand_engine::TaskRef;
use errand_proto::v1::{self, AcknowledgeMode, CompletionPolicy, SetNotifyPolicyRequest};
use errand_task::{
    CompletionNotice, HEARTBEAT_LEAST, IDLE_LEAST, NOTICE_OUTPUT_LIMIT, NOTICE_TAIL_DEFAULT, NotifyPolicy, TraceParent,
};

/// What an answer that tells the end of a task does to its completion notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Acknowledge {
    /// Nothing.
    No,
    /// Acknowledges it, whether the answer arrives or not.
    AtOnce,
    /// Holds it back until the caller says that the answer has arrived, or the lease ends.
    OnReceipt,
}

/// Reads a SetNotifyPolicy request.
pub(in crate::api) fn set_notify_policy(
    request: &SetNotifyPolicyRequest,
    caller: &Caller,
) -> Result<(TaskRef, NotifyPolicy), Status> {
    let mut violations = Violations::new();
    let task = reference(&request.task_id, &request.bot_id, &request.session_id, caller, &mut violations);
    let notify = policy(request.notify, &mut violations);
    let (task, notify) = violations.or(task.zip(notify))?;
    Ok((task?, notify))
}

/// Reads the field `notify`. A policy that is not given is the default one.
pub(super) fn policy(given: Option<v1::NotifyPolicy>, violations: &mut Violations) -> Option<NotifyPolicy> {
    let Some(given) = given else { return Some(NotifyPolicy::default()) };
    violations.within("notify", |violations| {
        let completion = violations.choice::<CompletionPolicy>("completion", given.completion);
        let most = NOTICE_OUTPUT_LIMIT as u64;
        let head = violations.number("head_bytes", i64::from(given.head_bytes), 0, most);
        let tail = match given.tail_bytes {
            None => Some(NOTICE_TAIL_DEFAULT as u64),
            Some(bytes) => violations.number("tail_bytes", i64::from(bytes), 0, most),
        };
        if let (Some(head), Some(tail)) = (head, tail)
            && head + tail > most
        {
            violations
                .add("head_bytes", format!("must be at most {most} together with tail_bytes, is {head} and {tail}"));
        }
        let span = |at_least| Span { at_least, at_most: std::time::Duration::MAX };
        let heartbeat_every = violations.duration("heartbeat_every", given.heartbeat_every, span(HEARTBEAT_LEAST));
        let idle_after = violations.duration("idle_after", given.idle_after, span(IDLE_LEAST));
        Some(NotifyPolicy {
            completion: match completion? {
                CompletionPolicy::Unspecified | CompletionPolicy::Always => CompletionNotice::Always,
                CompletionPolicy::UnlessSucceeded => CompletionNotice::UnlessSucceeded,
                CompletionPolicy::Never => CompletionNotice::Never,
            },
            head_bytes: usize::try_from(head?).ok()?,
            tail_bytes: usize::try_from(tail?).ok()?,
            heartbeat_every: heartbeat_every?,
            idle_after: idle_after?,
        })
    })
}

/// Reads the field `traceparent`; inner none: not given.
pub(super) fn traceparent(given: &str, violations: &mut Violations) -> Option<Option<TraceParent>> {
    if given.is_empty() {
        return Some(None);
    }
    TraceParent::new(given).map(Some).map_err(|error| violations.add("traceparent", error.to_string())).ok()
}

/// Reads the field `acknowledge_mode`. `flag` is the older field `acknowledge`.
pub(super) fn acknowledge(mode: i32, flag: bool, violations: &mut Violations) -> Option<Acknowledge> {
    Some(match violations.choice::<AcknowledgeMode>("acknowledge_mode", mode)? {
        AcknowledgeMode::Unspecified if flag => Acknowledge::AtOnce,
        AcknowledgeMode::Unspecified => Acknowledge::No,
        AcknowledgeMode::AtOnce => Acknowledge::AtOnce,
        AcknowledgeMode::OnReceipt => Acknowledge::OnReceipt,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::time::Duration;

    use tonic_types::StatusExt as _;

    use super::*;

    fn read(given: v1::NotifyPolicy) -> Result<NotifyPolicy, Vec<String>> {
        let mut violations = Violations::new();
        let read = policy(Some(given), &mut violations);
        let fields = |status: Status| {
            let violations = status.get_details_bad_request().unwrap().field_violations;
            violations.into_iter().map(|violation| violation.field).collect()
        };
        violations.or(read).map_err(fields)
    }

    fn given() -> v1::NotifyPolicy {
        v1::NotifyPolicy::default()
    }

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn empty_policy_is_the_default_one() {
        assert_eq!(policy(None, &mut Violations::new()), Some(NotifyPolicy::default()));
        assert_eq!(read(given()), Ok(NotifyPolicy::default()));
        assert_eq!(NotifyPolicy::default().tail_bytes, 4096);
    }

    #[test]
    fn policy_is_read_within_its_limits() {
        let sizes = |tail_bytes, head_bytes| read(v1::NotifyPolicy { tail_bytes, head_bytes, ..given() });
        assert_eq!(sizes(Some(0), 0).unwrap().tail_bytes, 0);
        let both = sizes(Some(16_000), 384).unwrap();
        assert_eq!((both.tail_bytes, both.head_bytes), (16_000, 384));
        assert_eq!(sizes(Some(16_000), 385), Err(vec!["notify.head_bytes".to_owned()]));
        assert_eq!(sizes(None, 12_289), Err(vec!["notify.head_bytes".to_owned()]));
        assert_eq!(sizes(Some(-1), 16_385), Err(vec!["notify.head_bytes".to_owned(), "notify.tail_bytes".to_owned()]));
        let heartbeat = |every| read(v1::NotifyPolicy { heartbeat_every: seconds(every), ..given() });
        assert_eq!(heartbeat(60).unwrap().heartbeat_every, Some(Duration::from_secs(60)));
        assert_eq!(heartbeat(59), Err(vec!["notify.heartbeat_every".to_owned()]));
        let idle = |after| read(v1::NotifyPolicy { idle_after: seconds(after), ..given() });
        assert_eq!(idle(1).unwrap().idle_after, Some(Duration::from_secs(1)));
        assert_eq!(idle(0), Err(vec!["notify.idle_after".to_owned()]));
        assert_eq!(read(v1::NotifyPolicy { completion: 9, ..given() }), Err(vec!["notify.completion".to_owned()]));
    }

    #[test]
    fn older_acknowledge_means_what_it_meant() {
        let read = |mode: AcknowledgeMode, flag| acknowledge(mode.into(), flag, &mut Violations::new()).unwrap();
        assert_eq!(read(AcknowledgeMode::Unspecified, true), Acknowledge::AtOnce);
        assert_eq!(read(AcknowledgeMode::Unspecified, false), Acknowledge::No);
        for flag in [true, false] {
            assert_eq!(read(AcknowledgeMode::AtOnce, flag), Acknowledge::AtOnce);
            assert_eq!(read(AcknowledgeMode::OnReceipt, flag), Acknowledge::OnReceipt);
        }
        assert_eq!(acknowledge(9, true, &mut Violations::new()), None);
    }
}
