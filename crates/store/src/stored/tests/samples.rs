//! Records that use every field and every variant of the stored form.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use errand_task::{
    CompletionNotice, Gap, Incarnation, Liveness, LossReason, MemoryKills, NewNotification, NotificationKind,
    NotifyPolicy, Outcome, OutputSummary, Owner, ProcessIdentity, Program, Reads, ResourceLimits, ResourceUsage,
    SandboxRecord, SandboxSpec, Signal, Stall, StartFailure, Status, Stdin, StopCause, Task, TaskSpec, TaskState,
    TerminalSize, TraceParent, Waiting, Watch, WatchCount, WatchLines, WatchNotice, WatchPattern, WatchState, Watches,
    WhenFull,
};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::new(1_700_000_000 + seconds, 123_456_789)
}

fn owner() -> Owner {
    Owner { tenant: "a".parse().unwrap(), bot: "bot".parse().unwrap(), session: "s:1@x".parse().unwrap() }
}

fn base(number: u64) -> Task {
    let program = Program::Argv(vec!["echo".to_owned(), "\"é\"\n".to_owned()]);
    Task {
        id: format!("018bcfe5-6800-7000-8000-{number:012}").parse().unwrap(),
        owner: owner(),
        sandbox: "018bcfe5-6800-7000-8000-aaaaaaaaaaaa".parse().unwrap(),
        spec: Arc::new(TaskSpec::new(program, Duration::from_millis(60_500))),
        nonce: "0b1df6b1-67a4-4f8e-9d5e-6a8a0c4b1a00".parse().unwrap(),
        state: TaskState::Queued,
        late_outcome: None,
        output_file: "/tmp/errand/log".to_owned(),
        output: OutputSummary::default(),
        stall: None,
        usage: None,
        stop_requested: None,
        memory_kills: MemoryKills::default(),
        notify: NotifyPolicy::default(),
        heartbeat_from: Duration::ZERO,
        idle_since: None,
        watches: Watches::default(),
        retained: None,
        created_at: at(0),
        revision: 0,
    }
}

fn full_spec() -> TaskSpec {
    TaskSpec {
        program: Program::Shell { text: "make 'x'".to_owned(), shell: Some("/bin/bash".to_owned()) },
        workdir: Some("/workspace".to_owned()),
        env: BTreeMap::from([("KEY".to_owned(), "value".to_owned())]),
        description: "build".to_owned(),
        timeout: Duration::from_secs(1800),
        labels: BTreeMap::from([("a.b".to_owned(), "1".to_owned()), ("kind".to_owned(), "x".to_owned())]),
        request_id: Some("r-1".to_owned()),
        stdin: Stdin::Open,
        terminal: Some(TerminalSize { rows: 24, columns: 80 }),
        user: Some("1000:1000".to_owned()),
        clean_env: true,
        limits: ResourceLimits {
            open_files: Some(1),
            processes: Some(2),
            file_bytes: Some(3),
            cpu_seconds: Some(4),
            address_space_bytes: Some(5),
            core_bytes: Some(0),
            stack_bytes: Some(u64::MAX),
        },
        nice: 19,
        output_limit: 1024,
        separate_stderr: true,
        traceparent: None,
        when_full: Default::default(),
        secret_env: Vec::new(),
        concealed: false,
    }
}

fn incarnation() -> Incarnation {
    Incarnation("container@2023".to_owned())
}

/// Unfinished tasks, in each state.
fn unfinished() -> Vec<Task> {
    let process = ProcessIdentity { pid: 7, start_ticks: 791_869 };
    let stall =
        |waiting| Some(Stall { since: at(2), silent_for: Duration::from_secs(9), last_line: "> ".to_owned(), waiting });
    let waiting = |reads| Some(Waiting { pid: 8, command: "python3".to_owned(), reads });
    let (started_at, incarnation) = (at(1), incarnation());
    let running = TaskState::Running { incarnation: incarnation.clone(), process, started_at };
    let cause = StopCause::Timeout { after: Duration::from_secs(60) };
    let stopping = TaskState::Stopping { incarnation: incarnation.clone(), process, started_at, cause };
    vec![
        base(1),
        Task { spec: Arc::new(full_spec()), state: TaskState::Starting { incarnation }, ..base(2) },
        Task {
            output: OutputSummary {
                bytes: 500,
                incomplete: true,
                preview: "said\n".to_owned(),
                gap: Some(Gap { start: 10, end: 20 }),
            },
            stall: stall(waiting(Reads::Terminal)),
            memory_kills: MemoryKills { before: Some(3), count: 0, limit: Some(1 << 30) },
            state: running.clone(),
            ..base(3)
        },
        Task { stall: stall(waiting(Reads::Stdin)), state: running.clone(), ..base(4) },
        Task { stall: stall(None), state: running, ..base(5) },
        Task { state: stopping, ..base(6) },
    ]
}

