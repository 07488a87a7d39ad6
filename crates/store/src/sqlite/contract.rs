//! The contract, as SQLite keeps it: each method is a change for the writer or a question for a reader.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use errand_task::{BotId, LeaseId, NewNotification, RetainedOutput, SandboxId, SandboxRecord, Task, TaskId, TenantId};
use rusqlite::Connection;
use tokio::sync::watch;

use super::{SqliteStore, notifications, outputs, readers::Access, removals, retention, sandboxes, secrets, tasks};
use crate::{
    BotFilter, Caps, Created, End, LeaseRequest, Leased, NotificationPage, NotificationQuery, RemovedTasks, Retention,
    Scope, SealedSecrets, Selection, StoreError, TaskPage, TaskQuery, TaskStore, stored::PackedOutput,
};

/// An output of more bytes is packed on a thread that may block.
const PACKED_AT_ONCE: usize = 256 * 1024;

async fn pack(output: Option<RetainedOutput>) -> Result<Option<PackedOutput>, StoreError> {
    match output {
        None => Ok(None),
        Some(output) if output.bytes.len() <= PACKED_AT_ONCE => PackedOutput::pack(&output).map(Some),
        Some(output) => tokio::task::spawn_blocking(move || PackedOutput::pack(&output).map(Some))
            .await
            .map_err(|error| StoreError::Database(Arc::new(error)))?,
    }
}

#[async_trait]
impl TaskStore for SqliteStore {
    async fn create_task_with_secrets(
        &self,
        task: Task,
        secrets: SealedSecrets,
        caps: Caps,
    ) -> Result<Created, StoreError> {
        self.writer.submit(tasks::Create { task, secrets, caps }).await
    }

    async fn secrets(&self, task: TaskId) -> Result<SealedSecrets, StoreError> {
        self.readers.read(Access::Lookup, None, move |connection| secrets::of_task(connection, task)).await
    }

    async fn update_task(&self, task: Task, notification: Option<NewNotification>) -> Result<Task, StoreError> {
        self.writer.submit(tasks::Update { task, notification }).await
    }

    async fn admit_task(&self, task: Task, caps: Caps) -> Result<Task, StoreError> {
        self.writer.submit(tasks::Admit { task, caps }).await
    }

    async fn finish_task(
        &self,
        task: Task,
        notification: Option<NewNotification>,
        end: End,
    ) -> Result<Task, StoreError> {
        let End { output, more, stored_bytes } = end;
        let end = tasks::PackedEnd { output: pack(output).await?, more, stored_bytes };
        self.writer.submit(tasks::Finish { task, notification, end }).await
    }

    async fn retain_output(
        &self,
        tenant: &TenantId,
        task: TaskId,
        output: Option<RetainedOutput>,
        stored_bytes: u64,
    ) -> Result<(), StoreError> {
        let (tenant, output) = (tenant.clone(), pack(output).await?);
        self.writer.submit(outputs::Retain { tenant, task, output, stored_bytes }).await
    }

    async fn retained_output(&self, tenant: &TenantId, task: TaskId) -> Result<Option<RetainedOutput>, StoreError> {
        let whose = tenant.clone();
        self.readers.read(Access::Lookup, Some(tenant), move |connection| outputs::get(connection, &whose, task)).await
    }

    async fn unretained_tasks(&self, sandbox: SandboxId, limit: u32) -> Result<Vec<Task>, StoreError> {
        let undecodable = Arc::clone(&self.undecodable);
        let question = move |connection: &Connection| tasks::unretained(connection, sandbox, limit, &undecodable);
        self.readers.read(Access::Lookup, None, question).await
    }

    async fn age(&self, since: SystemTime) -> Result<Duration, StoreError> {
        let ages = Arc::clone(&self.ages);
        self.readers.read(Access::Lookup, None, move |connection| ages.since(connection, since)).await
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
        let (tenant, undecodable) = (query.tenant.clone(), Arc::clone(&self.undecodable));
        let of_one_bot = matches!(query.bots, BotFilter::One(_));
        let access = if query.is_unfinished() && of_one_bot { Access::Lookup } else { Access::Scan };
        self.readers.read(access, Some(&tenant), move |connection| tasks::page(connection, &query, &undecodable)).await
    }

    async fn unfinished_tasks(&self) -> Result<Vec<Task>, StoreError> {
        let undecodable = Arc::clone(&self.undecodable);
        self.readers.read(Access::Scan, None, move |connection| tasks::unfinished(connection, &undecodable)).await
    }

