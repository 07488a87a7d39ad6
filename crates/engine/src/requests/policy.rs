//! Changing what a task's session is told.

use std::time::Duration;

use super::TaskRef;
use crate::{Engine, EngineError, supervision::Supervision};
use errand_task::{NotifyPolicy, Task};

/// How long a caller waits for the change to be stored. A launch, for example, is not interrupted for it.
const STORED_WITHIN: Duration = Duration::from_secs(10);

impl Engine {
    /// Changes what the session of an unfinished task is told, and returns the task once that is stored. A caller that is dropped does not
    /// undo the change.
    ///
    /// # Errors
    /// As for [`Engine::task`]; [`EngineError::AlreadyFinished`]; [`EngineError::ChangePending`] when it could not be stored in time: then it
    /// is stored later, unless the task ends before.
    pub async fn set_notify_policy(&self, reference: &TaskRef, policy: NotifyPolicy) -> Result<Task, EngineError> {
        let live = match self.inner.supervision(self.task(reference).await?).await? {
            Supervision::Here(live) => live,
            Supervision::Finished(_) => return Err(EngineError::AlreadyFinished),
            Supervision::Elsewhere => return Err(EngineError::SupervisedElsewhere),
        };
        let number = live.want_policy(policy);
        tokio::select! {
            biased;
            () = live.until_policy_stored(number) => Ok(live.snapshot()),
            _ = live.finished() => Err(EngineError::AlreadyFinished),
            () = self.inner.leave.cancelled() => Err(EngineError::ShuttingDown),
            () = tokio::time::sleep(STORED_WITHIN) => Err(EngineError::ChangePending),
        }
    }
}
