//! Who supervises a task: this server, no server any more, or another one.

use std::sync::Arc;

use super::{EngineError, Inner, live::LiveTask};
use errand_task::Task;

/// Who supervises a task.
pub(super) enum Supervision {
    /// This server.
    Here(Arc<LiveTask>),
    /// Nobody: the task is finished, with this record.
    Finished(Box<Task>),
    /// Another server. There is one server as yet, so this says that the task is between two supervisors of this one.
    Elsewhere,
}

impl Inner {
    /// Who supervises a task whose record was read before. A record is finished only by its own word: a task that is not supervised here
    /// need not be.
    ///
    /// # Errors
    /// [`EngineError::NoSuchTask`] when the task was removed meanwhile, or when the store fails.
    pub(super) async fn supervision(&self, task: Task) -> Result<Supervision, EngineError> {
        if let Some(live) = self.live(task.id) {
            return Ok(Supervision::Here(live));
        }
        if task.status().is_terminal() {
            return Ok(Supervision::Finished(Box::new(task)));
        }
        // It may have ended since its record was read.
        let now = self.store.task(&task.owner.tenant, task.id).await?.ok_or(EngineError::NoSuchTask)?;
        Ok(if now.status().is_terminal() { Supervision::Finished(Box::new(now)) } else { Supervision::Elsewhere })
    }
}
