//! What is durable: tasks, sandboxes and notifications.
//!
//! [`TaskStore`] is the contract; [`SqliteStore`] keeps it in one file. The store knows nothing of containers and decides nothing: the
//! engine computes a change and the store commits it, whole or not at all.

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod signs;
mod sqlite;

use std::{collections::BTreeMap, time::SystemTime};

use async_trait::async_trait;
use tokio::sync::watch;

use errand_task::{
    BotId, LeaseId, NewNotification, Notification, SandboxId, SandboxRecord, SessionId, Status, Task, TaskId, TenantId,
};

pub use error::StoreError;
pub use sqlite::SqliteStore;

/// The size in bytes from which on a page of tasks or notifications ends, whatever its limit: about what one answer to a client holds. What is counted is [`Task::weight`] and [`NewNotification::weight`].
pub const PAGE_BYTES: usize = 3 * 1024 * 1024;

/// Keeps tasks, sandboxes and notifications. Every method that changes something returns after the change is on disk.
///
/// Cancel safety: a change whose future is dropped is committed whole or not at all.
#[async_trait]
pub trait TaskStore: Send + Sync + 'static {
    /// Adds a task, unless its owner's bot has one with the same request id, which is then returned.
    ///
    /// # Errors
    /// [`StoreError::TooManyForBot`] or [`StoreError::TooManyForTenant`] when `caps` would be exceeded by unfinished tasks,
    /// [`StoreError::TooManyStored`] or [`StoreError::TooMuchStored`] when they would be by all that is stored. Nothing is stored then.
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
    /// [`StoreError::Record`] when its record cannot be understood; when the store cannot be read.
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

    /// A page of a tenant's tasks, newest first, without those whose records cannot be understood. The work for one page and its size
    /// are bounded: it may hold fewer than there are, even none.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the tenant reads too much at a time; when the store cannot be read.
    async fn task_page(&self, query: TaskQuery) -> Result<TaskPage, StoreError>;

    /// The first `query.limit` tasks of a tenant, newest first, over as many pages as it takes.
    ///
    /// # Errors
    /// As for [`TaskStore::task_page`].
    async fn tasks(&self, mut query: TaskQuery) -> Result<Vec<Task>, StoreError> {
        let mut tasks = Vec::new();
        loop {
            let page = self.task_page(query.clone()).await?;
            query.limit = query.limit.saturating_sub(u32::try_from(page.tasks.len()).unwrap_or(u32::MAX));
            tasks.extend(page.tasks);
            if page.next.is_none() || query.limit == 0 {
                return Ok(tasks);
            }
            query.before = page.next;
        }
    }

    /// Every unfinished task of every tenant, oldest first, without those whose records cannot be understood: these are left alone.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn unfinished_tasks(&self) -> Result<Vec<Task>, StoreError>;

    /// Which of these tasks are not in the store, whoever's they are.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn unknown_tasks(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, StoreError>;

    /// Removes up to `limit` tasks that finished before `before`, those first that finished first, and notes each whose sandbox is still
    /// known among its [`TaskStore::pending_removals`]. Returns how many; none when there are no more.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn remove_finished_tasks(&self, before: SystemTime, limit: u32) -> Result<u64, StoreError>;

    /// Removed tasks whose directories in a sandbox are still to be removed, at most `limit`. They are forgotten with the sandbox.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn pending_removals(&self, sandbox: SandboxId, limit: u32) -> Result<Vec<TaskId>, StoreError>;

    /// Strikes off directories that are removed.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn removed(&self, sandbox: SandboxId, tasks: &[TaskId]) -> Result<(), StoreError>;

    /// Adds a sandbox or replaces the record with the same id.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the bot has a sandbox with another id, the sandbox with this id belongs to another bot, or the
    /// runtime's sandbox is another bot's.
    async fn put_sandbox(&self, sandbox: SandboxRecord) -> Result<(), StoreError>;

    /// A bot's sandbox.
    ///
    /// # Errors
    /// [`StoreError::Record`] when its record cannot be understood; when the store cannot be read.
    async fn sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<Option<SandboxRecord>, StoreError>;

    /// A tenant's sandboxes, oldest first, after the one with id `after`; every tenant's when `tenant` is none. Without those whose records
    /// cannot be understood.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn sandboxes(
        &self,
        tenant: Option<&TenantId>,
        after: Option<SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxRecord>, StoreError>;

    /// Forgets a bot's sandbox. No error when there is none.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn remove_sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<(), StoreError>;

    /// A page of notifications in order of sequence, without any effect on their delivery, and without those whose records cannot be
    /// understood. The work for one page and its size are bounded: it may hold fewer than there are, even none. All that a store returns are
    /// bounded themselves, see [`NewNotification::bounded`], also those that an older server stored.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the tenant reads too much at a time; when the store cannot be read.
    async fn notification_page(&self, query: NotificationQuery) -> Result<NotificationPage, StoreError>;

    /// The first `query.limit` notifications, over as many pages as it takes.
    ///
    /// # Errors
    /// As for [`TaskStore::notification_page`].
    async fn notifications(&self, mut query: NotificationQuery) -> Result<Vec<Notification>, StoreError> {
        let mut notifications = Vec::new();
        loop {
            let page = self.notification_page(query.clone()).await?;
            query.limit = query.limit.saturating_sub(u32::try_from(page.notifications.len()).unwrap_or(u32::MAX));
            notifications.extend(page.notifications);
            match page.next {
                Some(next) if query.limit > 0 => query.after = next,
                Some(_) | None => return Ok(notifications),
            }
        }
    }

    /// Leases unacknowledged notifications that nobody has leased, in order of sequence, and counts the delivery. Those whose records cannot
    /// be understood are passed over. Fewer than the limit are no sign that there are no more.
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

    /// Removes up to `limit` notifications that were acknowledged before `acknowledged_before`, or made before `made_before`. Returns how
    /// many; none when there are no more.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn remove_notifications(
        &self,
        acknowledged_before: SystemTime,
        made_before: SystemTime,
        limit: u32,
    ) -> Result<u64, StoreError>;

    /// The newest of the times before `before` at which a task ended or a notification was made.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn newest_time(&self, before: SystemTime) -> Result<Option<SystemTime>, StoreError>;

    /// A small fact of the server itself, as it was last kept under this name.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn meta(&self, key: &'static str) -> Result<Option<String>, StoreError>;

    /// Keeps a small fact of the server itself.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn put_meta(&self, key: &'static str, value: String) -> Result<(), StoreError>;

    /// Changes whenever notifications of this scope were committed or released: the sign to look again. Starts at any value. The end of a lease changes
    /// nothing here: see [`TaskStore::next_lease_end`].
    fn notified(&self, scope: &Scope) -> watch::Receiver<u64>;

    /// Waits until all accepted changes are on disk, then lets go of the database. Later calls fail with [`StoreError::Closed`]. May be
    /// called again.
    async fn close(&self);
}

/// The most tasks.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Unfinished ones of one bot.
    pub per_bot: u32,
    /// Unfinished ones of one tenant.
    pub per_tenant: u32,
    /// All that are stored of one tenant.
    pub stored_tasks: u64,
    /// Bytes of what is stored of one tenant: tasks, with some overhead for each, and notifications.
    pub stored_bytes: u64,
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

impl TaskQuery {
    /// True when only unfinished tasks can match.
    pub fn is_unfinished(&self) -> bool {
        !self.statuses.is_empty() && self.statuses.iter().all(|status| !status.is_terminal())
    }
}

/// Tasks that were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// What [`TaskQuery::before`] is for the next page; none when there is no more.
    pub next: Option<TaskId>,
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

impl BotFilter {
    /// True when the bot is one of those.
    pub fn admits(&self, bot: &BotId) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == bot,
            Self::Matching(patterns) => patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => bot.as_str().starts_with(prefix),
                None => pattern == bot.as_str(),
            }),
        }
    }
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

/// Notifications that were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotificationPage {
    /// The notifications.
    pub notifications: Vec<Notification>,
    /// What [`NotificationQuery::after`] is for the next page; none when there is no more.
    pub next: Option<i64>,
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
