//! Replaces the watches of a running task.

use std::time::Duration;

use tokio::time::timeout;

use super::TaskRef;
use crate::{Engine, EngineError, masking::TaskMasks, supervision::Supervision};
use errand_task::{Task, TaskState, Watch};

/// How long a command may take to start.
const START_LIMIT: Duration = Duration::from_secs(5);
/// How long the store may take.
const STORE_LIMIT: Duration = Duration::from_secs(10);

impl Engine {
    /// Replaces the watches of a running task. Matches of the new set begin at byte `from` or later; without, in output that the server has not
    /// seen yet. The caller has validated the watches. Returns the task once they are stored.
    ///
    /// # Errors
    /// As for [`Engine::task`]; [`EngineError::NotStartedYet`], [`EngineError::AlreadyFinished`], [`EngineError::PastTheEnd`],
    /// [`EngineError::SecretInWatch`], or
    /// [`EngineError::WatchesNotStored`] when the change could not be stored in time: it may still take effect.
    pub async fn set_watches(
        &self,
        reference: &TaskRef,
        watches: Vec<Watch>,
        from: Option<u64>,
    ) -> Result<Task, EngineError> {
        let live = match self.inner.supervision(self.task(reference).await?).await? {
            Supervision::Here(live) => live,
            Supervision::Finished(_) => return Err(EngineError::AlreadyFinished),
            Supervision::Elsewhere => return Err(EngineError::SupervisedElsewhere),
        };
        timeout(START_LIMIT, live.launched()).await.map_err(|_| EngineError::NotStartedYet)?;
        if matches!(live.snapshot().state, TaskState::Finished { .. }) {
            return Err(EngineError::AlreadyFinished);
        }
        refuse_secrets(&watches, &live.masks)?;
        let size = live.output.end();
        if let Some(offset) = from.filter(|offset| *offset > size) {
            return Err(EngineError::PastTheEnd { offset, size });
        }
        let mut changes = live.changes();
        let set = live.watch(watches, from);
        let stored = changes.wait_for(|task| task.watches.set >= set || task.status().is_terminal());
        let task = tokio::select! {
            stored = timeout(STORE_LIMIT, stored) => match stored {
                Ok(Ok(task)) => task.clone(),
                Ok(Err(_)) => return Err(EngineError::SupervisedElsewhere),
                Err(_) => return Err(EngineError::WatchesNotStored),
            },
            () = self.inner.leave.cancelled() => return Err(EngineError::ShuttingDown),
        };
        if task.watches.set >= set { Ok(task) } else { Err(EngineError::AlreadyFinished) }
    }
}

/// Patterns are shown with the task and in notifications.
pub(super) fn refuse_secrets(watches: &[Watch], masks: &TaskMasks) -> Result<(), EngineError> {
    let masks = masks.of_texts();
    let shows_one = |watch: &Watch| {
        let pattern = watch.pattern.as_str();
        masks.text(pattern) != pattern
    };
    match watches.iter().position(shows_one) {
        Some(index) => Err(EngineError::SecretInWatch { index }),
        None => Ok(()),
    }
}
