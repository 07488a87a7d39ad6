//! The contract of every store.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use errand_task::{
    BotId, LeaseId, NewNotification, Notification, RetainedOutput, SandboxId, SandboxRecord, Task, TaskId, TenantId,
};
use tokio::sync::watch;

use crate::{
    BotFilter, Caps, Created, End, LeaseRequest, Leased, NotificationPage, NotificationQuery, RemovedTasks, Retention,
    Scope, SealedSecrets, Selection, StoreError, TaskPage, TaskQuery,
};

/// Keeps tasks, sandboxes and notifications. A method that changes something returns after the change is on disk.
///
/// **Time.** Leases, ages and times of acknowledgement go by the store's own clock. Callers pass durations, so that several servers whose
/// clocks differ can share one store. Only time that has really passed makes a record old: if the clock leaps forward, no record gets older
/// by the leap.
///
/// **Sequences.** Every notification has a sequence. Within one bot, sequences are unique, also after removals, and grow in the order of
/// commits: once a notification can be read, no notification of that bot with a lower sequence appears any more. So a reader that continues
/// after the last sequence it has read misses nothing. Sequences of different bots are unrelated, and sequences may have gaps.
///
/// **Undecodable records.** A record that the store cannot decode spoils only itself: lists leave it out, and a look-up of it fails with
/// [`StoreError::Record`].
///
/// **Cancel safety.** A change whose future is dropped is committed as a whole or not at all.
#[async_trait]
pub trait TaskStore: Send + Sync + 'static {
    /// Adds a task, unless the bot already has a task with the same request id: then returns that task.
    ///
    /// # Errors
    /// [`StoreError::TooManyForBot`] or [`StoreError::TooManyForTenant`] when the unfinished tasks would exceed `caps`. A task that waits for
    /// room is not counted among them; for such a task [`StoreError::TooManyQueuedForBot`], [`StoreError::TooManyQueuedForTenant`] or
    /// [`StoreError::TooMuchQueued`]. [`StoreError::TooManyStored`] or [`StoreError::TooMuchStored`] when everything stored would. Then nothing
    /// is stored.
    async fn create_task(&self, task: Task, caps: Caps) -> Result<Created, StoreError> {
        self.create_task_with_secrets(task, SealedSecrets::default(), caps).await
    }

    /// Adds a task together with its encrypted secrets, in one transaction. They count as bytes of the task, and are removed with it at the
    /// latest.
    ///
    /// # Errors
    /// As for [`TaskStore::create_task`].
    async fn create_task_with_secrets(
        &self,
        task: Task,
        secrets: SealedSecrets,
        caps: Caps,
    ) -> Result<Created, StoreError>;

    /// What is left of a task's encrypted secrets; empty when nothing is.
    ///
    /// # Errors
    /// An error of the database.
    async fn secrets(&self, task: TaskId) -> Result<SealedSecrets, StoreError>;

    /// Stores a task's progress and adds a notification, in one transaction. The notification counts as acknowledged from the start if it
    /// says so: it is delivered to nobody. Returns the task with its new revision.
    ///
    /// The specification, owner, sandbox, nonce, output file and time of creation stay as they were accepted, whatever `task` holds.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the stored revision is not `task.revision`, when there is no such task, or when the task is finished.
    /// A finished task accepts one change: its first late outcome, with everything else unchanged.
    async fn update_task(&self, task: Task, notification: Option<NewNotification>) -> Result<Task, StoreError>;

    /// Stores that a task no longer waits for room, if its bot and its tenant have room. Returns the task with its new revision.
    ///
    /// # Errors
    /// [`StoreError::TooManyForBot`] or [`StoreError::TooManyForTenant`] when they have none: then nothing is changed. Else as for
    /// [`TaskStore::update_task`].
    async fn admit_task(&self, task: Task, caps: Caps) -> Result<Task, StoreError>;

    /// Stores a task's end, with the notification of it and what is retained of its output, in one transaction. Returns the task with its
    /// new revision and with what was retained.
    ///
    /// # Errors
    /// As for [`TaskStore::update_task`]. An output for which there is no room is no error.
    async fn finish_task(
        &self,
        task: Task,
        notification: Option<NewNotification>,
        end: End,
    ) -> Result<Task, StoreError>;

    /// Replaces what is retained of a finished task's output, within half of `stored_bytes`; none: what is retained stays as it is. The task
    /// is no longer among [`TaskStore::unretained_tasks`]. No error if there is no such task or no room.
    ///
    /// # Errors
    /// An error of the database.
    async fn retain_output(
        &self,
        tenant: &TenantId,
        task: TaskId,
        output: Option<RetainedOutput>,
        stored_bytes: u64,
    ) -> Result<(), StoreError>;

    /// The retained output of a finished task; none if nothing is retained.
    ///
    /// # Errors
    /// [`StoreError::Record`] when it cannot be decoded; an error of the database.
    async fn retained_output(&self, tenant: &TenantId, task: TaskId) -> Result<Option<RetainedOutput>, StoreError>;

    /// Finished tasks whose sandbox holds more of their output than is retained: at most `limit` of one sandbox, the oldest first.
    ///
    /// # Errors
    /// An error of the database.
    async fn unretained_tasks(&self, sandbox: SandboxId, limit: u32) -> Result<Vec<Task>, StoreError>;

    /// How much time has really passed since the clock showed `since`.
    ///
    /// # Errors
    /// An error of the database.
    async fn age(&self, since: SystemTime) -> Result<Duration, StoreError>;

    /// One task of a tenant.
    ///
    /// # Errors
    /// [`StoreError::Record`] when the record cannot be decoded; an error of the database.
    async fn task(&self, tenant: &TenantId, id: TaskId) -> Result<Option<Task>, StoreError>;

    /// The task of a bot with this request id.
    ///
    /// # Errors
    /// As for [`TaskStore::task`].
    async fn task_by_request(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        request_id: &str,
    ) -> Result<Option<Task>, StoreError>;

    /// A page of a tenant's tasks, newest first. The size of a page and the work for it are bounded: a page may hold fewer tasks than match,
    /// even none, and still not be the last.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the tenant has too many reads waiting; an error of the database.
    async fn task_page(&self, query: TaskQuery) -> Result<TaskPage, StoreError>;

    /// The first `query.limit` tasks of a tenant, newest first, over as many pages as needed.
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

    /// Every unfinished task of every tenant, oldest first.
    ///
    /// # Errors
    /// An error of the database.
    async fn unfinished_tasks(&self) -> Result<Vec<Task>, StoreError>;

    /// Those of these ids that were made longer than `older_than` ago and belong to no stored task of any tenant, in the order given. The
    /// time is that in the id; an id without a time is left out.
    ///
    /// # Errors
    /// An error of the database.
    async fn unknown_tasks(&self, ids: &[TaskId], older_than: Duration) -> Result<Vec<TaskId>, StoreError>;

    /// Removes up to `limit` finished tasks that are due, each with all of its notifications and its retained output. Due is a task
    /// whose completion and late outcome were acknowledged longer than `retention.acknowledged` ago; a task that ended so long ago without a
    /// notification of that; and a task whose end was committed longer than `retention.unacknowledged` ago without an acknowledgement. A
    /// removed task whose sandbox is still stored is added to [`TaskStore::pending_removals`]. No tasks are returned when no more are due.
    ///
    /// # Errors
    /// An error of the database.
    async fn remove_finished_tasks(&self, retention: Retention, limit: u32) -> Result<RemovedTasks, StoreError>;

    /// Removed tasks whose directories in a sandbox have to be removed, at most `limit`. They are forgotten with the sandbox.
    ///
    /// # Errors
    /// An error of the database.
    async fn pending_removals(&self, sandbox: SandboxId, limit: u32) -> Result<Vec<TaskId>, StoreError>;

    /// Strikes tasks off [`TaskStore::pending_removals`]: their directories are removed.
    ///
    /// # Errors
    /// An error of the database.
    async fn removed(&self, sandbox: SandboxId, tasks: &[TaskId]) -> Result<(), StoreError>;

    /// Adds a sandbox, or replaces the record with the same id.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the bot has a sandbox with another id, the sandbox with this id belongs to another bot, or the
    /// runtime's sandbox is another bot's.
    async fn put_sandbox(&self, sandbox: SandboxRecord) -> Result<(), StoreError>;

    /// A bot's sandbox.
    ///
    /// # Errors
    /// [`StoreError::Record`] when the record cannot be decoded; an error of the database.
    async fn sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<Option<SandboxRecord>, StoreError>;

    /// Sandboxes of a tenant, or of every tenant when `tenant` is none: the first `limit` after the one with id `after`, oldest first.
    ///
    /// # Errors
    /// An error of the database.
    async fn sandboxes(
        &self,
        tenant: Option<&TenantId>,
        after: Option<SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxRecord>, StoreError>;

    /// Forgets a bot's sandbox. No error when there is none.
    ///
    /// # Errors
    /// An error of the database.
    async fn remove_sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<(), StoreError>;

    /// A page of notifications in order of sequence. Reading them does not count as a delivery. The size of a page and the work for it are
    /// bounded: a page may hold fewer notifications than match, even none, and still not be the last. Every notification that a store
    /// returns is bounded, see [`NewNotification::bounded`], even if an older server stored it.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the tenant has too many reads waiting; an error of the database.
    async fn notification_page(&self, query: NotificationQuery) -> Result<NotificationPage, StoreError>;

    /// The first `query.limit` notifications, over as many pages as needed.
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

    /// Leases unacknowledged notifications on which no lease is running, in order of sequence, and counts the delivery. Fewer notifications
    /// than the limit do not mean that there are no more; none means so.
    ///
    /// # Errors
    /// An error of the database.
    async fn lease(&self, scope: &Scope, request: LeaseRequest) -> Result<Leased, StoreError>;

    /// How long until the first lease on an unacknowledged notification after sequence `after` ends: zero for a lease that has ended and
    /// was not replaced, none when nothing is leased.
    ///
    /// # Errors
    /// An error of the database.
    async fn next_lease_end(&self, scope: &Scope, after: i64) -> Result<Option<Duration>, StoreError>;

    /// Acknowledges notifications, which ends their delivery. Returns how many were unacknowledged.
    ///
    /// # Errors
    /// An error of the database.
    async fn acknowledge(&self, scope: &Scope, which: Selection) -> Result<u32, StoreError>;

    /// Ends leases before their time. Returns how many.
    ///
    /// # Errors
    /// An error of the database.
    async fn release(&self, scope: &Scope, which: Selection) -> Result<u32, StoreError>;

    /// Acknowledges the completion notification of a task, if it has one. Returns how many were unacknowledged.
    ///
    /// # Errors
    /// An error of the database.
    async fn acknowledge_completion(&self, tenant: &TenantId, task: TaskId) -> Result<u32, StoreError>;

    /// Leases the completion notification of a task under this lease, so that it is held back from drains and exclusive subscriptions, and
    /// counts the delivery. A lease of the same name begins anew. False when there is no unacknowledged one, or when another lease runs.
    ///
    /// # Errors
    /// An error of the database.
    async fn hold_completion(
        &self,
        tenant: &TenantId,
        task: TaskId,
        lease: LeaseId,
        duration: Duration,
    ) -> Result<bool, StoreError>;

    /// Acknowledges the notifications of a tenant's bots that this lease holds, also if it has ended and no other lease took its place.
    /// Returns how many were unacknowledged.
    ///
    /// # Errors
    /// An error of the database.
    async fn acknowledge_held(&self, tenant: &TenantId, bots: &BotFilter, lease: LeaseId) -> Result<u32, StoreError>;

    /// The wake-ups of a scope: the value changes after notifications of it were committed or released. It starts at any value. The end of
    /// a lease is no wake-up: see [`TaskStore::next_lease_end`].
    fn wake_ups(&self, scope: &Scope) -> watch::Receiver<u64>;

    /// Waits until all accepted changes are on disk, then lets go of the database. Later calls fail with [`StoreError::Closed`]. May be
    /// called again.
    async fn close(&self);
}
