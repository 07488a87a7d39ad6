//! Whether the sandbox's memory ran out while a command ran.

use super::Supervisor;
use errand_task::{Ending, LossReason};

impl Supervisor {
    /// Takes note, before a launch, of what was killed until then.
    pub(super) fn count_memory_kills(&mut self) {
        self.task.memory_kills.before = self.inner.runtime.memory_kills(&self.sandbox);
    }

    /// Takes note, at the end, of what was killed since the launch. Where the runtime counts from outside, that count goes before what the
    /// sandbox says, which can only adorn the outcome of its own task.
    pub(super) async fn note_memory_kills(&mut self, ending: &Ending) {
        match ending {
            // Memory is no cause of a success, nothing ran that could be killed, or the counts are of another life of the sandbox.
            Ending::Exited(0) | Ending::FailedToStart { .. } => return,
            Ending::Lost { reason: LossReason::SandboxRestarted | LossReason::SandboxRemoved, .. } => return,
            Ending::Exited(_) | Ending::Signaled(_) | Ending::TimedOut { .. } | Ending::Lost { .. } => {}
        }
        let kills = self.task.memory_kills;
        let counted = kills.before.zip(self.inner.runtime.memory_kills(&self.sandbox));
        let count = match counted {
            Some((before, now)) => u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX),
            None => self.oom_kills_told,
        };
        if count == 0 {
            return;
        }
        let owner = &self.task.owner;
        let limit = match self.inner.store.sandbox(&owner.tenant, &owner.bot).await {
            Ok(Some(sandbox)) if sandbox.id == self.task.sandbox => Some(sandbox.spec.memory_bytes),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "the memory limit of the sandbox is not known");
                None
            }
        };
        self.task.memory_kills.count = count;
        self.task.memory_kills.limit = limit.filter(|bytes| *bytes > 0);
    }
}
