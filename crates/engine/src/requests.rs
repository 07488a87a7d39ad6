//! The engine's public requests and their results: everything except the supervision itself.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Engine, EngineError, Inner, OutputStream,
    supervisor::{Step, Supervisor},
};
use errand_bridge::{OutputPiece, Piece};
use errand_runtime::Found;
use errand_store::{BotFilter, Created, Scope, TaskPage, TaskQuery};
use errand_task::{
    BotId, Nonce, Owner, SandboxRecord, SandboxSpec, SessionId, Status, StopCause, Task, TaskId, TaskSpec, TaskState,
    TenantId,
};

/// How long beyond the grace a sandbox's tasks may take to end. After that, the sandbox is stopped with its tasks still running.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What to start.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// The owner of the new task.
    pub owner: Owner,
    /// What to run. The caller has validated it.
    pub spec: TaskSpec,
    /// How to make the bot's sandbox if the bot has none.
    pub sandbox: Option<SandboxSpec>,
}

/// An accepted task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The task.
    pub task: Task,
    /// True when the request id named an earlier task; `task` is that task.
    pub existed: bool,
}

/// Names a task, within what the caller may access.
#[derive(Debug, Clone)]
pub struct TaskRef {
    /// The caller's tenant.
    pub tenant: TenantId,
    /// The bots that the caller asks about and may use.
    pub bots: BotFilter,
    /// The session that the task must belong to.
    pub session: Option<SessionId>,
    /// The task.
    pub id: TaskId,
}

/// How long to wait for a task, and for what.
#[derive(Debug, Clone, Copy)]
pub struct WaitRequest {
    /// The longest wait.
    pub timeout: Duration,
    /// Also return when the task stalls.
    pub until_stalled: bool,
    /// Also return when the task has printed nothing for this long after its last output.
    pub until_idle: Option<Duration>,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitResult {
    /// The task is finished.
    Finished,
    /// The task is stalled.
    Stalled,
    /// The task printed something, and then nothing for the requested time.
    Idle,
    /// The timeout passed.
    Timeout,
}

/// Which parts of a log to read. Limits are in bytes; the caller has validated them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadSelection {
    /// From an offset on.
    Range {
        /// First byte.
        offset: u64,
        /// The most bytes.
        limit: u64,
    },
    /// The end of the log.
    Tail {
        /// The most bytes.
        limit: u64,
    },
    /// The beginning and the end of the log.
    HeadTail {
        /// The most bytes of the beginning.
        head: u64,
        /// The most bytes of the end.
        tail: u64,
    },
}

/// Parts of a log, in order and without overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputSlice {
    /// The parts. Each comes from one stream.
    pub parts: Vec<OutputPiece>,
    /// Bytes of all output at the time of reading.
    pub total: u64,
    /// True when the log will not grow any more.
    pub finished: bool,
}

/// A sandbox and its current state in the runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxView {
    /// The stored record.
    pub record: SandboxRecord,
    /// The state that the runtime reports.
    pub state: SandboxState,
}

/// The state of a sandbox that the runtime reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxState {
    /// The sandbox runs.
    Running,
    /// The sandbox exists and does not run.
    Stopped,
    /// The sandbox does not exist.
    Gone,
    /// The runtime does not answer.
    Unknown,
}

impl SandboxState {
    pub(super) fn of(found: &Found) -> Self {
        if found.running { Self::Running } else { Self::Stopped }
    }
}

impl Engine {
    /// Accepts a command. When this returns, the task is durable: its command will run once, or the task will end with a reported reason.
    ///
    /// # Errors
    /// When the sandbox is not available, a cap would be exceeded, or the request id was used for another command. Nothing was accepted
    /// then.
    pub async fn start(&self, request: StartRequest) -> Result<Started, EngineError> {
        let engine = self.clone();
        self.uncut(async move { engine.accept(request).await }).await
    }

