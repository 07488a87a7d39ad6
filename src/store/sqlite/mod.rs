//! A store in one SQLite file: nothing to install, nothing to run beside the server.
//!
//! Owns the file, one connection that writes ([`writer`]) and a few that read. WAL lets them read while the writer commits; every commit
//! is flushed to disk before its callers are answered. One process at a time: a second one is refused.

mod file;
mod migrate;
mod notifications;
mod readers;
mod sandboxes;
mod statement;
mod tasks;
mod values;
mod writer;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::watch;

use super::{Caps, Created, LeaseRequest, NotificationQuery, Scope, Selection, StoreError, TaskQuery, TaskStore};
use crate::task::{BotId, NewNotification, Notification, SandboxId, SandboxRecord, Task, TaskId, TenantId};
use readers::Readers;
use writer::Writer;

/// How long to wait for a lock that somebody outside holds, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements that a connection keeps prepared. More than there are of fixed form.
const PREPARED: usize = 64;

/// Tasks, sandboxes and notifications in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    readers: Readers,
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
        let (opened, claim) = {
            let path = path.to_owned();
            tokio::task::spawn_blocking(move || open(&path).map(|connection| (connection, claim)))
                .await
                .map_err(|error| StoreError::Database(Arc::new(error)))??
        };
        let writer = Writer::start(opened, claim).map_err(|error| StoreError::Database(Arc::new(error)))?;
        Ok(Self { readers: Readers::new(path), writer })
    }

    /// How many commits there were since the store was opened: fewer than changes, where changes shared one.
    pub fn commits(&self) -> u64 {
        self.writer.commits()
    }

    /// How many changes wait for the commit that is under way. They will be made in the next, up to 256 of them.
    pub fn waiting(&self) -> usize {
        self.writer.waiting()
    }
}

/// Opens the connection that writes, and brings the schema up to date.
fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|error| file::refused(path, error))?;
    configure(&connection).map_err(|error| file::refused(path, error))?;
    migrate::migrate(&mut connection, path)?;
    Ok(connection)
}

/// What every connection is set to. Nothing of it touches the file.
fn configure(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // A plan never depends on what is bound. Without this, each statement that a partial index may serve is parsed again with each value.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(())
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Arc::new(error))
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
        let tenant = tenant.clone();
        self.readers.read(move |connection| tasks::get(connection, &tenant, id)).await
    }

    async fn task_by_request(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        request_id: &str,
    ) -> Result<Option<Task>, StoreError> {
        let (tenant, bot, request_id) = (tenant.clone(), bot.clone(), request_id.to_owned());
        self.readers.read(move |connection| tasks::get_by_request(connection, &tenant, &bot, &request_id)).await
    }

    async fn tasks(&self, query: TaskQuery) -> Result<Vec<Task>, StoreError> {
        self.readers.read(move |connection| tasks::list(connection, &query)).await
    }

    async fn unfinished_tasks(&self) -> Result<Vec<Task>, StoreError> {
        self.readers.read(tasks::unfinished).await
    }

    async fn remove_finished_tasks(&self, before: SystemTime, limit: u32) -> Result<Vec<Task>, StoreError> {
        self.writer.submit(tasks::RemoveFinished { before, limit }).await
    }

    async fn put_sandbox(&self, sandbox: SandboxRecord) -> Result<(), StoreError> {
        self.writer.submit(sandboxes::Put(sandbox)).await
    }

    async fn sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<Option<SandboxRecord>, StoreError> {
        let (tenant, bot) = (tenant.clone(), bot.clone());
        self.readers.read(move |connection| sandboxes::get(connection, &tenant, &bot)).await
    }

    async fn sandboxes(
        &self,
        tenant: Option<&TenantId>,
        after: Option<SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxRecord>, StoreError> {
        let tenant = tenant.cloned();
        self.readers.read(move |connection| sandboxes::list(connection, tenant.as_ref(), after, limit)).await
    }

    async fn remove_sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<(), StoreError> {
        self.writer.submit(sandboxes::Remove { tenant: tenant.clone(), bot: bot.clone() }).await
    }

    async fn notifications(&self, query: NotificationQuery) -> Result<Vec<Notification>, StoreError> {
        self.readers.read(move |connection| notifications::list(connection, &query)).await
    }

    async fn lease(&self, scope: &Scope, request: LeaseRequest) -> Result<Vec<Notification>, StoreError> {
        self.writer.submit(notifications::Lease { scope: scope.clone(), request }).await
    }

    async fn next_lease_end(&self, scope: &Scope, after: i64) -> Result<Option<SystemTime>, StoreError> {
        let scope = scope.clone();
        self.readers.read(move |connection| notifications::next_lease_end(connection, &scope, after)).await
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
