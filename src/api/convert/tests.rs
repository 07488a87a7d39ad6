//! Numbers that the wire cannot represent, and messages that must not become too large.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use prop::sample::select;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use errand_task::{
    Liveness, LossReason, MemoryKills, NOTICE_OUTPUT_LIMIT, NewNotification, Nonce, NotifyPolicy, Outcome,
    OutputSummary, Owner, Program, Reads, SandboxId, Signal, StartFailure, Status, StopCause, Task, TaskId, TaskSpec,
    TaskState, TenantId, Waiting, Watch, WatchCount, WatchLines, WatchNotice, WatchPattern,
};

/// The most bytes of an encoded notification.
const LIMIT: usize = 64 * 1024;

/// Texts of every size, with characters that take much space as they are, escaped, or as JSON.
fn hostile() -> impl Strategy<Value = String> {
    let character = select(vec!['a', '"', '&', '<', '\n', '\0', '\u{fffd}', '\u{10ffff}', '…']);
    let long = (character, prop_oneof![0..300_usize, 0..5000_usize, Just(2_500_000)])
        .prop_map(|(character, count)| character.to_string().repeat(count));
    prop_oneof![3 => long, 1 => "\\PC{0,300}"]
}

/// An owner with the longest names.
fn owner() -> Owner {
    let name = "b".repeat(128);
    Owner { tenant: TenantId::local(), bot: name.parse().unwrap(), session: name.parse().unwrap() }
}

fn outcome() -> impl Strategy<Value = Option<Outcome>> {
    hostile().prop_flat_map(|message| {
        let failure = StartFailure::NotFound;
        select(vec![
            None,
            Some(Outcome::Exited { code: 1 }),
            Some(Outcome::TimedOut { after: Duration::MAX }),
            Some(Outcome::Stopped {
                cause: StopCause::Request { reason: message.clone(), acknowledge: true },
                signal: Some(Signal::TERM),
            }),
            Some(Outcome::FailedToStart { failure, errno: Some(i32::MIN), message: message.clone() }),
            Some(Outcome::Lost { reason: LossReason::SandboxStopped, message }),
        ])
    })
}

prop_compose! {
    fn task()(
        texts in prop::array::uniform6(hostile()),
        labels in prop::collection::btree_map("\\PC{1,63}", "\\PC{0,255}", 0..64),
        (head_bytes, tail_bytes) in (0..=NOTICE_OUTPUT_LIMIT).prop_flat_map(|head| (Just(head), 0..=NOTICE_OUTPUT_LIMIT - head)),
        argv in prop::collection::vec(hostile(), 1..4),
        shell in any::<bool>(),
        outcome in outcome(),
    ) -> Task {
        let [command, description, output_file, last_line, waiting, label] = texts;
        let program = if shell { Program::Shell { text: command, shell: None } } else { Program::Argv(argv) };
        let mut spec = TaskSpec::new(program, Duration::MAX);
        (spec.description, spec.env, spec.labels) = (description, [(label.clone(), label.clone())].into(), labels);
        // What no caller may ask for is in no record, and is bounded all the same.
        spec.labels.insert(label.clone(), label);
        spec.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok();
        let process = Waiting { pid: u32::MAX, command: waiting, reads: Reads::Terminal };
        let late = outcome.clone();
        let state = match outcome {
            Some(outcome) => TaskState::Finished { outcome, started_at: Some(UNIX_EPOCH), finished_at: UNIX_EPOCH },
            None => TaskState::Queued,
        };
        let stall = Stall { since: UNIX_EPOCH, silent_for: Duration::MAX, last_line, waiting: Some(process) };
        Task {
            id: TaskId::new(),
            owner: owner(),
            sandbox: SandboxId::new(),
            spec: Arc::new(spec),
            nonce: Nonce::new(),
            state,
            late_outcome: late,
            output_file,
            output: OutputSummary { bytes: u64::MAX, ..Default::default() },
            stall: Some(stall),
            usage: None,
            stop_requested: None,
            memory_kills: MemoryKills::default(),
            notify: NotifyPolicy { head_bytes, tail_bytes, ..NotifyPolicy::default() },
            heartbeat_from: Duration::ZERO,
            idle_since: None,
            watches: Default::default(),
            retained: None,
            created_at: UNIX_EPOCH,
            revision: i64::MAX,
        }
    }
}

