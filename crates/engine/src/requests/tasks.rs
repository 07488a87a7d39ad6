//! Starting, finding, waiting for and stopping tasks.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{StartRequest, Started, TaskRef, watches};
use crate::{
    Engine, EngineError, MaskReads, Settings,
    masking::{TaskMasks, conceal, is_same_program},
    sandboxes::Place,
    supervision::Supervision,
    supervisor::{Entry, Supervisor},
};
use errand_secrets::Hidden;
use errand_store::{BotFilter, Created, Scope, SealedSecrets, StoreError, TaskPage, TaskQuery};
use errand_task::{Nonce, Status, StopCause, Task, TaskId, TaskSpec, TaskState, Watches};

/// A task that is to be accepted.
#[derive(Clone)]
struct New {
    task: Task,
    secrets: SealedSecrets,
    masks: TaskMasks,
}

impl Engine {
    /// Accepts a command. When this returns, the task is durable: its command will run once, or the task will end with a reported reason.
    ///
    /// # Errors
    /// When the sandbox is not available, a cap would be exceeded and the request does not wait for room, or the request id was used for
    /// another command. Nothing was accepted then.
    pub async fn start(&self, request: StartRequest) -> Result<Started, EngineError> {
        let engine = self.clone();
        self.run_to_completion(async move { engine.accept(request).await }).await
    }

    async fn accept(&self, request: StartRequest) -> Result<Started, EngineError> {
        let StartRequest { owner, spec, watches: watched, sandbox, notify, secret_env } = request;
        let inner = &self.inner;
        let task_masks = TaskMasks::of_request(&inner.settings.masks, &owner.tenant, &secret_env);
        watches::refuse_secrets(&watched, &task_masks)?;
        // From here on, no record and no text holds a secret.
        let (spec, hidden) = conceal(spec, secret_env, &task_masks.of_texts());
        if inner.leave.is_cancelled() {
            return Err(EngineError::ShuttingDown);
        }
        let _busy = inner.activity.begin(&owner.tenant, &owner.bot);
        inner.reconciling.wait_for(&owner.tenant, &owner.bot).await?;
        if let Some(request_id) = &spec.request_id
            && let Some(task) = inner.store.task_by_request(&owner.tenant, &owner.bot, request_id).await?
        {
            return self.existing(task, &spec, &task_masks);
        }
        let place = inner.sandboxes.for_task(&owner.tenant, &owner.bot, sandbox).await?;
        let bridge = place.sandbox.bridge.prepare().await?;
        crate::late::look_once(inner, &owner.tenant, &owner.bot, &place);
        let fields = spec.resident_only();
        if !bridge.is_resident() && !fields.is_empty() {
            return Err(EngineError::BridgeCannot { fields, bridge: bridge.name, why: bridge.detail });
        }
        let id = TaskId::new();
        let task = Task {
            id,
            owner,
            sandbox: place.id,
            nonce: Nonce::new(),
            state: TaskState::Queued,
            late_outcome: None,
            output_file: place.sandbox.bridge.output_file(id),
            output: Default::default(),
            stall: None,
            usage: None,
            stop_requested: None,
            memory_kills: Default::default(),
            notify,
            heartbeat_from: Duration::ZERO,
            idle_since: None,
            watches: Watches::new(0, watched, 0),
            retained: None,
            created_at: SystemTime::now(),
            revision: 0,
            spec: Arc::new(spec),
        };
        let secrets = hidden.map(|hidden| self.sealed(&task, &hidden)).transpose()?.unwrap_or_default();
        let new = New { task, secrets, masks: task_masks };
        let queues = new.task.spec.queue_deadline().is_some();
        if let Some(subject) = inner.queue.must_wait(&new.task.owner) {
            if !queues {
                return Err(EngineError::OthersFirst { subject });
            }
        } else {
            match self.accept_now(new.clone(), place.clone()).await {
                Err(EngineError::Store(StoreError::TooManyForBot { .. } | StoreError::TooManyForTenant { .. }))
                    if queues => {}
                accepted => return accepted,
            }
        }
        let new = New { task: Task { state: TaskState::AwaitingRoom, ..new.task }, ..new };
        let supervisor = Supervisor::of_new(inner, new.task.clone(), place, None, new.masks.clone());
        self.add(supervisor, new, Entry::Queue).await
    }

    /// Accepts a task that is to be launched at once.
    async fn accept_now(&self, mut new: New, place: Place) -> Result<Started, EngineError> {
        // If a permit is free, the task is accepted as already starting: one commit covers both changes.
        let permit = self.inner.launches.try_acquire(&new.task.owner.tenant, place.id);
        if permit.is_some() {
            new.task.state = TaskState::Starting { incarnation: place.incarnation.clone() };
        }
        let supervisor = Supervisor::of_new(&self.inner, new.task.clone(), place, permit, new.masks.clone());
        self.add(supervisor, new, Entry::Launch).await
    }

    /// Stores a new task and begins its supervision.
    async fn add(&self, supervisor: Supervisor, new: New, entry: Entry) -> Result<Started, EngineError> {
        let New { task, secrets, masks } = new;
        let (inner, wanted) = (&self.inner, Arc::clone(&task.spec));
        match inner.store.create_task_with_secrets(task, secrets, inner.settings.caps).await {
            Ok(Created::Existing(task)) => {
                supervisor.withdraw();
                self.existing(task, &wanted, &masks)
            }
            Ok(Created::New(task)) => {
                inner.feed.accepted(&task);
                // Not earlier: its turn may come at once.
                supervisor.in_the_queue(Duration::ZERO).spawn(entry);
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

    /// The secrets of a new task, encrypted.
    fn sealed(&self, task: &Task, hidden: &Hidden) -> Result<SealedSecrets, EngineError> {
        let Settings { vault, masks, .. } = &self.inner.settings;
        let values = (!hidden.secret_env.is_empty()).then(|| vault.seal_values(task.id, hidden)).transpose()?;
        let keep_values = masks.of(&task.owner.tenant).reads != MaskReads::Off;
        Ok(SealedSecrets { launch: Some(vault.seal_launch(task.id, hidden)?), values, keep_values })
    }

    fn existing(&self, task: Task, wanted: &TaskSpec, masks: &TaskMasks) -> Result<Started, EngineError> {
        if is_same_program(&task.spec.program, &wanted.program, &masks.of_texts()) {
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
    pub async fn task_page(&self, mut query: TaskQuery) -> Result<TaskPage, EngineError> {
        // Records hold labels without what the patterns match.
        let masks = TaskMasks::new(&self.inner.settings.masks, &query.tenant, []);
        query.labels.values_mut().for_each(|value| masks.label(value));
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
            limit: self.inner.settings.caps.per_bot.saturating_add(self.inner.settings.caps.queued_per_bot),
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
        let live = match self.inner.supervision(task).await? {
            Supervision::Here(live) => live,
            Supervision::Finished(task) => return Ok(*task),
            Supervision::Elsewhere => return Err(EngineError::SupervisedElsewhere),
        };
        live.stop(cause, grace);
        tokio::select! {
            task = live.finished() => Ok(task),
            () = self.inner.leave.cancelled() => Err(EngineError::ShuttingDown),
        }
    }
}
