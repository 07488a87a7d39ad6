//! Commits changes of the record. A terminal state is announced in the same transaction.
//!
//! An intent and the end of a task are retried until they are committed: a change that is not committed has not happened. An event that
//! reports what has already happened in the sandbox, or that a stop was asked for, is true even if it cannot be stored: while the store
//! fails, only this machine knows of it.

use std::time::{Duration, Instant};

use super::{Action, FIRST_PAUSE, Machine, Moment, Notice, Operation, doubled};
use crate::alerts::News;
use errand_store::StoreError;
use errand_task::{Event, NotificationKind, Task, TaskState};

/// A commit in progress. Until it is over, nothing else is handled.
#[derive(Debug)]
pub(super) struct Storing {
    task: Box<Task>,
    notice: Option<Notice>,
    /// The number of the policy order that the record holds, if it is not stored yet.
    policy: Option<u64>,
    effort: Effort,
    then: Then,
}

/// What to do when the store fails.
#[derive(Debug)]
enum Effort {
    /// Try again until it succeeds, next after `pause`. The time is that of the next attempt, while none is under way.
    UntilStored { pause: Duration, retry_at: Option<Instant> },
    /// Continue with the changed record, and store it later.
    GoOn,
    /// Continue with the record as it was.
    LeaveIt,
    /// The record is newer than what is stored; the last wait between two attempts was `pause`.
    CatchUp { pause: Duration },
}

/// How to continue after a commit.
#[derive(Debug)]
pub(super) enum Then {
    /// Launch the command.
    Launch,
    /// Wait for the permit and the sandbox again.
    Place,
    /// Ask the sandbox what became of the command.
    Look,
    /// Attach to the command.
    Attach,
    /// Begin to signal the command. `reached`: a signal may have reached it already.
    BeginStop { grace: Duration, reached: bool },
    /// Continue in the phase that the commit interrupted.
    Proceed,
    /// The same, after a notice about a stall.
    StallTold,
    /// The same, after a notice about watches that was based on this revision.
    WatchTold { news: News, revision: i64 },
    /// The same, after the watches were to be replaced by this set.
    WatchesReplaced { set: u32 },
    /// The same, and end the task if all of its output was read.
    Complete,
    /// The task is over.
    Finish,
}

/// When to retry storing a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsaved {
    pub(super) retry_at: Instant,
    pause: Duration,
}

impl Unsaved {
    /// The first retry, after the first failure.
    fn since(now: Moment) -> Self {
        Self { retry_at: now.at + FIRST_PAUSE, pause: FIRST_PAUSE }
    }
}

impl Storing {
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.effort {
            Effort::UntilStored { retry_at, .. } => *retry_at,
            Effort::GoOn | Effort::LeaveIt | Effort::CatchUp { .. } => None,
        }
    }
}

impl Machine {
    /// Applies an event to the record and commits it, then continues.
    pub(super) fn commit(&mut self, event: Event, then: Then, now: Moment) {
        let mut task = self.draft(now);
        if !task.apply(event) {
            return self.go_on(then, now);
        }
        let retried = Effort::UntilStored { pause: FIRST_PAUSE, retry_at: None };
        let (effort, kind) = match task.state {
            TaskState::Finished { .. } => {
                (retried, task.notify.announces(task.status()).then_some(NotificationKind::Completed))
            }
            TaskState::AwaitingRoom | TaskState::Queued | TaskState::Starting { .. } => (retried, None),
            TaskState::Running { .. } | TaskState::Stopping { .. } => (Effort::GoOn, None),
        };
        let held_back = if task.status().is_terminal() { self.alerts.finish(&mut task.watches) } else { 0 };
        let notice = kind.map(|kind| Notice { held_back, ..Notice::new(kind, now) });
        self.store(self.storing(task, notice, effort, then));
    }

    /// Tries once to commit a changed record, made with [`Machine::draft`], and a notification about it. On failure, everything stays as it
    /// was. Does not try while the store is known to fail.
    pub(super) fn try_commit(&mut self, task: Task, notice: Option<Notice>, then: Then, now: Moment) {
        if self.unsaved.is_some() {
            return self.go_on(then, now);
        }
        self.store(self.storing(task, notice, Effort::LeaveIt, then));
    }

    /// Tries to commit a record that is newer than what is stored.
    pub(super) fn commit_unsaved(&mut self, unsaved: Unsaved, now: Moment) {
        let (task, effort) = (self.draft(now), Effort::CatchUp { pause: unsaved.pause });
        self.store(self.storing(task, None, effort, Then::Proceed));
    }

    fn storing(&self, task: Task, notice: Option<Notice>, effort: Effort, then: Then) -> Storing {
        Storing { task: Box::new(task), notice, policy: self.policy.map(|order| order.number), effort, then }
    }

    /// Makes the next attempt of a commit that is retried.
    pub(super) fn store_again(&mut self, now: Moment) {
        if let Some(mut storing) = self.storing.take() {
            if let Effort::UntilStored { retry_at, .. } = &mut storing.effort
                && retry_at.is_some_and(|at| at <= now.at)
            {
                *retry_at = None;
                return self.store(storing);
            }
            self.storing = Some(storing);
        }
    }

    /// Takes in the store's answer.
    pub(super) fn stored(&mut self, result: Result<Box<Task>, StoreError>, now: Moment) {
        let Some(Storing { task, notice, policy, effort, then }) = self.storing.take() else { return };
        let error = match result {
            Ok(stored) => {
                self.unsaved = None;
                self.task = *stored;
                if let Some(number) = policy {
                    self.policy_stored(number);
                }
                return self.go_on(then, now);
            }
            Err(error) => error,
        };
        let source = &error as &dyn std::error::Error;
        match effort {
            Effort::UntilStored { pause, .. } => {
                tracing::error!(error = source, "a task's record could not be stored; trying again");
                let effort = Effort::UntilStored { pause: doubled(pause), retry_at: Some(now.at + pause) };
                self.storing = Some(Storing { task, notice, policy, effort, then });
                return;
            }
            Effort::GoOn => {
                let status = task.status().word();
                tracing::error!(
                    error = source,
                    status,
                    "a task's record could not be stored; going on without, and trying again"
                );
                self.keep_unsaved(task, now);
            }
            Effort::LeaveIt => {
                let kind = notice.map(|notice| notice.kind);
                tracing::error!(
                    error = source,
                    ?kind,
                    "a notice could not be stored; it is tried again when it is due again"
                );
                self.unsaved = Some(Unsaved::since(now));
            }
            Effort::CatchUp { pause } => {
                tracing::debug!(%error, "a task's record still cannot be stored");
                let pause = doubled(pause);
                self.unsaved = Some(Unsaved { retry_at: now.at + pause, pause });
            }
        }
        self.go_on(then, now);
    }

    fn store(&mut self, storing: Storing) {
        let (task, notice) = (storing.task.clone(), storing.notice.clone());
        self.begin(Operation::Store { task, notice, log_bytes: self.output.log_bytes });
        self.storing = Some(storing);
    }

    /// Continues with a record that could not be stored.
    fn keep_unsaved(&mut self, mut task: Box<Task>, now: Moment) {
        task.output.bytes = self.output.end.max(self.output.log_bytes);
        self.task.clone_from(&task);
        self.actions.push(Action::Publish { task, log_bytes: self.output.log_bytes });
        self.unsaved.get_or_insert(Unsaved::since(now));
    }
}
