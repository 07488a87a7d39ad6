//! Follows a command through an attachment: which deadlines there are, and what is done about them.

use std::time::{Duration, Instant, SystemTime};

use super::{Action, FIRST_PAUSE, Machine, Moment, Phase, commit::Then, pulse::Pulse, stall::Silence, stop::Stopping};
use errand_task::{Ending, Event, ProcessIdentity};

/// A launch reports the first and the last output by itself. A command that runs longer than this is followed in between as well.
const FOLLOW_AFTER: Duration = Duration::from_secs(1);

/// What is followed, and which deadlines are pending.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) stage: Stage,
    /// When to begin following new output.
    follow_at: Option<Instant>,
    /// When to check for a stall. None where the bridge reports process activity and has reported nothing that may be a stall.
    pub(super) stall_check_at: Option<Instant>,
    pub(super) silence: Silence,
    /// Whether the end of the output is being read to check for a stall. A commit would take the place of that.
    pub(super) reads_tail: bool,
    pub(super) pulse: Pulse,
    /// When this attachment to a command that ran already was made.
    attached_at: Option<Instant>,
}

/// What is known of the command that is followed.
#[derive(Debug)]
pub(super) enum Stage {
    /// It was launched and shows no sign of life. The launch is given up at this time.
    Silent { give_up_at: Instant },
    /// It was started, which is not committed yet: a command that ends soon needs one commit less.
    Begun { process: ProcessIdentity, at: SystemTime, commit_by: Instant },
    /// It runs. The server enforces the timeout at this time.
    Running { timeout_at: Option<Instant> },
    /// It has ended, and the rest of its log is awaited. The time of its start is there if that is not committed yet.
    Ended { ending: Ending, started_at: Option<SystemTime>, drain_by: Instant },
}

impl Stage {
    /// Whether the command runs or may run. A command that has ended by itself is no longer stopped or timed out, even if its log is still
    /// held open.
    fn runs(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::Begun { .. } | Self::Running { .. } => true,
            Self::Ended { .. } => false,
        }
    }
}

impl Machine {
    /// Follows a command that was just launched.
    pub(super) fn follow_launched(&mut self, now: Moment) {
        self.follow(Some(now.at + FOLLOW_AFTER), None, now);
    }

    /// Follows a command that ran already.
    pub(super) fn follow_attached(&mut self, now: Moment) {
        self.follow(None, Some(now.at), now);
    }

    fn follow(&mut self, follow_at: Option<Instant>, attached_at: Option<Instant>, now: Moment) {
        let stage = if self.must_fence() {
            Stage::Silent { give_up_at: self.silent_until(now) }
        } else {
            Stage::Running { timeout_at: self.timeout_at(now) }
        };
        let stall_check_at = (!self.guest_enforces_timeout).then_some(now.at + self.rules.stall_check_interval);
        let silence = Silence::new(now.at);
        let (reads_tail, pulse) = (false, Pulse::default());
        self.phase =
            Phase::Following(Following { stage, follow_at, stall_check_at, silence, reads_tail, pulse, attached_at });
        self.limit_permit(now);
        // A stop order may have arrived before there was a process to stop.
        self.orders.fresh = true;
        if self.stop_was_interrupted() {
            self.resume_stop(now);
        } else {
            self.follow_on(now);
        }
    }

    /// Continues after a commit, or with a new attachment.
    pub(super) fn follow_on(&mut self, now: Moment) {
        let timeout_at = self.timeout_at(now);
        let started = self.may_stop();
        if let Phase::Following(following) = &mut self.phase
            && matches!(following.stage, Stage::Begun { .. })
            && started
        {
            following.stage = Stage::Running { timeout_at };
            // An order may have come before there was a process to stop.
            self.orders.fresh = true;
        }
        self.schedule_pulse(now);
        self.follow_orders(now);
        self.tend_watches(now);
    }

    /// Handles a stop order that has not been handled yet. One that arrives between a start and its commit waits for the commit.
    pub(super) fn follow_orders(&mut self, now: Moment) {
        if self.storing.is_some() || !self.orders.fresh {
            return;
        }
        let Phase::Following(following) = &self.phase else { return };
        match following.stage {
            Stage::Begun { .. } | Stage::Ended { .. } => {}
            Stage::Silent { .. } => {
                self.orders.fresh = false;
                // There is no process to stop yet, and there may never be one.
                let give_up_at = self.silent_until(now);
                self.set_stage(Stage::Silent { give_up_at });
            }
            Stage::Running { .. } => {
                self.orders.fresh = false;
                if let Some(order) = self.orders.order.clone() {
                    self.begin_stop(order.cause, order.grace, now);
                }
            }
        }
    }

