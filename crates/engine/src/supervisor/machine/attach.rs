//! Attaches to a command that is already running.

use std::time::Instant;

use super::{ANSWER_LIMIT, FIRST_PAUSE, Machine, Moment, Operation, Phase, watch::Armed};
use errand_runtime::RuntimeError;

#[derive(Debug)]
pub(super) enum Attaching {
    /// Waits for the sandbox's answer.
    Asking,
    /// The attempt failed, or the attachment ended at once: waits before the sandbox is asked again.
    Waiting { until: Instant },
}

impl Attaching {
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Asking => None,
            Self::Waiting { until } => Some(*until),
        }
    }
}

impl Machine {
    pub(super) fn attach(&mut self) {
        self.release_hold();
        self.armed = Armed::of(&self.task.watches);
        self.phase = Phase::Attaching(Attaching::Asking);
        self.begin(Operation::Attach { from: self.output.end, limit: ANSWER_LIMIT });
    }

    pub(super) fn attached(&mut self, answer: Result<(), RuntimeError>, now: Moment) {
        let Phase::Attaching(Attaching::Asking) = &self.phase else { return };
        match answer {
            Ok(()) => self.follow_attached(now),
            Err(error) => {
                tracing::debug!(%error, "attaching failed");
                self.look_later(now);
            }
        }
    }

    /// Asks the sandbox after a pause: what failed at once would probably do so again.
    pub(super) fn look_later(&mut self, now: Moment) {
        self.phase = Phase::Attaching(Attaching::Waiting { until: now.at + FIRST_PAUSE });
    }

    pub(super) fn attach_tick(&mut self, now: Moment) {
        if let Phase::Attaching(Attaching::Waiting { until }) = &self.phase
            && *until <= now.at
        {
            self.look(now);
        }
    }
}