fn on_the_wire(body: NewNotification) -> v1::Notification {
    let sequence = i64::MAX;
    notification(Notification { sequence, body, acknowledged_at: Some(UNIX_EPOCH), deliveries: u32::MAX })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn notifications_never_exceed_64_kib(
        task in task(),
        kind in select(vec![NotificationKind::Completed, NotificationKind::Stalled, NotificationKind::Resumed, NotificationKind::LateOutcome, NotificationKind::Heartbeat]),
        tail in prop_oneof![prop::collection::vec(any::<u8>(), 0..20_000), (any::<u8>(), 0..20_000_usize).prop_map(|(byte, count)| vec![byte; count])],
        last_line in hostile(),
    ) {
        let liveness = Liveness { silent_for: Duration::MAX, last_line };
        let made = NewNotification::with_head(kind, &task, (&tail, &tail), UNIX_EPOCH).with_liveness(Some(liveness));
        prop_assert!(made.output_tail.len() <= task.notify.tail_bytes && made.output_head.len() <= task.notify.head_bytes);
        prop_assert!(made.labels.iter().all(|(key, value)| task.spec.labels.get(key) == Some(value)), "no label is cut");
        prop_assert_eq!(&made.clone().bounded(), &made, "what is bounded stays as it is");
        let long = task.spec.program.display().chars().count() > 1000;
        prop_assert_eq!(made.command_truncated, long);
        let weight = made.weight();
        let sent = on_the_wire(made);
        prop_assert!(sent.text.contains("<command truncated=\"true\">") == long);
        prop_assert!((weight..=LIMIT).contains(&sent.encoded_len()), "{} bytes", sent.encoded_len());
    }

    #[test]
    fn task_weight_never_exceeds_encoded_size(made in task()) {
        let weight = made.weight();
        let sent = super::task(made).encoded_len();
        prop_assert!(weight <= sent, "{weight} of {sent}");
    }
}

#[test]
fn longest_notification_texts_fit_into_64_kib() {
    for character in ['"', '\u{10ffff}', '\u{fffd}'] {
        let huge = character.to_string().repeat(3_000_000);
        let (failure, second) = (StartFailure::NotFound, Duration::from_secs(1));
        let waiting = Some(Waiting { pid: 1, command: huge.clone(), reads: Reads::Stdin });
        let watched = huge.clone();
        // An older server may have stored a notification of this size.
        let made = NewNotification {
            task: TaskId::new(),
            owner: owner(),
            kind: NotificationKind::Completed,
            status: Status::FailedToStart,
            outcome: Some(Outcome::FailedToStart { failure, errno: Some(2), message: huge.clone() }),
            memory_kills: MemoryKills::default(),
            description: huge.clone(),
            command: huge.clone(),
            command_truncated: false,
            output_head: huge.clone(),
            output_tail: huge.clone(),
            output_truncated: false,
            output_bytes: u64::MAX,
            output_file: huge.clone(),
            duration: second,
            stall: Some(Stall { since: UNIX_EPOCH, silent_for: second, last_line: huge.clone(), waiting }),
            liveness: Some(Liveness { silent_for: second, last_line: huge.clone() }),
            takes_input: false,
            watch: Some(WatchNotice {
                index: u32::MAX,
                watch: Watch {
                    pattern: WatchPattern::Regex(character.to_string().repeat(512 / character.len_utf8())),
                    once: true,
                },
                offset: u64::MAX,
                lines: WatchLines { text: watched, cut: true },
                matches: u64::MAX,
                others: vec![WatchCount { index: u32::MAX, matches: u64::MAX }; 1000],
            }),
            held_back: u64::MAX,
            labels: (0..64).map(|number| (format!("{number}"), huge.chars().take(255).collect())).collect(),
            traceparent: None,
            acknowledged: false,
            created_at: UNIX_EPOCH,
        };
        let made = made.bounded();
        assert!(made.output_truncated && made.description.ends_with('…'));
        let matched = NewNotification { kind: NotificationKind::WatchMatched, ..made.clone() };
        for made in [made, matched] {
            let sent = on_the_wire(made).encoded_len();
            assert!((20_000..=LIMIT).contains(&sent), "{sent} bytes of {character:?}");
        }
    }
}

#[test]
fn oversized_numbers_saturate() {
    assert_eq!(count(u64::MAX), i64::MAX);
    assert_eq!(count(7), 7);
    assert_eq!(duration(Duration::MAX).seconds, i64::MAX);
    assert_eq!(duration(Duration::from_millis(1500)), prost_types::Duration { seconds: 1, nanos: 500_000_000 });
}