    pub(super) fn follow_due(&self, following: &Following) -> Option<Instant> {
        let (stage, timeout_at) = match following.stage {
            Stage::Silent { give_up_at: at }
            | Stage::Begun { commit_by: at, .. }
            | Stage::Ended { drain_by: at, .. } => (Some(at), None),
            Stage::Running { timeout_at } => (None, timeout_at),
        };
        let stopping = self.stopping.as_ref().filter(|_| following.stage.runs());
        let timeout = timeout_at.filter(|_| self.stopping.is_none());
        let (signal, overdue) = (stopping.and_then(Stopping::due), stopping.map(Stopping::overdue_at));
        let unsaved = self.unsaved.map(|unsaved| unsaved.retry_at).filter(|_| !following.reads_tail);
        let pulse = following.pulse.due().filter(|_| following.stage.runs() && !following.reads_tail);
        let others = [following.follow_at, following.stall_check_at, self.permit.due(), self.alert_due(following)];
        [stage, timeout, signal, overdue, unsaved, pulse].into_iter().chain(others).flatten().min()
    }

    /// Handles the most urgent deadline that has passed.
    pub(super) fn follow_tick(&mut self, now: Moment) {
        let Phase::Following(following) = &self.phase else { return };
        let alert_due = self.alert_due(following);
        let Phase::Following(following) = &mut self.phase else { return };
        let passed = |due: Option<Instant>| due.is_some_and(|at| at <= now.at);
        let (runs, reads_tail, pulse) = (following.stage.runs(), following.reads_tail, following.pulse);
        match &following.stage {
            Stage::Ended { drain_by, .. } if *drain_by <= now.at => return self.close_followed(now),
            Stage::Begun { commit_by, .. } if *commit_by <= now.at => return self.commit_start(Then::Proceed, now),
            Stage::Silent { .. } | Stage::Begun { .. } | Stage::Running { .. } | Stage::Ended { .. } => {}
        }
        if passed(following.follow_at) {
            following.follow_at = None;
            return self.actions.push(Action::FollowOutput);
        }
        if let Stage::Running { timeout_at } = following.stage
            && self.stopping.is_none()
            && passed(timeout_at)
        {
            tracing::info!(timeout = ?self.task.spec.timeout, "the time is up");
            return self.begin_stop_for_timeout(now);
        }
        if runs && passed(self.stopping.as_ref().and_then(Stopping::due)) {
            return self.send_signal(now);
        }
        if passed(following.stall_check_at) {
            return self.check_stall(now);
        }
        if passed(alert_due) {
            return self.tend_watches(now);
        }
        if self.release_overdue_permit(now) {
            return;
        }
        // Checked after the deadlines above, so that these do not wait for the store.
        if let Some(unsaved) = self.unsaved
            && unsaved.retry_at <= now.at
            && !reads_tail
        {
            return self.commit_unsaved(unsaved, now);
        }
        if runs && !reads_tail && passed(pulse.heartbeat_at) {
            return self.heartbeat(now);
        }
        if runs && !reads_tail && passed(pulse.idle_at) {
            return self.idle(now);
        }
        if runs && passed(self.stopping.as_ref().map(Stopping::overdue_at)) {
            return self.overdue(now);
        }
        if let Phase::Following(Following { stage: Stage::Silent { give_up_at }, .. }) = self.phase
            && give_up_at <= now.at
        {
            tracing::warn!("the launch shows no sign of life; looking whether it happened");
            self.look_after_following(now);
        }
    }

    /// Commits a start whose commit was delayed.
    pub(super) fn commit_start(&mut self, then: Then, now: Moment) {
        if let Phase::Following(Following { stage: Stage::Begun { process, at, .. }, .. }) = self.phase {
            self.commit(Event::Started { process, at }, then, now);
        }
    }

    /// Leaves the attachment and asks the sandbox what became of the command. Commits the start first, because it decides what the answer
    /// means.
    pub(super) fn look_after_following(&mut self, now: Moment) {
        self.actions.push(Action::Detach);
        let Phase::Following(following) = &self.phase else { return };
        if matches!(following.stage, Stage::Begun { .. }) {
            return self.commit_start(Then::Look, now);
        }
        match following.attached_at {
            Some(at) if now.at.saturating_duration_since(at) < FIRST_PAUSE => self.look_later(now),
            _ => self.look(now),
        }
    }

    /// Ends the task if the command has ended and all of its output was read. Output and reports travel separately, so either may finish
    /// first.
    pub(super) fn complete(&mut self, now: Moment) {
        if self.storing.is_none() && self.all_read() {
            self.close_followed(now);
        }
    }

    /// Ends the task with the ending that was reported. Does nothing if none was.
    pub(super) fn close_followed(&mut self, now: Moment) {
        if let Phase::Following(Following { stage: Stage::Ended { ending, started_at, .. }, .. }) = &self.phase {
            let (ending, started_at) = (ending.clone(), *started_at);
            self.actions.push(Action::Detach);
            self.close(ending, started_at, now);
        }
    }

    pub(super) fn set_stage(&mut self, stage: Stage) {
        if let Phase::Following(following) = &mut self.phase {
            following.stage = stage;
        }
    }
}
