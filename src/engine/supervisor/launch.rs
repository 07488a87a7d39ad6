//! From an accepted task to a launched one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{FIRST_PAUSE, Left, Step, Supervisor};
use crate::{
    bridge::LaunchSettings,
    engine::EngineError,
    runtime::{NotStarted, RuntimeError},
    task::{Ending, Event, StartFailure, Task, TaskState},
};

impl Supervisor {
    /// Launches the command, once it may be. The intent is committed before anything is run.
    pub(super) async fn launch(&mut self) -> Result<Step, Left> {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                biased;
                () = self.inner.leave.cancelled() => return Err(Left),
                order = ordered(&mut self.orders), if self.place.is_none() => {
                    if self.task.state == TaskState::Queued {
                        let at = std::time::SystemTime::now();
                        self.commit(Event::StopRequested { cause: order.cause, at }).await?;
                        return Ok(Step::Over);
                    }
                    // An earlier attempt was begun and failed: after a look nobody launches it any more.
                    return Ok(Step::Look);
                }
                permit = permit(&self.inner.launches, self.permit.take()) => self.permit = permit,
            }
            match self.try_launch().await? {
                Some(step) => return Ok(step),
                None => {
                    self.permit = None;
                    self.pause(&mut pause).await?;
                }
            }
        }
    }

    /// One attempt. None: certainly not launched, and worth another.
    async fn try_launch(&mut self) -> Result<Option<Step>, Left> {
        let place = match self.place.take() {
            Some(place) => Ok(Some(place)),
            None => self.inner.sandboxes.for_launch(&self.task).await,
        };
        let place = match place {
            Ok(Some(place)) => place,
            Ok(None) => {
                return Ok(Some(failed(StartFailure::SandboxGone, "the sandbox was deleted before the launch")));
            }
            Err(EngineError::Runtime(RuntimeError::Unavailable { detail })) => {
                tracing::warn!(%detail, "the sandbox cannot be reached; the launch waits");
                return Ok(None);
            }
            Err(EngineError::Store(crate::store::StoreError::Closed)) => return Err(Left),
            Err(error) => return Ok(Some(failed(StartFailure::SandboxGone, &error.to_string()))),
        };
        self.sandbox.clone_from(&place.runtime_id);
        self.commit(Event::LaunchBegan { incarnation: place.incarnation }).await?;
        let settings = LaunchSettings {
            grace: self.inner.settings.stop_grace,
            quiet_after: self.inner.settings.stall_after,
            look_every: self.inner.settings.stall_check_interval,
        };
        let Task { id, nonce, spec, .. } = &self.task;
        let launched = self.inner.bridge.launch(&self.sandbox, *id, *nonce, spec, settings).await;
        match launched {
            Ok(attachment) => Ok(Some(Step::Follow(Box::new(attachment)))),
            Err(RuntimeError::Uncertain { detail }) => {
                tracing::warn!(%detail, "nobody knows whether the command was launched; looking");
                Ok(Some(Step::Look))
            }
            Err(RuntimeError::Unavailable { detail }) => {
                tracing::warn!(%detail, "the command was not launched; trying again");
                Ok(None)
            }
            Err(error) => Ok(Some(not_launched(&error))),
        }
    }
}

/// The permit that there is, or the next one.
async fn permit(launches: &Arc<Semaphore>, held: Option<OwnedSemaphorePermit>) -> Option<OwnedSemaphorePermit> {
    match held {
        Some(permit) => Some(permit),
        None => Arc::clone(launches).acquire_owned().await.ok(),
    }
}

/// Waits for an order to stop.
async fn ordered(
    orders: &mut tokio::sync::watch::Receiver<Option<crate::engine::live::StopOrder>>,
) -> crate::engine::live::StopOrder {
    loop {
        if let Ok(order) = orders.wait_for(Option::is_some).await
            && let Some(order) = order.clone()
        {
            return order;
        }
        // The sender lives as long as the task: this is never reached, and must not spin if it is.
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