fn outcomes() -> Vec<Outcome> {
    let (term, message) = (Signal::TERM, "why".to_owned());
    let stopped = |cause| Outcome::Stopped { cause, signal: Some(term) };
    let mut outcomes = vec![
        Outcome::Exited { code: 255 },
        Outcome::Signaled { signal: Signal::KILL },
        Outcome::TimedOut { after: Duration::from_secs(60) },
        Outcome::Stopped {
            cause: StopCause::Request { reason: "enough".to_owned(), acknowledge: false },
            signal: None,
        },
        stopped(StopCause::Disconnect),
        stopped(StopCause::SandboxStopped),
        stopped(StopCause::SandboxDeleted),
        stopped(StopCause::ServerShutdown),
        Outcome::FailedToStart { failure: StartFailure::NotFound, errno: Some(2), message: message.clone() },
    ];
    let failed = |failure| Outcome::FailedToStart { failure, errno: None, message: String::new() };
    // The others are among `queue_tasks`, because version 0.1.0 had them not.
    outcomes
        .extend(StartFailure::ALL.into_iter().filter(|failure| *failure != StartFailure::QueueDeadline).map(failed));
    let losses = [
        LossReason::SandboxRestarted,
        LossReason::SandboxRemoved,
        LossReason::SandboxStopped,
        LossReason::LogDirectoryGone,
        LossReason::ExitFileUnreadable,
        LossReason::SupervisorKilled,
        LossReason::LaunchInterrupted,
        LossReason::SandboxUnresponsive,
        LossReason::SandboxOutOfMemory,
    ];
    outcomes.extend(losses.map(|reason| Outcome::Lost { reason, message: message.clone() }));
    outcomes
}

/// Tasks in each state and with each outcome.
pub(super) fn tasks() -> Vec<Task> {
    let mut tasks = unfinished();
    for (number, outcome) in (100..).zip(outcomes()) {
        let late_outcome = matches!(outcome, Outcome::Lost { .. }).then_some(Outcome::Exited { code: 0 });
        let started_at = (number % 2 == 0).then(|| at(1));
        let state = TaskState::Finished { outcome, started_at, finished_at: at(5) };
        tasks.push(Task { state, late_outcome, ..base(number) });
    }
    let usage = ResourceUsage {
        user_cpu: Duration::from_micros(284),
        system_cpu: Duration::from_secs(2),
        peak_memory_bytes: 1_556_480,
        read_bytes: 36_864,
        written_bytes: 4096,
    };
    let memory_kills = MemoryKills { before: None, count: 2, limit: None };
    let finished = tasks[6].state.clone();
    let usage = Some(usage);
    let stop_requested = Some(StopCause::Request { reason: String::new(), acknowledge: false });
    tasks.push(Task { state: finished, usage, stop_requested, memory_kills, ..base(200) });
    tasks
}

/// Tasks that wait for room, or waited in vain: newer than version 0.1.0.
pub(super) fn queue_tasks() -> Vec<Task> {
    let when_full = WhenFull::Queue { deadline: Duration::from_secs(3600) };
    let spec = Arc::new(TaskSpec { when_full, ..full_spec() });
    let outcome = Outcome::FailedToStart {
        failure: StartFailure::QueueDeadline,
        errno: None,
        message: "it waited too long".to_owned(),
    };
    let over = TaskState::Finished { outcome, started_at: None, finished_at: at(5) };
    vec![
        Task { spec: Arc::clone(&spec), state: TaskState::AwaitingRoom, ..base(300) },
        Task { spec, state: over, ..base(301) },
    ]
}

/// Notifications of each kind, and one for each status.
pub(super) fn notifications() -> Vec<NewNotification> {
    let mut tasks = tasks();
    tasks[6].late_outcome = Some(Outcome::Signaled { signal: Signal::KILL });
    // No release stored labels with a notification.
    let told = |kind, number: usize| NewNotification {
        labels: BTreeMap::new(),
        ..NewNotification::new(kind, &tasks[number], b"last words\n", at(9))
    };
    let mut made = vec![
        told(NotificationKind::Stalled, 2),
        told(NotificationKind::Resumed, 4),
        told(NotificationKind::LateOutcome, 6),
        told(NotificationKind::Completed, tasks.len() - 1),
    ];
    for status in Status::ALL {
        made.push(NewNotification { status, command_truncated: true, ..told(NotificationKind::Completed, 1) });
    }
    made
}

