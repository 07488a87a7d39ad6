//! What is durable: tasks, sandboxes and notifications.
//!
//! [`TaskStore`] is the contract; [`SqliteStore`] keeps it in one file. The store knows nothing of containers and decides nothing: the
//! engine computes a change and the store commits it, whole or not at all.

mod error;
mod signs;
mod sqlite;

use std::{collections::BTreeMap, time::SystemTime};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::task::{
    BotId, LeaseId, NewNotification, Notification, SandboxRecord, SessionId, Status, Task, TaskId, TenantId,
};

pub use error::StoreError;
pub use sqlite::SqliteStore;

/// Keeps tasks, sandboxes and notifications. Every method that changes something returns after the change is on disk.
///
/// Cancel safety: a change whose future is dropped is committed whole or not at all.
#[async_trait]
pub trait TaskStore: Send + Sync + 'static {
    /// Adds a task, unless its owner's bot has one with the same request id, which is then returned.
    ///
    /// # Errors
    /// [`StoreError::TooManyForBot`] or [`StoreError::TooManyForTenant`] when `caps` would be exceeded by unfinished tasks. Nothing is stored then.
    async fn create_task(&self, task: Task, caps: Caps) -> Result<Created, StoreError>;

    /// Replaces a task's record and adds a notification, in one transaction. Returns the record with its new revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the stored revision is not `task.revision`, when there is no such task, or when a terminal state
    /// would change: a finished task takes nothing but a first late outcome.
    async fn update_task(&self, task: Task, notification: Option<NewNotification>) -> Result<Task, StoreError>;

    /// One task of a tenant.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn task(&self, tenant: &TenantId, id: TaskId) -> Result<Option<Task>, StoreError>;

    /// The task of a bot with this request id.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn task_by_request(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        request_id: &str,
    ) -> Result<Option<Task>, StoreError>;

    /// Tasks of a tenant, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn tasks(&self, query: TaskQuery) -> Result<Vec<Task>, StoreError>;

    /// Every unfinished task of every tenant, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn unfinished_tasks(&self) -> Result<Vec<Task>, StoreError>;

    /// Removes up to `limit` tasks that finished before `before` and returns them.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn remove_finished_tasks(&self, before: SystemTime, limit: u32) -> Result<Vec<Task>, StoreError>;

    /// Adds a sandbox or replaces the record with the same id.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the bot has a sandbox with another id, the sandbox with this id belongs to another bot, or the
    /// runtime's sandbox is another bot's.
    async fn put_sandbox(&self, sandbox: SandboxRecord) -> Result<(), StoreError>;

    /// A bot's sandbox.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<Option<SandboxRecord>, StoreError>;

    /// A tenant's sandboxes, oldest first, after the one with id `after`; every tenant's when `tenant` is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn sandboxes(
        &self,
        tenant: Option<&TenantId>,
        after: Option<crate::task::SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxRecord>, StoreError>;

    /// Forgets a bot's sandbox. No error when there is none.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn remove_sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<(), StoreError>;

    /// Notifications in order of sequence, without any effect on their delivery.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn notifications(&self, query: NotificationQuery) -> Result<Vec<Notification>, StoreError>;

    /// Leases unacknowledged notifications that nobody has leased, in order of sequence, and counts the delivery.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn lease(&self, scope: &Scope, request: LeaseRequest) -> Result<Vec<Notification>, StoreError>;

    /// When the first lease on an unacknowledged notification after sequence `after` ends; none when nothing there is leased. In the past
    /// for a lease that has ended and was not taken over.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn next_lease_end(&self, scope: &Scope, after: i64) -> Result<Option<SystemTime>, StoreError>;

    /// Ends the delivery of notifications. Returns how many were unacknowledged.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn acknowledge(&self, scope: &Scope, which: Selection, now: SystemTime) -> Result<u32, StoreError>;

    /// Ends leases before their time. Returns how many.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn release(&self, scope: &Scope, which: Selection) -> Result<u32, StoreError>;

    /// Acknowledges the completion notification of a task, if it has one that is not.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn acknowledge_completion(&self, tenant: &TenantId, task: TaskId, now: SystemTime)
    -> Result<u32, StoreError>;

    /// Removes notifications that were acknowledged before `acknowledged_before`, and all made before `made_before`. Returns how many.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn remove_notifications(
        &self,
        acknowledged_before: SystemTime,
        made_before: SystemTime,
    ) -> Result<u64, StoreError>;

    /// Changes whenever notifications of this scope were committed or released: the sign to look again. Starts at any value. The end of a lease changes
    /// nothing here: see [`TaskStore::next_lease_end`].
    fn notified(&self, scope: &Scope) -> watch::Receiver<u64>;

    /// Waits until all accepted changes are on disk, then lets go of the database. Later calls fail with [`StoreError::Closed`]. May be
    /// called again.
    async fn close(&self);
}

/// The most unfinished tasks.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Of one bot.
    pub per_bot: u32,
    /// Of one tenant.
    pub per_tenant: u32,
}

/// What became of a task that was to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It was added.
    New(Task),
    /// The bot already had this one with the same request id. Nothing was added.
    Existing(Task),
}

/// Which tasks.
#[derive(Debug, Clone)]
pub struct TaskQuery {
    /// Of this tenant.
    pub tenant: TenantId,
    /// Of these bots.
    pub bots: BotFilter,
    /// Of this session only.
    pub session: Option<SessionId>,
    /// With one of these statuses; empty: any.
    pub statuses: Vec<Status>,
    /// With all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Older than this task: the last of the page before.
    pub before: Option<TaskId>,
    /// The most to return.
    pub limit: u32,
}

/// Which bots a caller means, or may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BotFilter {
    /// Every bot of the tenant.
    All,
    /// This one.
    One(BotId),
    /// Those that match one of these: a name, or a prefix followed by `*`.
    Matching(Vec<String>),
}

/// Whose notifications: those of one session, or of all sessions of a bot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The tenant.
    pub tenant: TenantId,
    /// The bot.
    pub bot: BotId,
    /// The session; none: all.
    pub session: Option<SessionId>,
}

/// Which notifications.
#[derive(Debug, Clone)]
pub struct NotificationQuery {
    /// Whose.
    pub scope: Scope,
    /// Of this task only.
    pub task: Option<TaskId>,
    /// Also the acknowledged ones.
    pub acknowledged: bool,
    /// With a greater sequence than this.
    pub after: i64,
    /// The most to return.
    pub limit: u32,
}

/// What to lease, and until when.
#[derive(Debug, Clone, Copy)]
pub struct LeaseRequest {
    /// Names the lease.
    pub lease: LeaseId,
    /// With a greater sequence than this.
    pub after: i64,
    /// The most.
    pub limit: u32,
    /// Leases that ended by now are free again.
    pub now: SystemTime,
    /// When this lease ends.
    pub until: SystemTime,
}

/// Notifications by name.
#[derive(Debug, Clone)]
pub enum Selection {
    /// These.
    Sequences(Vec<i64>),
    /// All that this lease holds.
    Lease(LeaseId),
}
