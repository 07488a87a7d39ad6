//! Fixtures: tasks, sandboxes, notifications and leases to test with.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{BotFilter, Caps, Created, LeaseRequest, NotificationQuery, Retention, Scope, TaskQuery, TaskStore};
use errand_task::{
    BotId, Ending, Event, LeaseId, NewNotification, Nonce, Notification, NotificationKind, OutputSummary, Owner,
    Program, SandboxId, SandboxRecord, SandboxSpec, SessionId, Task, TaskId, TaskSpec, TaskState, TenantId, WhenFull,
};

/// Caps that no test reaches.
pub const NO_CAPS: Caps = Caps {
    per_bot: 10_000,
    per_tenant: 10_000,
    queued_per_bot: 10_000,
    queued_per_tenant: 10_000,
    queued_bytes: 1 << 40,
    stored_tasks: 1_000_000,
    stored_bytes: 1 << 40,
};

/// Longer than any test takes.
pub const HOUR: Duration = Duration::from_secs(3600);
pub const MINUTE: Duration = Duration::from_secs(60);

/// A fixed time: `seconds` after 2023-11-14 22:13:20 UTC.
pub fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub fn bot(name: &str) -> BotId {
    BotId::new(name).unwrap()
}

pub fn owner(tenant_name: &str, bot_name: &str, session: &str) -> Owner {
    Owner { tenant: tenant(tenant_name), bot: bot(bot_name), session: SessionId::new(session).unwrap() }
}

/// The owner that most tests use.
pub fn alice() -> Owner {
    owner("a", "bot", "s")
}

/// The notifications of the owner's session.
pub fn scope(owner: &Owner) -> Scope {
    Scope { tenant: owner.tenant.clone(), bot: owner.bot.clone(), session: Some(owner.session.clone()) }
}

/// A new task that runs `make test` for at most 60 s.
pub fn task(owner: &Owner) -> Task {
    Task {
        id: TaskId::new(),
        owner: owner.clone(),
        sandbox: SandboxId::new(),
        spec: Arc::new(TaskSpec::new(
            Program::Shell { text: "make test".to_owned(), shell: None },
            Duration::from_secs(60),
        )),
        nonce: Nonce::new(),
        state: TaskState::Queued,
        late_outcome: None,
        stop_requested: None,
        output_file: "/tmp/errand/output.log".to_owned(),
        output: OutputSummary::default(),
        stall: None,
        usage: None,
        memory_kills: Default::default(),
        notify: Default::default(),
        heartbeat_from: Duration::ZERO,
        idle_since: None,
        watches: Default::default(),
        retained: None,
        created_at: at(0),
        revision: 0,
    }
}

/// A new task with an idempotency key.
pub fn requested(owner: &Owner, request_id: &str) -> Task {
    let mut task = task(owner);
    Arc::make_mut(&mut task.spec).request_id = Some(request_id.to_owned());
    task
}

/// A new task that waits for room.
pub fn awaiting_room(owner: &Owner) -> Task {
    let mut task = Task { state: TaskState::AwaitingRoom, ..task(owner) };
    Arc::make_mut(&mut task.spec).when_full = WhenFull::Queue { deadline: HOUR };
    task
}

/// Removes the tasks that are due: each so long after its end, acknowledged or not. Returns how many.
pub async fn remove(store: &dyn TaskStore, age: Duration, limit: u32) -> u64 {
    let retention = Retention { acknowledged: age, unacknowledged: age };
    store.remove_finished_tasks(retention, limit).await.unwrap().tasks
}

/// The task after its command has exited with `code` at `when`.
pub fn exited(mut task: Task, code: u8, when: SystemTime) -> Task {
    assert!(task.apply(Event::Ended { ending: Ending::Exited(code), started_at: None, signalled: true, at: when }));
    task
}

/// Creates the task. Panics if its request has one already.
pub async fn create(store: &dyn TaskStore, task: Task) -> Task {
    match store.create_task(task, NO_CAPS).await.unwrap() {
        Created::New(task) => task,
        Created::Existing(task) => panic!("the request already has the task {}", task.id),
    }
}

/// Creates a task, finishes it, and commits the notification of its completion.
pub async fn complete(store: &dyn TaskStore, owner: &Owner) -> Task {
    let task = exited(create(store, task(owner)).await, 0, at(10));
    let completed = notice(NotificationKind::Completed, &task);
    store.update_task(task, Some(completed)).await.unwrap()
}

/// A notification about the task, without output.
pub fn notice(kind: NotificationKind, task: &Task) -> NewNotification {
    NewNotification::new(kind, task, b"", at(10))
}

/// Completes `count` tasks, and returns the sequences of all notifications of the owner.
pub async fn completed(store: &dyn TaskStore, owner: &Owner, count: usize) -> Vec<i64> {
    for _ in 0..count {
        complete(store, owner).await;
    }
    sequences(&all(store, owner).await)
}

/// All tasks of a tenant, newest first.
pub fn all_tasks(tenant_name: &str) -> TaskQuery {
    TaskQuery {
        tenant: tenant(tenant_name),
        bots: BotFilter::All,
        session: None,
        statuses: Vec::new(),
        labels: BTreeMap::new(),
        before: None,
        limit: 1000,
    }
}

/// All notifications of a scope, acknowledged or not.
pub fn all_notifications(scope: &Scope) -> NotificationQuery {
    NotificationQuery { scope: scope.clone(), task: None, acknowledged: true, after: 0, limit: 1000 }
}

/// All notifications of the owner's session.
pub async fn all(store: &dyn TaskStore, owner: &Owner) -> Vec<Notification> {
    store.notifications(all_notifications(&scope(owner))).await.unwrap()
}

/// A request for a lease of one hour.
pub fn request(lease: LeaseId, limit: u32) -> LeaseRequest {
    LeaseRequest { lease, after: 0, limit, duration: HOUR }
}

/// Leases notifications of the owner's session.
pub async fn lease(store: &dyn TaskStore, owner: &Owner, request: LeaseRequest) -> Vec<Notification> {
    store.lease(&scope(owner), request).await.unwrap().notifications
}

pub fn ids(tasks: &[Task]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

pub fn sequences(notifications: &[Notification]) -> Vec<i64> {
    notifications.iter().map(|notification| notification.sequence).collect()
}

/// The tasks that the notifications are about.
pub fn about(notifications: &[Notification]) -> Vec<TaskId> {
    notifications.iter().map(|notification| notification.body.task).collect()
}

/// A new sandbox, with a container of its own.
pub fn sandbox(tenant_name: &str, bot_name: &str) -> SandboxRecord {
    SandboxRecord {
        id: SandboxId::new(),
        tenant: tenant(tenant_name),
        bot: bot(bot_name),
        spec: SandboxSpec {
            image: "debian:stable-slim".to_owned(),
            memory_bytes: 1 << 30,
            cpus: 1.5,
            pids_limit: 256,
            network_mode: "none".to_owned(),
            writable_root: false,
            user: None,
            env: BTreeMap::new(),
            idle_stop_after: Some(Duration::from_secs(600)),
        },
        runtime: "docker".to_owned(),
        runtime_id: format!("container-{tenant_name}-{bot_name}-{}", SandboxId::new()),
        runtime_name: format!("errand-{bot_name}"),
        adopted: false,
        created_at: at(0),
    }
}
