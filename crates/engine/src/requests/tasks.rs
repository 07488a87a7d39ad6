//! Starting, finding, waiting for and stopping tasks.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{StartRequest, Started, TaskRef, WaitRequest, WaitResult};
use crate::{
    Engine, EngineError,
    supervision::Supervision,
    supervisor::{Step, Supervisor},
};
use errand_store::{BotFilter, Created, Scope, TaskPage, TaskQuery};
use errand_task::{Nonce, Status, StopCause, Task, TaskId, TaskSpec, TaskState};

impl Engine {
    /// Accepts a command. When this returns, the task is durable and will be run once, or reported.
    ///
    /// # Errors
    /// When the sandbox cannot be had, a cap would be exceeded, or the request id was used otherwise. Nothing was accepted then.
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
        crate::late::look_once(inner, &owner.tenant, &owner.bot, &sandbox);
        let fields = spec.resident_only();
        if !bridge.is_resident() && !fields.is_empty() {
            return Err(EngineError::BridgeCannot { fields, bridge: bridge.name, why: bridge.detail });
        }
        let id = TaskId::new();
        // What can be launched at once is accepted as being launched: one commit says both.
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
                // The command first, then the answer.
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

    /// The record as of now: with what the supervisor knows and has not had to store.
    fn now(&self, stored: Task) -> Task {
        match self.inner.live(stored.id) {
            Some(live) => live.snapshot(),
            None => stored,
        }
    }

    /// One task as of now.
    ///
    /// # Errors
    /// [`EngineError::NoSuchTask`], equally for a task that the caller may not know of.
    pub async fn task(&self, reference: &TaskRef) -> Result<Task, EngineError> {
        let task = self.visible(reference).await?;
        if self.inner.reconciling.is_over() {
            return Ok(task);
        }
        self.inner.reconciling.wait_for(&task.owner.tenant, &task.owner.bot).await?;
        self.visible(reference).await
    }

    /// One task as it is known now, if the caller may see it.
    async fn visible(&self, reference: &TaskRef) -> Result<Task, EngineError> {
        // What is not over yet is known without the store, and better.
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

    /// A page of tasks as of now, newest first.
    ///
    /// # Errors
    /// When the store fails, or has too much to read for this tenant.
    pub async fn task_page(&self, query: TaskQuery) -> Result<TaskPage, EngineError> {
        let page = self.inner.store.task_page(query).await?;
        Ok(TaskPage { tasks: page.tasks.into_iter().map(|task| self.now(task)).collect(), next: page.next })
    }

    /// Tasks as of now, newest first.
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
            // Large records come in several pages, so that only one page is held beside what the supervisors hold anyway.
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

    /// Waits for a task.
    ///
    /// # Errors
    /// As for [`Engine::task`].
    pub async fn wait(&self, reference: &TaskRef, request: WaitRequest) -> Result<(Task, WaitResult), EngineError> {
        match self.inner.supervision(self.task(reference).await?).await? {
            Supervision::Here(live) => {
                let result = live.wait(request).await;
                Ok((live.snapshot(), result))
            }
            Supervision::Finished(task) => Ok((*task, WaitResult::Finished)),
            Supervision::Elsewhere => Err(EngineError::SupervisedElsewhere),
        }
    }

    /// Stops a task and returns it once it is over. A finished task is returned as it is.
    ///
    /// # Errors
    /// As for [`Engine::task`]; [`EngineError::ShuttingDown`] when the server ends before the task does.
    pub async fn stop(&self, reference: &TaskRef, cause: StopCause, grace: Duration) -> Result<Task, EngineError> {
        let task = self.task(reference).await?;
        self.stop_known(task, cause, grace).await
    }

    /// Stops every unfinished task in a scope and returns them once they are over.
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