    async fn accept(&self, request: StartRequest) -> Result<Started, EngineError> {
        let StartRequest { owner, spec, sandbox } = request;
        let inner = &self.inner;
        if inner.leave.is_cancelled() {
            return Err(EngineError::ShuttingDown);
        }
        inner.reconciling.wait_for(&owner.tenant, &owner.bot).await?;
        if let Some(request_id) = &spec.request_id
            && let Some(task) = inner.store.task_by_request(&owner.tenant, &owner.bot, request_id).await?
        {
            return self.existing(task, &spec);
        }
        let sandbox = inner.sandboxes.for_task(&owner.tenant, &owner.bot, sandbox).await?;
        let bridge = inner.bridge.prepare(&sandbox.runtime_id).await?;
        super::late::look_once(inner, &owner.tenant, &owner.bot, &sandbox);
        let fields = spec.resident_only();
        if !bridge.is_resident() && !fields.is_empty() {
            return Err(EngineError::BridgeCannot { fields, bridge: bridge.name, why: bridge.detail });
        }
        let id = TaskId::new();
        // If a permit is free, the task is accepted as already starting: one commit covers both changes.
        let permit = inner.launches.try_acquire(&owner.tenant, sandbox.id);
        let state = match permit {
            Some(_) => TaskState::Starting { incarnation: sandbox.incarnation.clone() },
            None => TaskState::Queued,
        };
        let task = Task {
            id,
            owner,
            sandbox: sandbox.id,
            nonce: Nonce::new(),
            state,
            late_outcome: None,
            output_file: inner.bridge.output_file(id),
            output: Default::default(),
            stall: None,
            usage: None,
            stop_requested: None,
            memory_kills: Default::default(),
            created_at: SystemTime::now(),
            revision: 0,
            spec: Arc::new(spec),
        };
        let wanted = Arc::clone(&task.spec);
        let supervisor = Supervisor::of_new(inner, task.clone(), sandbox, permit);
        match inner.store.create_task(task, inner.settings.caps).await {
            Ok(Created::Existing(task)) => {
                supervisor.withdraw();
                self.existing(task, &wanted)
            }
            Ok(Created::New(task)) => {
                supervisor.spawn(Step::Launch);
                // Lets the supervisor launch the command before the caller is answered.
                tokio::task::yield_now().await;
                Ok(Started { task, existed: false })
            }
            Err(error) => {
                supervisor.withdraw();
                Err(error.into())
            }
        }
    }

    fn existing(&self, task: Task, wanted: &TaskSpec) -> Result<Started, EngineError> {
        if task.spec.program == wanted.program {
            Ok(Started { task: self.now(task), existed: true })
        } else {
            Err(EngineError::RequestIdReused)
        }
    }

    /// Replaces a stored record by the supervisor's snapshot, which can be newer than the store.
    fn now(&self, stored: Task) -> Task {
        match self.inner.live(stored.id) {
            Some(live) => live.snapshot(),
            None => stored,
        }
    }

    /// The current state of one task.
    ///
    /// # Errors
    /// [`EngineError::NoSuchTask`], also for a task that the caller may not know of.
    pub async fn task(&self, reference: &TaskRef) -> Result<Task, EngineError> {
        let task = self.visible(reference).await?;
        if self.inner.reconciling.is_over() {
            return Ok(task);
        }
        self.inner.reconciling.wait_for(&task.owner.tenant, &task.owner.bot).await?;
        self.visible(reference).await
    }

    /// The current state of one task, if the caller may see it.
    async fn visible(&self, reference: &TaskRef) -> Result<Task, EngineError> {
        // An unfinished task is read from its supervisor: this needs no query and is more up to date.
        let task = match self.inner.live(reference.id) {
            Some(live) => live.snapshot(),
            None => self.inner.store.task(&reference.tenant, reference.id).await?.ok_or(EngineError::NoSuchTask)?,
        };
        let owner = &task.owner;
        let session_fits = reference.session.as_ref().is_none_or(|session| *session == owner.session);
        if owner.tenant == reference.tenant && session_fits && reference.bots.admits(&owner.bot) {
            Ok(task)
        } else {
            Err(EngineError::NoSuchTask)
        }
    }

