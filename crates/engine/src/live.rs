//! The face of one unfinished task: what callers see of it, and how they ask for it to be stopped.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use super::{WaitRequest, WaitResult, input::InputState, output::LiveOutput};
use errand_task::{StopCause, Task, TaskState};

/// How much later output may be seen than it was written: where a log can only be polled, it is once a second.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// A wish to have the command stopped.
#[derive(Debug, Clone)]
pub(super) struct StopOrder {
    pub(super) cause: StopCause,
    pub(super) grace: Duration,
}

/// An unfinished task. The supervisor publishes to it, everybody else reads.
pub(super) struct LiveTask {
    pub(super) output: LiveOutput,
    pub(super) input: tokio::sync::Mutex<InputState>,
    task: watch::Sender<Task>,
    stop: watch::Sender<Option<StopOrder>>,
}

impl LiveTask {
    /// A task whose output is known from byte `output_start` on.
    pub(super) fn new(task: Task, output_start: u64) -> Self {
        Self {
            output: LiveOutput::new(output_start),
            input: tokio::sync::Mutex::default(),
            task: watch::Sender::new(task),
            stop: watch::Sender::new(None),
        }
    }

    /// The record as last committed, with the output as of now.
    pub(super) fn snapshot(&self) -> Task {
        let mut task = self.task.borrow().clone();
        if !task.status().is_terminal() {
            task.output = self.output.summary(task.output.incomplete, task.output.gap);
        }
        task
    }

    /// Shows a committed record to everybody.
    pub(super) fn publish(&self, task: Task) {
        self.task.send_replace(task);
    }

    /// Asks for a stop. The first cause stands; the shortest grace counts.
    pub(super) fn stop(&self, cause: StopCause, grace: Duration) {
        self.stop.send_modify(|order| match order {
            Some(order) => order.grace = order.grace.min(grace),
            None => *order = Some(StopOrder { cause, grace }),
        });
    }

    /// The orders to stop, for the supervisor.
    pub(super) fn orders(&self) -> watch::Receiver<Option<StopOrder>> {
        self.stop.subscribe()
    }

    /// Waits until the command was started, or never will be. Cancel safe.
    pub(super) async fn launched(&self) {
        let launched = |task: &Task| match task.state {
            TaskState::Queued | TaskState::Starting { .. } => false,
            TaskState::Running { .. } | TaskState::Stopping { .. } | TaskState::Finished { .. } => true,
        };
        // The sender lives in `self`: this cannot fail.
        let _ = self.task.subscribe().wait_for(launched).await;
    }

    /// Waits for the task's end. Cancel safe.
    pub(super) async fn finished(&self) -> Task {
        let mut changes = self.task.subscribe();
        // The sender lives in `self`: this cannot fail.
        match changes.wait_for(|task| task.status().is_terminal()).await {
            Ok(task) => task.clone(),
            Err(_) => self.snapshot(),
        }
    }

    /// Waits for what the request says. Cancel safe.
    pub(super) async fn wait(&self, request: WaitRequest) -> WaitResult {
        let give_up = Instant::now() + request.timeout;
        let mut changes = self.task.subscribe();
        loop {
            let (finished, stalled) = {
                let task = changes.borrow_and_update();
                (task.status().is_terminal(), task.stall.is_some())
            };
            if finished {
                return WaitResult::Finished;
            }
            if stalled && request.until_stalled {
                return WaitResult::Stalled;
            }
            let idle_at = request.until_idle.and_then(|idle| Some(self.output.last_growth()? + idle + SEEN_WITHIN));
            if idle_at.is_some_and(|at| at <= Instant::now()) {
                return WaitResult::Idle;
            }
            tokio::select! {
                // The sender lives in `self`: this cannot fail.
                _ = changes.changed() => {}
                () = self.output.grown(), if request.until_idle.is_some() => {}
                () = tokio::time::sleep_until(idle_at.unwrap_or(give_up).min(give_up)) => {
                    if Instant::now() >= give_up {
                        return WaitResult::Timeout;
                    }
                }
            }
        }
    }
}
