//! Tasks, sandboxes and notifications to test with.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{BotFilter, Caps, Created, NotificationQuery, Scope, TaskQuery, TaskStore};
use errand_task::{
    BotId, Ending, Event, NewNotification, Nonce, Notification, NotificationKind, OutputSummary, Owner, Program,
    SandboxId, SandboxRecord, SandboxSpec, SessionId, Task, TaskId, TaskSpec, TaskState, TenantId,
};

/// More than any test needs.
pub const NO_CAPS: Caps = Caps { per_bot: 10_000, per_tenant: 10_000, stored_tasks: 1_000_000, stored_bytes: 1 << 40 };

/// A moment that does not depend on when the test runs.
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

/// The notifications of the owner's session.
pub fn scope(owner: &Owner) -> Scope {
    Scope { tenant: owner.tenant.clone(), bot: owner.bot.clone(), session: Some(owner.session.clone()) }
}

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
        created_at: at(0),
        revision: 0,
    }
}

pub fn requested(owner: &Owner, request_id: &str) -> Task {
    let mut task = task(owner);
    Arc::make_mut(&mut task.spec).request_id = Some(request_id.to_owned());
    task
}

/// The task as it is once its command exited with `code`.
pub fn exited(mut task: Task, code: u8, when: SystemTime) -> Task {
    assert!(task.apply(Event::Ended { ending: Ending::Exited(code), started_at: None, signalled: true, at: when }));
    task
}

pub async fn create(store: &dyn TaskStore, task: Task) -> Task {
    match store.create_task(task, NO_CAPS).await.unwrap() {
        Created::New(task) => task,
        Created::Existing(task) => panic!("there was one already: {}", task.id),
    }
}

/// A task that is over, and the notification of that.
pub async fn complete(store: &dyn TaskStore, owner: &Owner) -> Task {
    let task = exited(create(store, task(owner)).await, 0, at(10));
    let completed = notice(NotificationKind::Completed, &task);
    store.update_task(task, Some(completed)).await.unwrap()
}

pub fn notice(kind: NotificationKind, task: &Task) -> NewNotification {
    NewNotification::new(kind, task, b"", at(10))
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

pub fn ids(tasks: &[Task]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

pub fn sequences(notifications: &[Notification]) -> Vec<i64> {
    notifications.iter().map(|notification| notification.sequence).collect()
}

pub fn about(notifications: &[Notification]) -> Vec<TaskId> {
    notifications.iter().map(|notification| notification.body.task).collect()
}

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
        },
        runtime: "docker".to_owned(),
        runtime_id: format!("container-{tenant_name}-{bot_name}-{}", SandboxId::new()),
        runtime_name: format!("errand-{bot_name}"),
        adopted: false,
        created_at: at(0),
    }
}
