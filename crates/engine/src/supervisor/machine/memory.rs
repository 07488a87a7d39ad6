//! Finds out whether the sandbox ran out of memory while a command ran.

use super::{
    Machine, Moment, Operation, Phase,
    end::{Closing, Stage},
};
use errand_task::{Ending, LossReason};

impl Machine {
    /// Takes in how many processes were killed for lack of memory so far: before a launch and at the end.
    pub(super) fn memory_kills(&mut self, count: Option<u64>, now: Moment) {
        match &self.phase {
            Phase::Launching(_) => {
                self.task.memory_kills.before = count;
                self.ask_for_launch(now);
            }
            Phase::Closing(Closing { stage: Stage::Counting, .. }) => self.memory_kills_at_end(count, now),
            Phase::Idle
            | Phase::Queueing(_)
            | Phase::Looking(_)
            | Phase::Attaching(_)
            | Phase::Following(_)
            | Phase::Closing(_)
            | Phase::Over => {}
        }
    }

    /// Finds out how many processes were killed for lack of memory since the launch, unless that does not matter.
    pub(super) fn count_after_end(&mut self, now: Moment) {
        let Phase::Closing(closing) = &self.phase else { return };
        match closing.ending {
            // The command succeeded, nothing ran, or the counts are those of another incarnation of the sandbox.
            Ending::Exited(0)
            | Ending::FailedToStart { .. }
            | Ending::Lost { reason: LossReason::SandboxRestarted | LossReason::SandboxRemoved, .. } => {
                self.commit_end(now);
            }
            Ending::Exited(_) | Ending::Signaled(_) | Ending::TimedOut { .. } | Ending::Lost { .. } => {
                self.closing(Stage::Counting);
                self.begin(Operation::CountMemoryKills);
            }
        }
    }

    /// A count that the runtime makes outside the sandbox takes precedence. The sandbox's own count can be forged, but it affects only the
    /// outcome of the sandbox's own task.
    fn memory_kills_at_end(&mut self, count: Option<u64>, now: Moment) {
        let kills = match self.task.memory_kills.before.zip(count) {
            Some((before, now)) => u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX),
            None => self.oom_kills_told,
        };
        if kills == 0 {
            return self.commit_end(now);
        }
        self.closing(Stage::FindingLimit { kills });
        self.begin(Operation::FindMemoryLimit);
    }

    pub(super) fn memory_limit(&mut self, limit: Option<u64>, now: Moment) {
        if let Phase::Closing(Closing { stage: Stage::FindingLimit { kills }, .. }) = self.phase {
            self.task.memory_kills.count = kills;
            self.task.memory_kills.limit = limit.filter(|bytes| *bytes > 0);
            self.commit_end(now);
        }
    }
}
