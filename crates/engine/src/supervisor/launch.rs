//! Takes a task from accepted to launched.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::Instant};

use super::{FIRST_PAUSE, Left, Step, Supervisor, follow::PERMIT_LIMIT};
use crate::{EngineError, live::StopOrder, permits::LaunchPermit, sandboxes::Place};
use errand_bridge::{Attachment, LaunchSettings};
use errand_runtime::{NotStarted, RuntimeError};
use errand_store::StoreError;
use errand_task::{Ending, Event, StartFailure, Task, TaskState};

/// How long a launch may show no sign of life before it is given up. The task is then fenced and reconciled.
const SILENCE: Duration = Duration::from_secs(30);
/// The same for a task that was asked to stop.
const SILENCE_WHEN_STOPPED: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Launches the command once it has a permit and a sandbox. Commits the intent before anything runs.
    pub(super) async fn launch(&mut self) -> Result<Step, Left> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.next_place().await? {
                Waited::For(place, permit) => {
                    self.permit = Some(permit);
                    if let Some(step) = self.try_launch(*place).await? {
                        return Ok(step);
                    }
                    self.permit = None;
                }
                Waited::Step(step) => return Ok(step),
                Waited::Again => {}
            }
            self.pause(&mut pause).await?;
        }
    }

    /// Waits for the launch permit and the sandbox, unless the task is asked to stop.
    async fn next_place(&mut self) -> Result<Waited, Left> {
        if let (Some(place), Some(permit)) = (self.place.take(), self.permit.take()) {
            return Ok(Waited::For(Box::new(place), permit));
        }
        let (inner, task) = (Arc::clone(&self.inner), self.task.clone());
        let ready = async {
            let permit = inner.launches.acquire(&task.owner.tenant, task.sandbox).await;
            (permit, inner.sandboxes.for_launch(&task).await)
        };
        let (permit, place) = tokio::select! {
            biased;
            () = self.inner.leave.cancelled() => return Err(Left::Ending),
            order = ordered(&mut self.orders) => {
                if self.task.state == TaskState::Queued {
                    self.commit(Event::StopRequested { cause: order.cause, at: SystemTime::now() }).await?;
                    return Ok(Waited::Step(Step::Over));
                }
                // An earlier attempt failed part-way: reconciling makes sure that the command can no longer be launched.
                return Ok(Waited::Step(Step::Look));
            }
            ready = ready => ready,
        };
        match (permit, place) {
            (Some(permit), Ok(Some(place))) => Ok(Waited::For(Box::new(place), permit)),
            (_, Ok(None)) => {
                Ok(Waited::Step(failed(StartFailure::SandboxGone, "the sandbox was deleted before the launch")))
            }
            (None, Ok(Some(_))) => Ok(Waited::Again),
            (_, Err(EngineError::Runtime(RuntimeError::Unavailable { detail }))) => {
                tracing::warn!(%detail, "the sandbox cannot be reached; the launch waits");
                Ok(Waited::Again)
            }
            (_, Err(EngineError::Store(StoreError::Closed))) => Err(Left::Ending),
            (_, Err(EngineError::Store(error))) if !matches!(error, StoreError::Record { .. }) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the store fails; the launch waits");
                Ok(Waited::Again)
            }
            (_, Err(error)) => Ok(Waited::Step(failed(StartFailure::SandboxGone, &error.to_string()))),
        }
    }

    /// Tries to launch once. None: the command was certainly not launched, and a retry makes sense.
    async fn try_launch(&mut self, place: Place) -> Result<Option<Step>, Left> {
        self.sandbox = place.sandbox;
        self.commit(Event::LaunchBegan { incarnation: place.incarnation }).await?;
        self.count_memory_kills();
        let settings = LaunchSettings {
            grace: self.inner.settings.stop_grace,
            quiet_after: self.inner.settings.stall_after,
            look_every: self.inner.settings.stall_check_interval,
        };
        self.launched_at = Some(Instant::now());
        match self.answer_to_launch(settings).await? {
            Some(Ok(attachment)) => Ok(Some(Step::Follow(Box::new(attachment)))),
            None => {
                tracing::warn!("the launch was not answered; looking whether it happened");
                Ok(Some(Step::Look))
            }
            Some(Err(RuntimeError::Uncertain { detail })) => {
                tracing::warn!(%detail, "it is not known whether the command was launched; looking");
                Ok(Some(Step::Look))
            }
            Some(Err(RuntimeError::Unavailable { detail })) => {
                tracing::warn!(%detail, "the command was not launched; trying again");
                Ok(None)
            }
            Some(Err(error)) => Ok(Some(not_launched(&error))),
        }
    }

    /// Asks for the launch. None: no answer came within [`SILENCE`], or [`SILENCE_WHEN_STOPPED`] for a task that was asked to stop.
    async fn answer_to_launch(
        &mut self,
        settings: LaunchSettings,
    ) -> Result<Option<Result<Attachment, RuntimeError>>, Left> {
        let bridge = Arc::clone(&self.sandbox.bridge);
        let Task { id, nonce, spec, .. } = &self.task;
        let (id, nonce, spec) = (*id, *nonce, Arc::clone(spec));
        let launching = bridge.launch(id, nonce, &spec, settings);
        tokio::pin!(launching);
        let permit_until = Instant::now() + PERMIT_LIMIT;
        let mut silent_until = self.silent_until();
        loop {
            let due = if self.permit.is_some() { silent_until.min(permit_until) } else { silent_until };
            tokio::select! {
                biased;
                () = self.inner.leave.cancelled() => return Err(Left::Ending),
                answer = &mut launching => return Ok(Some(answer)),
                _ = self.orders.changed() => silent_until = self.silent_until(),
                () = tokio::time::sleep_until(due) => {
                    // This launch shows no sign of life: release its permit, so that others can launch.
                    self.permit = None;
                    if silent_until <= Instant::now() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// When to give up waiting for a sign of life.
    pub(super) fn silent_until(&self) -> Instant {
        let launched_at = self.launched_at.unwrap_or_else(Instant::now);
        let allowed = if self.orders.borrow().is_some() {
            launched_at.elapsed() + SILENCE_WHEN_STOPPED
        } else {
            SILENCE.min(self.task.spec.timeout + SILENCE_WHEN_STOPPED)
        };
        launched_at + allowed.min(SILENCE)
    }
}

/// Result of waiting for the permit and the sandbox.
enum Waited {
    /// Both are available.
    For(Box<Place>, LaunchPermit),
    /// Continue with this step instead.
    Step(Step),
    /// Not available yet, and the command was certainly not launched.
    Again,
}

/// Waits for a stop order.
async fn ordered(orders: &mut watch::Receiver<Option<StopOrder>>) -> StopOrder {
    loop {
        if let Ok(order) = orders.wait_for(Option::is_some).await
            && let Some(order) = order.clone()
        {
            return order;
        }
        // The sender lives as long as the task, so this line is never reached. If it were, it must not spin.
        std::future::pending::<()>().await;
    }
}

fn failed(failure: StartFailure, message: &str) -> Step {
    Step::End(Ending::FailedToStart { failure, errno: None, message: message.to_owned() }, None)
}

/// The end of a task whose launch was certainly refused.
pub(super) fn not_launched(error: &RuntimeError) -> Step {
    let failure = match error {
        RuntimeError::NoSuchSandbox { .. } | RuntimeError::NotRunning { .. } => StartFailure::SandboxGone,
        RuntimeError::NotStarted { reason: NotStarted::NotFound, .. } => StartFailure::NotFound,
        RuntimeError::NotStarted { reason: NotStarted::NotExecutable, .. } => StartFailure::NotExecutable,
        RuntimeError::NotStarted { reason: NotStarted::NoSuchUser, .. } => StartFailure::NoSuchUser,
        RuntimeError::NotStarted { reason: NotStarted::TooLarge, .. } => StartFailure::ArgumentsTooLarge,
        RuntimeError::NotWritten { detail, .. } if detail.to_lowercase().contains("permission denied") => {
            StartFailure::NotPermitted
        }
        RuntimeError::NotWritten { .. } => StartFailure::NoSpace,
        RuntimeError::NotStarted { reason: NotStarted::Other, .. }
        | RuntimeError::Refused { .. }
        | RuntimeError::NoSuchImage { .. }
        | RuntimeError::Unavailable { .. }
        | RuntimeError::Uncertain { .. } => StartFailure::Refused,
    };
    failed(failure, &error.to_string())
}
