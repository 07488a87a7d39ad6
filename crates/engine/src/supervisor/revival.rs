//! Replaces a supervisor that panics: reads its task from the store again and reconciles it with the sandbox.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt as _;
use tracing::Instrument as _;

use super::{
    Entry, Left, Supervisor,
    machine::{FIRST_PAUSE, LONGEST_PAUSE},
};
use crate::{EngineError, Inner, breakdown::panic_message, live::LiveTask, recovery::plan};
use errand_store::StoreError;
use errand_task::{Ending, Event, LossReason, Task};

impl Supervisor {
    /// Supervises the task from `entry` on in the background, until the task has ended or the server shuts down.
    pub(crate) fn spawn(self, entry: Entry) {
        let task = self.machine.task();
        let span = tracing::info_span!("task", id = %task.id, bot = %task.owner.bot);
        let tracker = self.inner.tracker.clone();
        tracker.spawn(supervise(self, entry).instrument(span));
    }
}

async fn supervise(mut supervisor: Supervisor, mut entry: Entry) {
    let (inner, live) = (Arc::clone(&supervisor.inner), Arc::clone(&supervisor.live));
    let mut pause = FIRST_PAUSE;
    loop {
        let reason = match AssertUnwindSafe(supervisor.drive(entry)).catch_unwind().await {
            Ok(Ok(()) | Err(Left::Ending)) => return,
            Ok(Err(Left::Conflict)) => "another writer changed the task's record".to_owned(),
            Err(panic) => panic_message(panic),
        };
        inner.broke_down("a supervisor", &reason);
        match replacement(&inner, &live, &mut pause).await {
            Some(next) => (supervisor, entry) = next,
            None => return,
        }
    }
}

/// The replacement supervisor, made from the stored record. None when there is nothing left to supervise, or the server is shutting down.
async fn replacement(inner: &Arc<Inner>, live: &Arc<LiveTask>, pause: &mut Duration) -> Option<(Supervisor, Entry)> {
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
        let found = match inner.sandboxes.of_task(&task).await {
            Err(EngineError::SandboxNotRunning) => {
                inner.sandboxes.without_record(task.sandbox).map(|sandbox| (sandbox, false))
            }
            found => found.map(|sandbox| (sandbox, true)),
        };
        let (sandbox, exists) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a task's sandbox cannot be read");
                continue;
            }
        };
        let (entry, waited) = (plan::resume(&task, exists), inner.waited(&task).await);
        return Some((Supervisor::of(inner, Arc::clone(live), task, sandbox).in_the_queue(waited), entry));
    }
}

/// Tells every caller that waits for a task that the task has finished.
fn settle(inner: &Inner, live: &LiveTask, task: Task) {
    inner.remove_live(task.id);
    inner.feed.committed(&task);
    inner.queue.freed(&task.owner);
    live.publish(task);
    live.output.finish();
}

/// The outcome shown to callers of a task whose record was removed while it ran: nothing else is known of it.
fn without_record(mut task: Task) -> Task {
    let ending = Ending::lost(LossReason::SupervisorKilled);
    task.apply(Event::Ended { ending, started_at: None, signalled: true, at: SystemTime::now() });
    task
}
