//! A store in one SQLite file: nothing to install, nothing to run beside the server.
//!
//! Owns the file, one connection that writes ([`writer`]) and a few that read. WAL lets them read while the writer commits; every commit
//! is flushed to disk before its callers are answered. One process at a time: a second one is refused.

mod file;
mod migrate;
mod notifications;
mod queue;
mod readers;
mod retention;
mod sandboxes;
mod shares;
mod spoiled;
mod statement;
mod tasks;
mod usage;
mod values;
mod writer;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};
use tokio::sync::watch;

use super::{
    BotFilter, Caps, Created, LeaseRequest, NotificationPage, NotificationQuery, Scope, Selection, StoreError,
    TaskPage, TaskQuery, TaskStore,
};
use errand_task::{BotId, NewNotification, Notification, SandboxId, SandboxRecord, Task, TaskId, TenantId};
use readers::{Access, Readers};
use spoiled::Spoiled;
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
    spoiled: Arc<Spoiled>,
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
        Ok(Self { readers: Readers::new(path), writer, spoiled: Arc::default() })
    }

    /// How many commits there were since the store was opened: fewer than changes, where changes shared one.
    pub fn commits(&self) -> u64 {
        self.writer.commits()
    }

    /// How many different records were met that cannot be understood. Each is logged.
    pub fn spoiled(&self) -> usize {
        self.spoiled.count()
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
        failed(Arc::new(error))
    }
}

/// What it means for a caller that the database failed.
fn failed(error: Arc<rusqlite::Error>) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::DiskFull,
        // Only reads are ever interrupted.
        Some(ErrorCode::OperationInterrupted) => StoreError::Busy,
        _ => StoreError::Database(error),
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
        let whose = tenant.clone();
        self.readers.read(Access::Lookup, Some(tenant), move |connection| tasks::get(connection, &whose, id)).await
    }

    async fn task_by_request(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        request_id: &str,
    ) -> Result<Option<Task>, StoreError> {
        let (whose, bot, request_id) = (tenant.clone(), bot.clone(), request_id.to_owned());
        let question = move |connection: &Connection| tasks::get_by_request(connection, &whose, &bot, &request_id);
        self.readers.read(Access::Lookup, Some(tenant), question).await
    }

    async fn task_page(&self, query: TaskQuery) -> Result<TaskPage, StoreError> {
        let (tenant, spoiled) = (query.tenant.clone(), Arc::clone(&self.spoiled));
        let of_one_bot = matches!(query.bots, BotFilter::One(_));
        let access = if query.is_unfinished() && of_one_bot { Access::Lookup } else { Access::Scan };
        self.readers.read(access, Some(&tenant), move |connection| tasks::page(connection, &query, &spoiled)).await
    }

    async fn unfinished_tasks(&self) -> Result<Vec<Task>, StoreError> {
        let spoiled = Arc::clone(&self.spoiled);
        self.readers.read(Access::Scan, None, move |connection| tasks::unfinished(connection, &spoiled)).await
    }

    async fn unknown_tasks(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, StoreError> {
        let ids = ids.to_vec();
        self.readers.read(Access::Lookup, None, move |connection| tasks::unknown(connection, &ids)).await
    }

    async fn remove_finished_tasks(&self, before: SystemTime, limit: u32) -> Result<u64, StoreError> {
        self.writer.submit(retention::RemoveFinished { before, limit }).await
    }

    async fn pending_removals(&self, sandbox: SandboxId, limit: u32) -> Result<Vec<TaskId>, StoreError> {
        self.readers.read(Access::Lookup, None, move |connection| retention::pending(connection, sandbox, limit)).await
    }

    async fn removed(&self, sandbox: SandboxId, tasks: &[TaskId]) -> Result<(), StoreError> {
        self.writer.submit(retention::Removed { sandbox, tasks: tasks.to_vec() }).await
    }

    async fn put_sandbox(&self, sandbox: SandboxRecord) -> Result<(), StoreError> {
        self.writer.submit(sandboxes::Put(sandbox)).await
    }

    async fn sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<Option<SandboxRecord>, StoreError> {
        let (whose, bot) = (tenant.clone(), bot.clone());
        self.readers
            .read(Access::Lookup, Some(tenant), move |connection| sandboxes::get(connection, &whose, &bot))
            .await
    }

    async fn sandboxes(
        &self,
        tenant: Option<&TenantId>,
        after: Option<SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxRecord>, StoreError> {
        let (whose, spoiled) = (tenant.cloned(), Arc::clone(&self.spoiled));
        let question =
            move |connection: &Connection| sandboxes::list(connection, whose.as_ref(), after, limit, &spoiled);
        self.readers.read(Access::Scan, tenant, question).await
    }

    async fn remove_sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<(), StoreError> {
        self.writer.submit(sandboxes::Remove { tenant: tenant.clone(), bot: bot.clone() }).await
    }

    async fn notification_page(&self, query: NotificationQuery) -> Result<NotificationPage, StoreError> {
        let (tenant, spoiled) = (query.scope.tenant.clone(), Arc::clone(&self.spoiled));
        let access = if query.acknowledged || query.task.is_some() { Access::Scan } else { Access::Lookup };
        let question = move |connection: &Connection| notifications::page(connection, &query, &spoiled);
        self.readers.read(access, Some(&tenant), question).await
    }

    async fn lease(&self, scope: &Scope, mut request: LeaseRequest) -> Result<Vec<Notification>, StoreError> {
        loop {
            let spoiled = Arc::clone(&self.spoiled);
            let leased = self.writer.submit(notifications::Lease { scope: scope.clone(), request, spoiled }).await?;
            match leased.next {
                // So far all is leased: further on, after others had their turn to write.
                Some(next) if leased.notifications.is_empty() => request.after = next,
                Some(_) | None => return Ok(leased.notifications),
            }
        }
    }

    async fn next_lease_end(&self, scope: &Scope, after: i64) -> Result<Option<SystemTime>, StoreError> {
        let whose = scope.clone();
        let question = move |connection: &Connection| notifications::next_lease_end(connection, &whose, after);
        self.readers.read(Access::Lookup, Some(&scope.tenant), question).await
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
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.writer.submit(retention::RemoveNotifications { acknowledged_before, made_before, limit }).await
    }

    async fn newest_time(&self, before: SystemTime) -> Result<Option<SystemTime>, StoreError> {
        self.readers.read(Access::Lookup, None, move |connection| retention::newest_time(connection, before)).await
    }

    async fn meta(&self, key: &'static str) -> Result<Option<String>, StoreError> {
        self.readers.read(Access::Lookup, None, move |connection| retention::meta(connection, key)).await
    }

    async fn put_meta(&self, key: &'static str, value: String) -> Result<(), StoreError> {
        self.writer.submit(retention::PutMeta { key, value }).await
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
