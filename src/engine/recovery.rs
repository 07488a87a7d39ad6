//! Start-up: what became of every task that was unfinished when the last server ended.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};

use super::{
    Engine, EngineError, Inner,
    output::WINDOW,
    supervisor::{Step, Supervisor, lost},
};
use crate::{
    runtime::{Found, RuntimeError},
    task::{LossReason, SandboxId, Task, TaskState},
};

/// How long to wait before asking an engine again that does not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// How many tasks are brought to their end at the same time.
const CONCURRENCY: usize = 16;

impl Engine {
    /// Reconciles every unfinished task with what its sandbox says, then goes on supervising. Waits for a container engine that does not
    /// answer as long as there is a task to be reconciled.
    ///
    /// # Errors
    /// When the store cannot be read. [`EngineError::OtherRuntime`] when a task's sandbox is one of another runtime, where nobody can look:
    /// then nothing was judged.
    pub async fn recover(&self) -> Result<(), EngineError> {
        let tasks = self.inner.store.unfinished_tasks().await?;
        let unfinished = tasks.len();
        let mut by_sandbox: HashMap<SandboxId, Vec<Task>> = HashMap::new();
        for task in tasks {
            by_sandbox.entry(task.sandbox).or_default().push(task);
        }
        for task in by_sandbox.values().filter_map(|tasks| tasks.first()) {
            if let Err(error @ EngineError::OtherRuntime { .. }) = self.inner.sandboxes.runtime_id(task).await {
                return Err(error);
            }
        }
        let reconciled = stream::iter(by_sandbox.into_values())
            .map(|tasks| reconcile(&self.inner, tasks))
            .buffer_unordered(CONCURRENCY)
            .collect::<Vec<Result<(), EngineError>>>();
        tokio::select! {
            results = reconciled => results.into_iter().collect::<Result<(), _>>()?,
            () = self.inner.leave.cancelled() => return Err(EngineError::ShuttingDown),
        }
        if unfinished > 0 {
            tracing::info!(unfinished, running = self.inner.all_live().len(), "reconciled");
        }
        self.inner.tracker.spawn(super::retention::run(Arc::clone(&self.inner)));
        Ok(())
    }
}

/// Reconciles the tasks of one sandbox.
async fn reconcile(inner: &Arc<Inner>, tasks: Vec<Task>) -> Result<(), EngineError> {
    let (queued, launched): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| task.state == TaskState::Queued);
    let sandbox = match launched.first().or(queued.first()) {
        Some(task) => inner.sandboxes.runtime_id(task).await,
        None => return Ok(()),
    };
    for task in queued {
        // Certainly never launched: it goes on as if it had just been accepted.
        Supervisor::new(inner, task, sandbox.as_deref().unwrap_or_default().to_owned(), 0).spawn(Step::Launch);
    }
    let sandbox = match sandbox {
        Ok(sandbox) => sandbox,
        Err(EngineError::SandboxNotRunning) => {
            return finish_all(inner, launched, "", LossReason::SandboxRemoved).await;
        }
        Err(error) => return Err(error),
    };
    if launched.is_empty() {
        return Ok(());
    }
    loop {
        match inner.runtime.inspect(&sandbox).await {
            // Held still, not ended: it is looked at until it runs again, while others are served.
            Ok(found) if found.paused => return look_later(inner, launched, &sandbox),
            Ok(found) if found.running => return settle(inner, launched, &sandbox, &found).await,
            Ok(_) => return finish_all(inner, launched, &sandbox, LossReason::SandboxStopped).await,
            Err(RuntimeError::NoSuchSandbox { .. }) => {
                return finish_all(inner, launched, &sandbox, LossReason::SandboxRemoved).await;
            }
            Err(error) => {
                tracing::warn!(%error, tasks = launched.len(), "tasks wait to be reconciled");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Ends tasks for whose sandbox there is no hope.
async fn finish_all(
    inner: &Arc<Inner>,
    tasks: Vec<Task>,
    sandbox: &str,
    reason: LossReason,
) -> Result<(), EngineError> {
    stream::iter(tasks)
        .for_each_concurrent(CONCURRENCY, |task| {
            Supervisor::new(inner, task, sandbox.to_owned(), 0).drive(lost(reason))
        })
        .await;
    Ok(())
}

/// Leaves it to the supervisors to find out, each for its task, as long as it takes.
fn look_later(inner: &Arc<Inner>, tasks: Vec<Task>, sandbox: &str) -> Result<(), EngineError> {
    for task in tasks {
        Supervisor::new(inner, task, sandbox.to_owned(), 0).spawn(Step::Look);
    }
    Ok(())
}

/// Asks the sandbox about all of its tasks at once; ends those that are over, goes on supervising the others.
async fn settle(inner: &Arc<Inner>, tasks: Vec<Task>, sandbox: &str, found: &Found) -> Result<(), EngineError> {
    let (starting, running): (Vec<_>, Vec<_>) =
        tasks.into_iter().partition(|task| matches!(task.state, TaskState::Starting { .. }));
    for (tasks, fence) in [(starting, true), (running, false)] {
        if tasks.is_empty() {
            continue;
        }
        let asked: Vec<_> = tasks.iter().map(|task| (task.id, task.nonce)).collect();
        let findings = match inner.bridge.probe(sandbox, &asked, fence).await {
            Ok(findings) => findings,
            Err(error) => {
                // The engine answers and this sandbox does not, as at its limit of processes. It must not keep the server from serving,
                // without which nobody could stop what goes on in it.
                tracing::warn!(%error, tasks = tasks.len(), "a sandbox cannot be looked into yet");
                look_later(inner, tasks, sandbox)?;
                continue;
            }
        };
        stream::iter(tasks.into_iter().zip(findings))
            .for_each_concurrent(CONCURRENCY, |(task, finding)| async move {
                let start = finding.output_bytes.saturating_sub(WINDOW as u64);
                let stopping = matches!(task.state, TaskState::Stopping { .. });
                let mut supervisor = Supervisor::new(inner, task, sandbox.to_owned(), start);
                match supervisor.judge(found, &finding, false).await {
                    // One that was being stopped is ended only when nothing of it is left, which can take a while.
                    Some(step @ Step::End(..)) if !stopping => supervisor.drive(step).await,
                    Some(step) => supervisor.spawn(step),
                    // A second look is needed, and it decides: there is nothing to follow.
                    None => supervisor.drive(Step::Look).await,
                }
            })
            .await;
    }
    Ok(())
}
