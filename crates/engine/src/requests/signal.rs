//! Signals that callers send to commands. The signal of a stop is the supervisor's.

use super::TaskRef;
use crate::{Engine, EngineError, supervision::Supervision};
use errand_task::{ProcessIdentity, Signal, SignalTarget, Task, TaskState};

impl Engine {
    /// Sends a signal to a running command once. Returns the task, and how many processes the signal was sent to. Changes no record: a
    /// command that the signal ends is reported as every other end.
    ///
    /// # Errors
    /// As for [`Engine::task`]; [`EngineError::NotStartedYet`], [`EngineError::AlreadyFinished`], [`EngineError::NothingToSignal`], or when
    /// the sandbox cannot be reached. In the last case, the signal may have been sent.
    pub async fn signal(
        &self,
        reference: &TaskRef,
        signal: Signal,
        target: SignalTarget,
    ) -> Result<(Task, u32), EngineError> {
        let task = match self.inner.supervision(self.task(reference).await?).await? {
            Supervision::Here(live) => live.snapshot(),
            Supervision::Finished(_) => return Err(EngineError::AlreadyFinished),
            Supervision::Elsewhere => return Err(EngineError::SupervisedElsewhere),
        };
        let leader = leader(&task.state)?;
        let sandbox = self.inner.sandboxes.of_task(&task).await?;
        match sandbox.bridge.send_signal(task.id, leader, signal, target).await? {
            0 => Err(EngineError::NothingToSignal),
            count => {
                tracing::info!(task = %task.id, %signal, ?target, count, "a caller signalled a command");
                Ok((task, count))
            }
        }
    }
}

/// The first process of a command that runs.
fn leader(state: &TaskState) -> Result<ProcessIdentity, EngineError> {
    match state {
        TaskState::AwaitingRoom | TaskState::Queued | TaskState::Starting { .. } => Err(EngineError::NotStartedYet),
        // The disk was full when the process was to be recorded.
        TaskState::Running { process, .. } | TaskState::Stopping { process, .. } if process.pid == 0 => {
            Err(EngineError::NothingToSignal)
        }
        TaskState::Running { process, .. } | TaskState::Stopping { process, .. } => Ok(*process),
        TaskState::Finished { .. } => Err(EngineError::AlreadyFinished),
    }
}
