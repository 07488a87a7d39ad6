//! Replaces a supervisor that panics: reads its task from the store again and reconciles it with the sandbox.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt as _;
use tracing::Instrument as _;

use super::{FIRST_PAUSE, LONGEST_PAUSE, Left, Step, Supervisor, lost};
use crate::{EngineError, Inner, breakdown::panic_message, live::LiveTask};
use errand_store::StoreError;
use errand_task::{Ending, Event, LossReason, Task, TaskState};

impl Supervisor {
    /// Continues from `step` in the background, until the task has ended or the server shuts down.
    pub(crate) fn spawn(self, step: Step) {
        let span = tracing::info_span!("task", id = %self.task.id, bot = %self.task.owner.bot);
        let tracker = self.inner.tracker.clone();
        tracker.spawn(supervise(self, step).instrument(span));
    }
}

async fn supervise(mut supervisor: Supervisor, mut step: Step) {
    let (inner, live) = (Arc::clone(&supervisor.inner), Arc::clone(&supervisor.live));
    let mut pause = FIRST_PAUSE;
    loop {
        let reason = match AssertUnwindSafe(supervisor.drive(step)).catch_unwind().await {
            Ok(Ok(()) | Err(Left::Ending)) => return,
            Ok(Err(Left::Conflict)) => "another writer changed the task's record".to_owned(),
            Err(panic) => panic_message(panic),
        };
        inner.broke_down("a supervisor", &reason);
        match replacement(&inner, &live, &mut pause).await {
            Some(next) => (supervisor, step) = next,
            None => return,
        }
    }
}

/// The replacement supervisor, made from the stored record. None when there is nothing left to supervise, or the server is shutting down.
async fn replacement(inner: &Arc<Inner>, live: &Arc<LiveTask>, pause: &mut Duration) -> Option<(Supervisor, Step)> {
    let known = live.snapshot();
    loop {
        tokio::select! {
            () = inner.leave.cancelled() => return None,
            () = tokio::time::sleep(*pause) => *pause = (*pause * 2).min(LONGEST_PAUSE),
        }
        let stored = match inner.store.task(&known.owner.tenant, known.id).await {
            Ok(stored) => stored,
            Err(StoreError::Closed) => return None,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a task cannot be read; trying again");
                continue;
            }
        };
        let task = match stored {
            Some(task) if !task.status().is_terminal() => task,
            ended => {
                settle(inner, live, ended.unwrap_or_else(|| without_record(known)));
                return None;
            }
        };
        let step = if task.state == TaskState::Queued { Step::Launch } else { Step::Look };
        return match inner.sandboxes.of_task(&task).await {
            Ok(sandbox) => Some((Supervisor::of(inner, Arc::clone(live), task, sandbox), step)),
            Err(EngineError::SandboxNotRunning) => {
                let sandbox = inner.sandboxes.without_record(task.sandbox).ok()?;
                let supervisor = Supervisor::of(inner, Arc::clone(live), task, sandbox);
                Some((supervisor, lost(LossReason::SandboxRemoved)))
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a task's sandbox cannot be read");
                continue;
            }
        };
    }
}

/// Tells every caller that waits for a task that the task has finished.
fn settle(inner: &Inner, live: &LiveTask, task: Task) {
    inner.remove_live(task.id);
    live.publish(task);
    live.output.finish();
}

/// The outcome shown to callers of a task whose record was removed while it ran: nothing else is known of it.
fn without_record(mut task: Task) -> Task {
    let ending = Ending::lost(LossReason::SupervisorKilled);
    task.apply(Event::Ended { ending, started_at: None, signalled: true, at: SystemTime::now() });
    task
}
