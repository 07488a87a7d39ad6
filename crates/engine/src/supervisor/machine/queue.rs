//! Waits until the bot and the tenant have room for the task, for at most the task's queue deadline.

use std::time::{Duration, Instant};

use super::{Action, FIRST_PAUSE, Machine, Moment, Operation, Phase, commit::Then, doubled, messages::Admission};
use errand_task::{Ending, Event, StartFailure};

/// A task that waits for room.
#[derive(Debug)]
pub(super) struct Queueing {
    /// When the task gives up; none: never.
    until: Option<Instant>,
    /// How long to wait before the store is asked again, should it fail.
    pause: Duration,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Others come first.
    AwaitingTurn,
    /// The store is asked whether there is room.
    Admitting,
    /// The store failed: it is asked again at this time. The task keeps its turn.
    Waiting(Instant),
}

impl Queueing {
    /// Whether nothing is under way that a commit would disturb.
    pub(super) fn awaits_turn(&self) -> bool {
        matches!(self.stage, Stage::AwaitingTurn)
    }

    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::AwaitingTurn => self.until,
            Stage::Admitting => None,
            Stage::Waiting(at) => [Some(at), self.until].into_iter().flatten().min(),
        }
    }
}

impl Machine {
    /// The task has waited for so long already, before this server or this supervisor.
    pub(crate) fn waited(&mut self, waited: Duration) {
        self.waited = waited;
    }

    /// Waits for the task's turn.
    pub(super) fn queue(&mut self, now: Moment) {
        self.release_hold();
        let left = self.task.spec.queue_deadline().map(|deadline| deadline.saturating_sub(self.waited));
        let until = left.and_then(|left| now.at.checked_add(left));
        self.phase = Phase::Queueing(Queueing { until, pause: FIRST_PAUSE, stage: Stage::AwaitingTurn });
        self.await_turn(now);
    }

    /// Waits for the turn; again, if a commit interrupted the wait.
    pub(super) fn await_turn(&mut self, now: Moment) {
        self.queueing(Stage::AwaitingTurn);
        if self.orders.order.is_some() {
            self.ordered_while_queueing(now);
        } else {
            self.begin(Operation::AwaitTurn);
        }
    }

    /// The task's turn has come.
    pub(super) fn turn_has_come(&mut self) {
        if let Phase::Queueing(Queueing { stage: Stage::AwaitingTurn, .. }) = self.phase
            && self.storing.is_none()
        {
            self.ask_for_room();
        }
    }

    fn ask_for_room(&mut self) {
        let mut task = Box::new(self.task.clone());
        task.apply(Event::Admitted);
        self.queueing(Stage::Admitting);
        self.begin(Operation::Admit { task });
    }

    pub(super) fn admission(&mut self, admission: Admission, now: Moment) {
        let Phase::Queueing(queueing) = &mut self.phase else { return };
        match admission {
            Admission::Admitted(task) => {
                self.task = *task;
                self.launch(now);
            }
            Admission::NoRoom => self.await_turn(now),
            Admission::Failed => {
                queueing.stage = Stage::Waiting(now.at + queueing.pause);
                queueing.pause = doubled(queueing.pause);
                if self.orders.order.is_some() {
                    self.ordered_while_queueing(now);
                }
            }
        }
    }

    /// Ends the task, which was never launched. While the store is asked for admission, its answer comes first.
    pub(super) fn ordered_while_queueing(&mut self, now: Moment) {
        let Phase::Queueing(queueing) = &self.phase else { return };
        match (queueing.stage, self.orders.order.clone()) {
            (Stage::AwaitingTurn | Stage::Waiting(_), Some(order)) => {
                self.actions.push(Action::LeaveQueue);
                self.commit(Event::StopRequested { cause: order.cause, at: now.wall }, Then::Finish, now);
            }
            (Stage::Admitting, _) | (_, None) => {}
        }
    }

    pub(super) fn queue_tick(&mut self, now: Moment) {
        let Phase::Queueing(queueing) = &self.phase else { return };
        match queueing.stage {
            Stage::Admitting => {}
            Stage::AwaitingTurn | Stage::Waiting(_) if queueing.until.is_some_and(|at| at <= now.at) => {
                self.actions.push(Action::LeaveQueue);
                self.close(waited_too_long(self.task.spec.queue_deadline().unwrap_or_default()), None, now);
            }
            Stage::Waiting(at) if at <= now.at => self.ask_for_room(),
            Stage::AwaitingTurn | Stage::Waiting(_) => {}
        }
    }

    fn queueing(&mut self, next: Stage) {
        if let Phase::Queueing(Queueing { stage, .. }) = &mut self.phase {
            *stage = next;
        }
    }
}

/// The end of a task that waited in vain.
fn waited_too_long(deadline: Duration) -> Ending {
    let deadline = humantime::format_duration(deadline);
    Ending::FailedToStart {
        failure: StartFailure::QueueDeadline,
        errno: None,
        message: format!(
            "waited in the queue for {deadline}, its queue deadline, and the bot or the tenant had no room for it"
        ),
    }
}
