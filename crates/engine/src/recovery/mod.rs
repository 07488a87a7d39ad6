//! Recovery at start-up: finds out what became of every task that was unfinished when the last server ended.
//!
//! The server accepts calls as soon as its store is read. Each bot is reconciled separately, and calls about a bot wait until it is; see
//! [`super::reconciling`]. What to do with each task is decided in [`plan`].

pub(super) mod plan;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    Engine, EngineError, Inner, output::WINDOW, permits::Pool, reconciling::Hold, sandbox::Sandbox,
    supervisor::Supervisor,
};
use errand_runtime::{Found, RuntimeError};
use errand_store::StoreError;
use errand_task::{SandboxId, SandboxRecord, Task, TenantId};
use plan::{Entries, Plan, Sorted};

/// How long to wait before asking a container engine again that did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a sandbox may take to answer about all of its tasks at once. After that, each task's supervisor keeps asking on its own.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How many sandboxes are queried at the same time.
const CONCURRENCY: usize = 64;
/// How many of these may belong to one tenant.
const CONCURRENCY_OF_TENANT: usize = 16;
/// How many sandbox records are read from the store at once.
const PAGE: u32 = 1000;

impl Engine {
    /// Takes over every unfinished task: reconciles each one with what its sandbox reports, then supervises it. Returns once the store is
    /// read; calls about a bot wait until the bot's tasks are reconciled.
    ///
    /// # Errors
    /// When the store cannot be read. [`EngineError::OtherRuntime`] when a task's sandbox belongs to another runtime, which this server
    /// cannot query; the state of no task was changed then.
    pub async fn recover(&self) -> Result<(), EngineError> {
        let inner = &self.inner;
        let tasks = inner.store.unfinished_tasks().await?;
        let unfinished = tasks.len();
        let mut by_sandbox: HashMap<SandboxId, Vec<Task>> = HashMap::new();
        for task in tasks {
            inner.feed.found(&task);
            by_sandbox.entry(task.sandbox).or_default().push(task);
        }
        let mut records = if by_sandbox.is_empty() { HashMap::new() } else { sandboxes(inner).await? };
        for record in by_sandbox.keys().filter_map(|id| records.get(id)) {
            inner.sandboxes.runtime_of(record)?;
        }
        let slots =
            Arc::new(Slots { all: Arc::new(Semaphore::new(CONCURRENCY)), tenants: Pool::new(CONCURRENCY_OF_TENANT) });
        let mut holds: HashMap<_, Arc<Hold>> = HashMap::new();
        for (id, tasks) in by_sandbox {
            let Some(first) = tasks.first() else { continue };
            let (tenant, bot) = (first.owner.tenant.clone(), first.owner.bot.clone());
            let record = records.remove(&id);
            if record.is_none()
                && let Err(error @ StoreError::Record { .. }) = inner.store.sandbox(&tenant, &bot).await
            {
                // The sandbox may well exist: its tasks cannot be judged.
                tracing::error!(%error, tasks = tasks.len(), "the tasks of a sandbox are left as they are");
                continue;
            }
            let key = (tenant.clone(), bot.clone());
            let hold = holds.entry(key).or_insert_with(|| inner.reconciling.hold(&tenant, &bot));
            let sandbox = match &record {
                Some(record) => inner.sandboxes.handle(record)?,
                None => inner.sandboxes.without_record(id)?,
            };
            let exists = record.is_some();
            let bot_tasks = BotTasks { tasks, exists, sandbox, hold: Arc::clone(hold) };
            let (inner, slots) = (Arc::clone(inner), Arc::clone(&slots));
            let name = format!("recovery of {bot}");
            self.inner.tracker.spawn(async move {
                inner.keep_running(&name, || reconcile(&inner, &slots, &bot_tasks)).await;
            });
        }
        if unfinished > 0 {
            tracing::info!(unfinished, bots = holds.len(), "unfinished tasks are being reconciled");
        }
        let inner = Arc::clone(&self.inner);
        self.inner.tracker.spawn(async move {
            inner.keep_running("retention", || super::retention::run(Arc::clone(&inner))).await;
        });
        let engine = self.clone();
        self.inner.tracker.spawn(async move {
            engine.inner.keep_running("idle sandboxes", || super::idle::run(engine.clone())).await;
        });
        Ok(())
    }
}

