//! A store in one SQLite file: nothing to install, nothing to run beside the server.
//!
//! Owns the file, one connection that writes ([`writer`]) and a few that read. WAL lets them read while the writer commits; every commit
//! is flushed to disk before its callers are answered. One process at a time: a second one is refused.

mod file;
mod migrate;
mod notifications;
mod sandboxes;
mod tasks;
mod values;
mod writer;

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use sqlx::{
    Connection as _, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::watch;

use super::{Caps, Created, LeaseRequest, NotificationQuery, Scope, Selection, StoreError, TaskQuery, TaskStore};
use crate::task::{BotId, NewNotification, Notification, SandboxId, SandboxRecord, Task, TaskId, TenantId};
use writer::Writer;

/// Readers at a time. More would wait for the same disk.
const READERS: u32 = 4;
/// How long to wait for a lock that somebody outside holds, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Tasks, sandboxes and notifications in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    readers: SqlitePool,
    writer: Writer,
}

impl SqliteStore {
    /// Opens the database at `path`, makes it when there is none, and brings its schema up to date. Its directory must exist. Beside it
    /// stands `<path>.lock`, which keeps a second server out.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Unwritable`], [`StoreError::NotADatabase`] and [`StoreError::TooNew`]; a file that is refused
    /// is left as it was. [`StoreError::Database`] for anything else.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let claim = file::claim(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let mut connection =
            SqliteConnection::connect_with(&options).await.map_err(|error| file::refused(path, error))?;
        migrate::migrate(&mut connection, path).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self { readers, writer: Writer::start(connection, claim) })
    }

    /// How many commits there were since the store was opened: fewer than changes, where changes shared one.
    pub fn commits(&self) -> u64 {
        self.writer.commits()
    }
}

#[async_trait]
impl TaskStore for SqliteStore {
    async fn create_task(&self, task: Task, caps: Caps) -> Result<Created, StoreError> {
        self.writer.submit(tasks::Create { task, caps }).await
    }

    async fn update_task(&self, task: Task, notification: Option<NewNotification>) -> Result<Task, StoreError> {
        self.writer.submit(tasks::Update { task, notification }).await
    }

    async fn task(&self, tenant: &TenantId, id: TaskId) -> Result<Option<Task>, StoreError> {
        tasks::get(&self.readers, tenant, id).await
    }

    async fn task_by_request(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        request_id: &str,
    ) -> Result<Option<Task>, StoreError> {
        tasks::get_by_request(&self.readers, tenant, bot, request_id).await
    }

    async fn tasks(&self, query: TaskQuery) -> Result<Vec<Task>, StoreError> {
        tasks::list(&self.readers, query).await
    }

    async fn unfinished_tasks(&self) -> Result<Vec<Task>, StoreError> {
        tasks::unfinished(&self.readers).await
    }

    async fn remove_finished_tasks(&self, before: SystemTime, limit: u32) -> Result<Vec<Task>, StoreError> {
        self.writer.submit(tasks::RemoveFinished { before, limit }).await
    }

    async fn put_sandbox(&self, sandbox: SandboxRecord) -> Result<(), StoreError> {
        self.writer.submit(sandboxes::Put(sandbox)).await
    }

    async fn sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<Option<SandboxRecord>, StoreError> {
        sandboxes::get(&self.readers, tenant, bot).await
    }

    async fn sandboxes(
        &self,
        tenant: Option<&TenantId>,
        after: Option<SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxRecord>, StoreError> {
        sandboxes::list(&self.readers, tenant, after, limit).await
    }

    async fn remove_sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<(), StoreError> {
        self.writer.submit(sandboxes::Remove { tenant: tenant.clone(), bot: bot.clone() }).await
    }

    async fn notifications(&self, query: NotificationQuery) -> Result<Vec<Notification>, StoreError> {
        notifications::list(&self.readers, query).await
    }

    async fn lease(&self, scope: &Scope, request: LeaseRequest) -> Result<Vec<Notification>, StoreError> {
        self.writer.submit(notifications::Lease { scope: scope.clone(), request }).await
    }

    async fn next_lease_end(&self, scope: &Scope, after: i64) -> Result<Option<SystemTime>, StoreError> {
        notifications::next_lease_end(&self.readers, scope, after).await
    }

    async fn acknowledge(&self, scope: &Scope, which: Selection, now: SystemTime) -> Result<u32, StoreError> {
        self.writer.submit(notifications::Acknowledge { scope: scope.clone(), which, now }).await
    }

    async fn release(&self, scope: &Scope, which: Selection) -> Result<u32, StoreError> {
        self.writer.submit(notifications::Release { scope: scope.clone(), which }).await
    }

    async fn acknowledge_completion(
        &self,
        tenant: &TenantId,
        task: TaskId,
        now: SystemTime,
    ) -> Result<u32, StoreError> {
        self.writer.submit(notifications::AcknowledgeCompletion { tenant: tenant.clone(), task, now }).await
    }

    async fn remove_notifications(
        &self,
        acknowledged_before: SystemTime,
        made_before: SystemTime,
    ) -> Result<u64, StoreError> {
        self.writer.submit(notifications::RemoveOld { acknowledged_before, made_before }).await
    }

    fn notified(&self, scope: &Scope) -> watch::Receiver<u64> {
        self.writer.notified(scope)
    }

    async fn close(&self) {
        // Readers first: the last connection to close folds the WAL into the file, and only a writing one can.
        self.readers.close().await;
        self.writer.close().await;
    }
}