    /// A page of tasks in their current state, newest first.
    ///
    /// # Errors
    /// When the store fails, or when answering would read too much for this tenant.
    pub async fn task_page(&self, query: TaskQuery) -> Result<TaskPage, EngineError> {
        let page = self.inner.store.task_page(query).await?;
        Ok(TaskPage { tasks: page.tasks.into_iter().map(|task| self.now(task)).collect(), next: page.next })
    }

    /// Tasks in their current state, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tasks(&self, query: TaskQuery) -> Result<Vec<Task>, EngineError> {
        self.inner.reconciling.wait(&query.tenant, &query.bots).await?;
        let tasks = self.inner.store.tasks(query).await?;
        Ok(tasks.into_iter().map(|task| self.now(task)).collect())
    }

    /// The unfinished tasks in a scope, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn unfinished(&self, scope: &Scope) -> Result<Vec<Task>, EngineError> {
        let statuses = Status::ALL.into_iter().filter(|status| !status.is_terminal()).collect();
        let mut query = TaskQuery {
            tenant: scope.tenant.clone(),
            bots: BotFilter::One(scope.bot.clone()),
            session: scope.session.clone(),
            statuses,
            labels: Default::default(),
            before: None,
            limit: self.inner.settings.caps.per_bot,
        };
        self.inner.reconciling.wait(&query.tenant, &query.bots).await?;
        let mut tasks = Vec::new();
        loop {
            // Reads large records page by page, so that memory holds at most one page beyond what the supervisors already hold.
            let page = self.inner.store.task_page(query.clone()).await?;
            query.limit = query.limit.saturating_sub(u32::try_from(page.tasks.len()).unwrap_or(u32::MAX));
            tasks.extend(page.tasks.into_iter().map(|task| self.now(task)));
            if page.next.is_none() || query.limit == 0 {
                break;
            }
            query.before = page.next;
        }
        tasks.retain(|task| !task.status().is_terminal());
        tasks.reverse();
        Ok(tasks)
    }

    /// Waits for a task to finish, or for another event that `request` names.
    ///
    /// # Errors
    /// As for [`Engine::task`].
    pub async fn wait(&self, reference: &TaskRef, request: WaitRequest) -> Result<(Task, WaitResult), EngineError> {
        let task = self.task(reference).await?;
        match self.inner.live(task.id) {
            Some(live) => {
                let result = live.wait(request).await;
                Ok((live.snapshot(), result))
            }
            None => Ok((self.task(reference).await?, WaitResult::Finished)),
        }
    }

    /// Stops a task and returns it once it has finished. Returns a finished task unchanged.
    ///
    /// # Errors
    /// As for [`Engine::task`]; [`EngineError::ShuttingDown`] when the server shuts down before the task ends.
    pub async fn stop(&self, reference: &TaskRef, cause: StopCause, grace: Duration) -> Result<Task, EngineError> {
        let task = self.task(reference).await?;
        self.stop_known(task, cause, grace).await
    }

    /// Stops every unfinished task in a scope and returns the tasks once they have finished.
    ///
    /// # Errors
    /// As for [`Engine::stop`].
    pub async fn stop_all(&self, scope: &Scope, cause: StopCause, grace: Duration) -> Result<Vec<Task>, EngineError> {
        let tasks = self.unfinished(scope).await?;
        let stops = tasks.into_iter().map(|task| self.stop_known(task, cause.clone(), grace));
        futures_util::future::try_join_all(stops).await
    }

    async fn stop_known(&self, task: Task, cause: StopCause, grace: Duration) -> Result<Task, EngineError> {
        let Some(live) = self.inner.live(task.id) else {
            let stored = self.inner.store.task(&task.owner.tenant, task.id).await?;
            return stored.ok_or(EngineError::NoSuchTask);
        };
        live.stop(cause, grace);
        tokio::select! {
            task = live.finished() => Ok(task),
            () = self.inner.leave.cancelled() => Err(EngineError::ShuttingDown),
        }
    }

    /// Reads parts of a log.
    ///
    /// # Errors
    /// As for [`Engine::task`]; [`EngineError::PastTheEnd`], [`EngineError::LogGone`], [`EngineError::SandboxNotRunning`].
    pub async fn read_output(&self, reference: &TaskRef, selection: ReadSelection) -> Result<OutputSlice, EngineError> {
        let task = self.task(reference).await?;
        if task.state.started_at().is_none() {
            // The command never started: it printed nothing, and there may be no log.
            return match selection {
                ReadSelection::Range { offset, .. } if offset > 0 => Err(EngineError::PastTheEnd { offset, size: 0 }),
                _ => Ok(OutputSlice { finished: task.status().is_terminal(), ..OutputSlice::default() }),
            };
        }
        let live = self.inner.live(task.id);
        let finished = live.is_none();
        let piece = match selection {
            ReadSelection::Range { offset, limit } => Piece::From { offset, limit },
            ReadSelection::Tail { limit } => Piece::Tail { limit },
            ReadSelection::HeadTail { tail, .. } => Piece::Tail { limit: tail },
        };
        let (total, start, pieces) = match live.as_ref().and_then(|live| live.output.piece(piece)) {
            Some(found) => found,
            None => self.read_log(&task, piece).await?,
        };
        if let ReadSelection::Range { offset, .. } = selection
            && offset > total
        {
            return Err(EngineError::PastTheEnd { offset, size: total });
        }
        let mut parts = Vec::new();
        if let ReadSelection::HeadTail { head, .. } = selection
            && start > 0
        {
            let limit = head.min(start);
            let head = self.read_log(&task, Piece::From { offset: 0, limit }).await?.2;
            // Where the head has a gap, the read returns later bytes instead; cut those that the tail already contains.
            parts.extend(head.into_iter().filter_map(|piece| piece.up_to(start)));
        }
        parts.extend(pieces);
        Ok(OutputSlice { parts, total, finished })
    }

    async fn read_log(&self, task: &Task, piece: Piece) -> Result<(u64, u64, Vec<OutputPiece>), EngineError> {
        let sandbox = self.inner.sandboxes.runtime_id(task).await?;
        let reader = self.inner.bridge.read(&sandbox, task.id, piece).await?;
        let (size, start) = (reader.size, reader.start);
        Ok((size, start, reader.collect().await?))
    }

    /// Opens a log at an offset.
    ///
    /// # Errors
    /// As for [`Engine::read_output`].
    pub async fn stream_output(
        &self,
        reference: &TaskRef,
        offset: u64,
        follow: bool,
    ) -> Result<OutputStream, EngineError> {
        let task = self.task(reference).await?;
        OutputStream::open(Arc::clone(&self.inner), task, offset, follow).await
    }

    /// Makes the bot's sandbox, starts it, or finds it running.
    ///
    /// # Errors
    /// When the sandbox exists with another specification, or the runtime refuses.
    pub async fn ensure_sandbox(
        &self,
        tenant: TenantId,
        bot: BotId,
        spec: Option<SandboxSpec>,
    ) -> Result<SandboxView, EngineError> {
        let inner = Arc::clone(&self.inner);
        self.uncut(async move {
            inner.reconciling.wait_for(&tenant, &bot).await?;
            let (view, place) = inner.sandboxes.ensure(&tenant, &bot, spec).await?;
            let view = with_bridge(&inner, view).await;
            super::late::look_once(&inner, &tenant, &bot, &place);
            Ok(view)
        })
        .await
    }

    /// Takes a running container as the bot's sandbox. The container's labels must name the tenant; with `any`, a container without such
    /// labels is accepted too.
    ///
    /// # Errors
    /// When the container does not exist, is not the tenant's, does not run or is another bot's sandbox, or the bot has another sandbox.
    pub async fn adopt_sandbox(
        &self,
        tenant: TenantId,
        bot: BotId,
        container: String,
        any: bool,
    ) -> Result<SandboxView, EngineError> {
        let inner = Arc::clone(&self.inner);
        self.uncut(async move {
            inner.reconciling.wait_for(&tenant, &bot).await?;
            let view = inner.sandboxes.adopt(&tenant, &bot, &container, any).await?;
            Ok(with_bridge(&inner, view).await)
        })
        .await
    }

    /// The bot's sandbox and its current state in the runtime.
    ///
    /// # Errors
    /// [`EngineError::NoSandbox`].
    pub async fn sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<SandboxView, EngineError> {
        self.inner.sandboxes.view(tenant, bot).await
    }

    /// A tenant's sandboxes, oldest first, starting after the id `after`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sandboxes(
        &self,
        tenant: &TenantId,
        after: Option<errand_task::SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxView>, EngineError> {
        self.inner.sandboxes.list(tenant, after, limit).await
    }

    /// Stops the bot's tasks, then its sandbox. An adopted container is left running.
    ///
    /// # Errors
    /// [`EngineError::NoSandbox`], or when the runtime fails.
    pub async fn stop_sandbox(&self, tenant: TenantId, bot: BotId) -> Result<SandboxView, EngineError> {
        let engine = self.clone();
        self.uncut(async move {
            engine.inner.reconciling.wait_for(&tenant, &bot).await?;
            engine.end_tasks(&tenant, &bot, StopCause::SandboxStopped).await?;
            engine.inner.sandboxes.stop(&tenant, &bot).await
        })
        .await
    }

    /// Stops the bot's tasks, then removes its sandbox. An adopted container is not removed, only forgotten.
    ///
    /// # Errors
    /// [`EngineError::NoSandbox`], or when the runtime fails.
    pub async fn delete_sandbox(&self, tenant: TenantId, bot: BotId) -> Result<(), EngineError> {
        let engine = self.clone();
        self.uncut(async move {
            engine.inner.reconciling.wait_for(&tenant, &bot).await?;
            engine.end_tasks(&tenant, &bot, StopCause::SandboxDeleted).await?;
            let id = engine.inner.sandboxes.delete(&tenant, &bot).await?;
            engine.inner.lives.forget(id);
            Ok(())
        })
        .await
    }

    async fn end_tasks(&self, tenant: &TenantId, bot: &BotId, cause: StopCause) -> Result<(), EngineError> {
        // Fails first if there is no sandbox, before anything is stopped.
        self.sandbox(tenant, bot).await?;
        let started = Instant::now();
        let scope = Scope { tenant: tenant.clone(), bot: bot.clone(), session: None };
        let grace = self.inner.settings.stop_grace;
        match tokio::time::timeout(grace + STOP_LIMIT, self.stop_all(&scope, cause, grace)).await {
            Ok(stopped) => {
                tracing::info!(%bot, tasks = stopped?.len(), took = ?started.elapsed(), "a sandbox's tasks were stopped");
            }
            // Stopping the sandbox ends the remaining tasks.
            Err(_) => tracing::warn!(%bot, "a sandbox's tasks could not be stopped in time"),
        }
        Ok(())
    }
}

/// Prepares the bridge of a running sandbox, so that the first command does not wait for it. If that fails, the first command tries again
/// and reports the error.
async fn with_bridge(inner: &Inner, view: SandboxView) -> SandboxView {
    if view.state == SandboxState::Running
        && let Err(error) = inner.bridge.prepare(&view.record.runtime_id).await
    {
        tracing::warn!(sandbox = %view.record.id, %error, "the bridge is not ready yet");
    }
    view
}