/// Every sandbox in the store.
async fn sandboxes(inner: &Inner) -> Result<HashMap<SandboxId, SandboxRecord>, EngineError> {
    let mut records = HashMap::new();
    let mut after = None;
    loop {
        let page = inner.store.sandboxes(None, after, PAGE).await?;
        after = page.last().map(|record| record.id);
        if page.is_empty() {
            return Ok(records);
        }
        records.extend(page.into_iter().map(|record| (record.id, record)));
    }
}

/// Limits how many sandboxes are queried at the same time.
struct Slots {
    all: Arc<Semaphore>,
    tenants: Pool<TenantId>,
}

impl Slots {
    /// The tenant's own limit comes first: sandboxes that wait for it take no slot from other tenants.
    async fn take(&self, tenant: &TenantId) -> (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>) {
        let of_tenant = self.tenants.acquire(tenant).await;
        (of_tenant, Arc::clone(&self.all).acquire_owned().await.ok())
    }
}

/// The unfinished tasks of one sandbox.
struct BotTasks {
    tasks: Vec<Task>,
    /// False if the sandbox was deleted.
    exists: bool,
    sandbox: Sandbox,
    hold: Arc<Hold>,
}

/// Finds out how to continue the tasks of one sandbox, and hands each task to its supervisor.
async fn reconcile(inner: &Arc<Inner>, slots: &Slots, bot: &BotTasks) {
    let sandbox = &bot.sandbox;
    let tasks = bot.tasks.iter().filter(|task| inner.live(task.id).is_none()).cloned().collect();
    let Sorted { clear, unclear } = plan::sort(tasks, bot.exists);
    hand_over(inner, bot, clear).await;
    let Some(tenant) = unclear.first().map(|task| task.owner.tenant.clone()) else { return };
    loop {
        let asked = tokio::select! {
            () = inner.leave.cancelled() => return,
            asked = async {
                let _slot = slots.take(&tenant).await;
                ask(sandbox, unclear.clone()).await
            } => asked,
        };
        match asked {
            Ok(entries) => return hand_over(inner, bot, entries).await,
            Err(error) => {
                tracing::warn!(%error, sandbox = %sandbox.name, tasks = unclear.len(), "tasks wait to be reconciled");
                bot.hold.because(&error.to_string());
                tokio::select! {
                    () = inner.leave.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
}

/// Starts a supervisor for each task.
async fn hand_over(inner: &Arc<Inner>, bot: &BotTasks, entries: Entries) {
    for (task, entry) in entries {
        let start = plan::output_start(&entry, WINDOW as u64);
        let (waited, masks) = (inner.waited(&task).await, inner.masks_of_known(&task).await);
        let supervisor = Supervisor::new(inner, task, bot.sandbox.clone(), start, masks).holding(&bot.hold);
        supervisor.in_the_queue(waited).spawn(entry);
    }
}

/// Asks one sandbox about all of its launched tasks at once. An error: the runtime does not answer.
async fn ask(sandbox: &Sandbox, tasks: Vec<Task>) -> Result<Entries, RuntimeError> {
    let inspected = timeout(ANSWER_LIMIT, sandbox.inspect()).await.unwrap_or_else(|_| {
        Err(RuntimeError::Unavailable { detail: format!("it did not answer within {ANSWER_LIMIT:?}") })
    });
    match plan::inspected(inspected, tasks) {
        Plan::AskAgain(error) => Err(error),
        Plan::Supervise(entries) => Ok(entries),
        Plan::Probe { found, fenced, unfenced } => {
            let mut entries = probe(sandbox, &found, fenced, true).await;
            entries.extend(probe(sandbox, &found, unfenced, false).await);
            Ok(entries)
        }
    }
}

/// Asks a running sandbox about several tasks in one call.
async fn probe(sandbox: &Sandbox, found: &Found, tasks: Vec<Task>, fence: bool) -> Entries {
    if tasks.is_empty() {
        return Vec::new();
    }
    let asked: Vec<_> = tasks.iter().map(|task| (task.id, task.nonce)).collect();
    let answer = timeout(ANSWER_LIMIT, sandbox.bridge.probe(&asked, fence)).await;
    let findings = match answer {
        Ok(Ok(findings)) if findings.len() == tasks.len() => Some(findings),
        refused => {
            let error = refused.map(|result| result.err().map(|error| error.to_string()));
            tracing::warn!(?error, sandbox = %sandbox.name, tasks = tasks.len(), "a sandbox does not answer yet about its tasks");
            None
        }
    };
    plan::probed(found, tasks, findings)
}
