//! Finds out whether the sandbox ran out of memory while a command ran.

use super::Supervisor;
use errand_task::{Ending, LossReason};

impl Supervisor {
    /// Records, before a launch, how many processes were killed for lack of memory so far.
    pub(super) fn count_memory_kills(&mut self) {
        self.task.memory_kills.before = self.sandbox.memory_kills();
    }

    /// Records, at the end, how many processes were killed for lack of memory since the launch. A count that the runtime makes outside the
    /// sandbox takes precedence. The sandbox's own count can be forged, but it affects only the outcome of the sandbox's own task.
    pub(super) async fn note_memory_kills(&mut self, ending: &Ending) {
        match ending {
            // The command succeeded, nothing ran, or the counts are those of another incarnation of the sandbox.
            Ending::Exited(0) | Ending::FailedToStart { .. } => return,
            Ending::Lost { reason: LossReason::SandboxRestarted | LossReason::SandboxRemoved, .. } => return,
            Ending::Exited(_) | Ending::Signaled(_) | Ending::TimedOut { .. } | Ending::Lost { .. } => {}
        }
        let kills = self.task.memory_kills;
        let counted = kills.before.zip(self.sandbox.memory_kills());
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
