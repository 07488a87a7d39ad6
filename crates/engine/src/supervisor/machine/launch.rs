//! Takes a task from accepted to launched. Commits the intent before anything runs.

use std::time::{Duration, Instant};

use super::{
    FIRST_PAUSE, Machine, Moment, Operation, Phase, Placed,
    commit::Then,
    doubled,
    not_launched::{not_launched, sandbox_gone},
    watch::Armed,
};
use errand_bridge::LaunchSettings;
use errand_runtime::RuntimeError;
use errand_task::{Event, Incarnation, TaskState};

/// How long a launch may show no sign of life before it is given up. The task is then fenced and reconciled.
const SILENCE: Duration = Duration::from_secs(30);
/// The same for a task that was asked to stop.
const SILENCE_WHEN_STOPPED: Duration = Duration::from_secs(2);

/// A launch in progress.
#[derive(Debug)]
pub(super) struct Launching {
    /// How long to wait before the next attempt, should this one fail.
    pause: Duration,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Waits for a permit and the sandbox.
    Placing,
    /// The intent is being committed, or the sandbox's memory kills are being counted.
    Preparing,
    /// Waits for the answer to the launch.
    Asking { give_up_at: Instant },
    /// Waits before the next attempt.
    Waiting { until: Instant },
}

impl Launching {
    /// Whether nothing but a permit and the sandbox is waited for.
    pub(super) fn is_placing(&self) -> bool {
        matches!(self.stage, Stage::Placing)
    }

    /// Whether the next attempt is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting { .. })
    }

    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Placing | Stage::Preparing => None,
            Stage::Asking { give_up_at: at } | Stage::Waiting { until: at } => Some(at),
        }
    }
}

impl Machine {
    /// Launches the command once it has a permit and a sandbox.
    pub(super) fn launch(&mut self, now: Moment) {
        self.release_hold();
        self.phase = Phase::Launching(Launching { pause: FIRST_PAUSE, stage: Stage::Placing });
        match self.reserved.take() {
            Some(incarnation) => self.commit_intent(incarnation, now),
            None => self.place(now),
        }
    }

    /// Waits for the permit and the sandbox, unless the task is asked to stop.
    pub(super) fn place(&mut self, now: Moment) {
        self.launching(Stage::Placing);
        if self.orders.order.is_some() {
            self.ordered_while_launching(now);
        } else {
            self.begin(Operation::Place);
        }
    }

    pub(super) fn placed(&mut self, placed: Placed, now: Moment) {
        let Phase::Launching(Launching { stage: Stage::Placing, .. }) = &self.phase else { return };
        match placed {
            Placed::Ready(incarnation) => {
                self.permit = super::Permit::Held;
                self.commit_intent(incarnation, now);
            }
            Placed::NotYet => self.launch_later(now),
            Placed::Never(reason) => self.close(sandbox_gone(&reason), None, now),
        }
    }

    fn commit_intent(&mut self, incarnation: Incarnation, now: Moment) {
        self.launching(Stage::Preparing);
        self.commit(Event::LaunchBegan { incarnation }, Then::Launch, now);
    }

    /// The intent is committed: from here on the command may run at any moment.
    pub(super) fn count_before_launch(&mut self) {
        self.begin(Operation::CountMemoryKills);
    }

    pub(super) fn ask_for_launch(&mut self, now: Moment) {
        self.clock.launched_at = Some(now.at);
        self.limit_permit(now);
        self.armed = Armed::of(&self.task.watches);
        let give_up_at = self.silent_until(now);
        self.launching(Stage::Asking { give_up_at });
        self.begin(Operation::Launch(LaunchSettings {
            grace: self.rules.stop_grace,
            quiet_after: self.rules.stall_after,
            look_every: self.rules.stall_check_interval,
        }));
    }

    pub(super) fn launched(&mut self, answer: Result<(), RuntimeError>, now: Moment) {
        let Phase::Launching(Launching { stage: Stage::Asking { .. }, .. }) = &self.phase else { return };
        match answer {
            Ok(()) => self.follow_launched(now),
            Err(RuntimeError::Uncertain { detail }) => {
                tracing::warn!(%detail, "it is not known whether the command was launched; looking");
                self.look(now);
            }
            Err(RuntimeError::Unavailable { detail }) => {
                tracing::warn!(%detail, "the command was not launched; trying again");
                self.release_permit();
                self.launch_later(now);
            }
            Err(error) => self.close(not_launched(&error), None, now),
        }
    }

    pub(super) fn ordered_while_launching(&mut self, now: Moment) {
        let Phase::Launching(launching) = &self.phase else { return };
        match (&launching.stage, self.orders.order.clone()) {
            (Stage::Placing, Some(order)) if self.task.state == TaskState::Queued => {
                self.commit(Event::StopRequested { cause: order.cause, at: now.wall }, Then::Finish, now);
            }
            // An earlier attempt failed part-way: reconciling makes sure that the command can no longer be launched.
            (Stage::Placing, Some(_)) => self.look(now),
            (Stage::Asking { .. }, _) => {
                let give_up_at = self.silent_until(now);
                self.launching(Stage::Asking { give_up_at });
            }
            (Stage::Placing | Stage::Preparing | Stage::Waiting { .. }, _) => {}
        }
    }

    pub(super) fn launch_tick(&mut self, now: Moment) {
        let Phase::Launching(launching) = &self.phase else { return };
        match launching.stage {
            Stage::Asking { give_up_at } if give_up_at <= now.at => {
                tracing::warn!("the launch was not answered; looking whether it happened");
                self.look(now);
            }
            // This launch shows no sign of life: release its permit, so that others can launch.
            Stage::Asking { .. } => {
                self.release_overdue_permit(now);
            }
            Stage::Waiting { until } if until <= now.at => self.place(now),
            Stage::Placing | Stage::Preparing | Stage::Waiting { .. } => {}
        }
    }

    /// When to give up waiting for a sign of life.
    pub(super) fn silent_until(&self, now: Moment) -> Instant {
        let launched_at = self.clock.launched_at.unwrap_or(now.at);
        let allowed = if self.orders.order.is_some() {
            now.at.saturating_duration_since(launched_at) + SILENCE_WHEN_STOPPED
        } else {
            SILENCE.min(self.task.spec.timeout + SILENCE_WHEN_STOPPED)
        };
        launched_at + allowed.min(SILENCE)
    }

    /// Waits before the next attempt. The command was certainly not launched.
    fn launch_later(&mut self, now: Moment) {
        if let Phase::Launching(launching) = &mut self.phase {
            launching.stage = Stage::Waiting { until: now.at + launching.pause };
            launching.pause = doubled(launching.pause);
        }
    }

    fn launching(&mut self, next: Stage) {
        if let Phase::Launching(Launching { stage, .. }) = &mut self.phase {
            *stage = next;
        }
    }
}