/// Tasks with what their sessions are told, which no release stored.
pub(super) fn tasks_with_policies() -> Vec<Task> {
    let policies = [CompletionNotice::Always, CompletionNotice::UnlessSucceeded, CompletionNotice::Never];
    let mut tasks: Vec<Task> = (300..)
        .zip(policies)
        .map(|(number, completion)| {
            let (heartbeat_every, idle_after) = (Some(Duration::from_secs(60)), Some(Duration::from_secs(20)));
            let notify = NotifyPolicy { completion, head_bytes: 1, tail_bytes: 2, heartbeat_every, idle_after };
            let mut task =
                Task { notify, heartbeat_from: Duration::from_secs(61), idle_since: Some(at(3)), ..base(number) };
            Arc::make_mut(&mut task.spec).traceparent = Some(traceparent());
            task
        })
        .collect();
    let cause = StopCause::Request { reason: "own".to_owned(), acknowledge: true };
    let outcome = Outcome::Stopped { cause, signal: Some(Signal::TERM) };
    let state = TaskState::Finished { outcome, started_at: Some(at(1)), finished_at: at(5) };
    tasks.push(Task { state, ..base(303) });
    tasks
}

fn traceparent() -> TraceParent {
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap()
}

/// Notifications of kinds and with fields that no release stored.
pub(super) fn notifications_by_policy() -> Vec<NewNotification> {
    let mut task = tasks_with_policies().remove(0);
    task.output.bytes = 500;
    Arc::make_mut(&mut task.spec).labels = BTreeMap::from([("chat".to_owned(), "7".to_owned())]);
    let liveness = Liveness { silent_for: Duration::from_secs(9), last_line: "> ".to_owned() };
    let told = |kind| {
        let output = (&b"first"[..], &b"last"[..]);
        NewNotification::with_head(kind, &task, output, at(9)).with_liveness(Some(liveness.clone()))
    };
    let stopped = NewNotification::new(NotificationKind::Completed, &tasks_with_policies()[3], b"", at(9));
    assert!(stopped.acknowledged);
    vec![told(NotificationKind::Heartbeat), told(NotificationKind::Idle), stopped]
}

/// Tasks that use what came after 0.1.0.
pub(super) fn newer_tasks() -> Vec<Task> {
    let [text, regex] = watches();
    let state = |watch, disabled| WatchState { watch, matches: 3, held_back: 2, next: 700, unsearched: 9, disabled };
    let watches = Watches { set: 2, list: vec![state(text, false), state(regex, true)] };
    vec![Task { watches, ..tasks()[3].clone() }]
}

fn watches() -> [Watch; 2] {
    [
        Watch { pattern: WatchPattern::Text("<error>".to_owned()), once: true },
        Watch { pattern: WatchPattern::Regex("^a+$".to_owned()), once: false },
    ]
}

/// Notifications that use what came after 0.1.0.
pub(super) fn newer_notifications() -> Vec<NewNotification> {
    let told = |kind| NewNotification::new(kind, &newer_tasks()[0], b"last words\n", at(9));
    let lines = WatchLines { text: "an <error>\nanother".to_owned(), cut: true };
    let [watch, _] = watches();
    let others = vec![WatchCount { index: 1, matches: 5 }];
    let notice = WatchNotice { index: 0, watch, offset: 12, lines, matches: 1, others };
    vec![
        told(NotificationKind::WatchMatched).with_matches(Some(notice), 6),
        told(NotificationKind::WatchDisabled).with_matches(None, 4),
        told(NotificationKind::WatchesSuspended),
        told(NotificationKind::WatchesRestored).with_matches(None, 100),
        told(NotificationKind::Completed).with_matches(None, 1),
    ]
}

pub(super) fn sandbox() -> SandboxRecord {
    SandboxRecord {
        id: "018bcfe5-6800-7000-8000-aaaaaaaaaaaa".parse().unwrap(),
        tenant: owner().tenant,
        bot: owner().bot,
        spec: SandboxSpec {
            image: "debian:stable-slim".to_owned(),
            memory_bytes: 1 << 31,
            cpus: 1.5,
            pids_limit: 2048,
            network_mode: "none".to_owned(),
            writable_root: true,
            user: Some("1000".to_owned()),
            env: BTreeMap::from([("LANG".to_owned(), "C".to_owned())]),
            idle_stop_after: None,
        },
        runtime: "docker".to_owned(),
        runtime_id: "b4ea54".to_owned(),
        runtime_name: "errand-bot".to_owned(),
        adopted: true,
        created_at: at(0),
    }
}
