//! What is done for a task whose sandbox could not be examined: the stop goes on, and a sandbox that never answers is given up.

use std::time::{Duration, Instant};

use super::{
    ANSWER_LIMIT, Action, Machine, Moment, Phase, doubled,
    look::{Looking, Stage},
};
use errand_runtime::RuntimeError;
use errand_task::{Ending, LossReason};

/// How long a running sandbox may leave questions about a task unanswered once the task has to end. A bridge process starts much faster
/// than this, even on a busy machine.
const DEAF_LIMIT: Duration = Duration::from_secs(30);

/// Why a sandbox could not be examined.
#[derive(Debug, Clone, Copy)]
pub(super) enum Obstacle {
    /// The runtime does not answer, or the sandbox is paused. This can last arbitrarily long.
    Runtime,
    /// The sandbox runs and does not answer.
    Sandbox,
}

impl Machine {
    /// The sandbox could not be examined. Continues to stop a command whose time is up or that was ordered to stop: a sandbox at its
    /// process limit answers no question, but its processes can be signalled.
    pub(super) fn unseen(&mut self, obstacle: Obstacle, error: &RuntimeError, now: Moment) {
        match obstacle {
            Obstacle::Runtime => {
                tracing::warn!(%error, "the sandbox cannot be looked at; trying again");
                if self.holds_calls {
                    self.actions.push(Action::HoldBecause(error.to_string()));
                }
            }
            Obstacle::Sandbox => {
                tracing::warn!(%error, "the sandbox does not answer; trying again");
                // Let calls about the bot proceed, so that callers can stop what runs there.
                self.release_hold();
            }
        }
        self.looking(Stage::Unseen(obstacle));
        if !self.may_stop() {
            self.unseen_done(obstacle, now);
        } else if let Some(order) = self.orders.order.clone() {
            self.begin_stop(order.cause, order.grace, now);
        } else if self.stop_was_interrupted() {
            self.resume_stop(now);
        } else if self.time_is_up(now) {
            self.begin_stop_for_timeout(now);
        } else {
            self.unseen_on(now);
        }
    }

    /// Sends the signal that is due, unless the runtime itself does not answer.
    pub(super) fn unseen_on(&mut self, now: Moment) {
        let Phase::Looking(Looking { stage: Stage::Unseen(obstacle), .. }) = &self.phase else { return };
        let obstacle = *obstacle;
        if let (Obstacle::Sandbox, Some(stopping)) = (obstacle, &self.stopping) {
            if stopping.due().is_some_and(|at| at <= now.at) {
                self.send_signal(now);
            }
            if self.stopping.as_ref().is_some_and(super::Stopping::is_sending) {
                // A call that takes longer continues in the background.
                return self.looking(Stage::Signalling(obstacle, now.at + ANSWER_LIMIT));
            }
        }
        self.unseen_done(obstacle, now);
    }

    pub(super) fn signalled_unseen(&mut self, now: Moment) {
        if let Phase::Looking(Looking { stage: Stage::Signalling(obstacle, _), .. }) = &self.phase {
            self.unseen_done(*obstacle, now);
        }
    }

    /// Waits before the next look. Gives up on a sandbox that does not answer once the task has to end.
    pub(super) fn unseen_done(&mut self, obstacle: Obstacle, now: Moment) {
        let Phase::Looking(looking) = &mut self.phase else { return };
        let (pause, elapsed) = (looking.pause, since(looking.begun, now));
        match obstacle {
            Obstacle::Runtime => {}
            Obstacle::Sandbox => {
                self.deaf_for += elapsed;
                if self.has_to_end() && self.deaf_for >= DEAF_LIMIT {
                    tracing::warn!(limit = ?DEAF_LIMIT, "the sandbox gave no answer; its task is given up");
                    return self.close(Ending::lost(LossReason::SandboxUnresponsive), None, now);
                }
                self.deaf_for += pause;
            }
        }
        if let Phase::Looking(looking) = &mut self.phase {
            looking.pause = doubled(pause);
            looking.stage = Stage::Waiting(Some(obstacle), now.at + pause);
        }
        self.ordered_while_looking(now);
    }

    /// A stop order ends the wait for the next look at a sandbox that does not answer.
    pub(super) fn ordered_while_looking(&mut self, now: Moment) {
        if let Phase::Looking(Looking { stage: Stage::Waiting(Some(Obstacle::Sandbox), _), .. }) = &self.phase
            && self.orders.fresh
        {
            self.orders.fresh = false;
            self.inspect(now);
        }
    }

    /// The wait for the next look is over.
    pub(super) fn look_again(&mut self, obstacle: Option<Obstacle>, now: Moment) {
        let Phase::Looking(looking) = &self.phase else { return };
        let elapsed = since(looking.begun, now);
        match (obstacle, &mut self.stopping) {
            (Some(Obstacle::Runtime), Some(stopping)) => stopping.excuse(elapsed),
            (Some(Obstacle::Runtime), None) | (Some(Obstacle::Sandbox) | None, _) => {}
        }
        self.inspect(now);
    }
}

fn since(begun: Option<Instant>, now: Moment) -> Duration {
    begun.map_or(Duration::ZERO, |begun| now.at.saturating_duration_since(begun))
}