    async fn unknown_tasks(&self, ids: &[TaskId], older_than: Duration) -> Result<Vec<TaskId>, StoreError> {
        let (ids, ages) = (ids.to_vec(), Arc::clone(&self.ages));
        let question = move |connection: &Connection| {
            let before = ages.before(connection, older_than)?;
            tasks::unknown(connection, &ids, before)
        };
        self.readers.read(Access::Lookup, None, question).await
    }

    async fn remove_finished_tasks(&self, retention: Retention, limit: u32) -> Result<RemovedTasks, StoreError> {
        self.writer.submit(retention::RemoveFinished { retention, limit, ages: Arc::clone(&self.ages) }).await
    }

    async fn pending_removals(&self, sandbox: SandboxId, limit: u32) -> Result<Vec<TaskId>, StoreError> {
        self.readers.read(Access::Lookup, None, move |connection| removals::pending(connection, sandbox, limit)).await
    }

    async fn removed(&self, sandbox: SandboxId, tasks: &[TaskId]) -> Result<(), StoreError> {
        self.writer.submit(removals::Removed { sandbox, tasks: tasks.to_vec() }).await
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
        let (whose, undecodable) = (tenant.cloned(), Arc::clone(&self.undecodable));
        let question =
            move |connection: &Connection| sandboxes::list(connection, whose.as_ref(), after, limit, &undecodable);
        self.readers.read(Access::Scan, tenant, question).await
    }

    async fn remove_sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<(), StoreError> {
        self.writer.submit(sandboxes::Remove { tenant: tenant.clone(), bot: bot.clone() }).await
    }

    async fn notification_page(&self, query: NotificationQuery) -> Result<NotificationPage, StoreError> {
        let (tenant, undecodable) = (query.scope.tenant.clone(), Arc::clone(&self.undecodable));
        let access = if query.acknowledged || query.task.is_some() { Access::Scan } else { Access::Lookup };
        let question = move |connection: &Connection| notifications::page(connection, &query, &undecodable);
        self.readers.read(access, Some(&tenant), question).await
    }

    async fn lease(&self, scope: &Scope, mut request: LeaseRequest) -> Result<Leased, StoreError> {
        loop {
            let undecodable = Arc::clone(&self.undecodable);
            let change = notifications::Lease { scope: scope.clone(), request, undecodable };
            let (leased, next) = self.writer.submit(change).await?;
            match next {
                // Everything so far is leased. Continues behind it, after other changes had their turn.
                Some(next) if leased.notifications.is_empty() => request.after = next,
                Some(_) | None => return Ok(leased),
            }
        }
    }

    async fn next_lease_end(&self, scope: &Scope, after: i64) -> Result<Option<Duration>, StoreError> {
        let (whose, now) = (scope.clone(), self.ages.now());
        let question = move |connection: &Connection| notifications::next_lease_end(connection, &whose, after, now);
        self.readers.read(Access::Lookup, Some(&scope.tenant), question).await
    }

    async fn acknowledge(&self, scope: &Scope, which: Selection) -> Result<u32, StoreError> {
        self.writer.submit(notifications::Acknowledge { scope: scope.clone(), which }).await
    }

    async fn release(&self, scope: &Scope, which: Selection) -> Result<u32, StoreError> {
        self.writer.submit(notifications::Release { scope: scope.clone(), which }).await
    }

    async fn acknowledge_completion(&self, tenant: &TenantId, task: TaskId) -> Result<u32, StoreError> {
        self.writer.submit(notifications::AcknowledgeCompletion { tenant: tenant.clone(), task }).await
    }

    async fn hold_completion(
        &self,
        tenant: &TenantId,
        task: TaskId,
        lease: LeaseId,
        duration: Duration,
    ) -> Result<bool, StoreError> {
        self.writer.submit(notifications::HoldCompletion { tenant: tenant.clone(), task, lease, duration }).await
    }

    async fn acknowledge_held(&self, tenant: &TenantId, bots: &BotFilter, lease: LeaseId) -> Result<u32, StoreError> {
        let (tenant, bots) = (tenant.clone(), bots.clone());
        self.writer.submit(notifications::AcknowledgeHeld { tenant, bots, lease }).await
    }

    fn wake_ups(&self, scope: &Scope) -> watch::Receiver<u64> {
        self.writer.wake_ups(scope)
    }

    async fn close(&self) {
        // Readers first: the last connection to close folds the WAL into the file, and only a writing one can.
        self.readers.close().await;
        self.writer.close().await;
    }
}
