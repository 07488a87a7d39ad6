//! Stops a command and every process that it started: SIGTERM, the grace, SIGKILL.

use std::time::{Duration, Instant};

use super::{ANSWER_LIMIT, Action, FIRST_PAUSE, Machine, Moment, Phase, commit::Then};
use errand_runtime::RuntimeError;
use errand_task::{Ending, Event, LossReason, Signal, StopCause, TaskState};

/// How often SIGTERM is sent at most, as long as it may not have arrived.
const TERMS: u32 = 3;
/// How long beyond its grace a command that is being stopped may take to end. The kernel ends a killed process within moments, unless the
/// process waits for a device. If a sandbox reports no end for this long, it is lying or the end cannot be known.
pub(super) const END_LIMIT: Duration = Duration::from_secs(30);

/// A stop in progress.
#[derive(Debug)]
pub(super) struct Stopping {
    /// The next signal, and when to send it.
    pub(super) next: (Signal, Instant),
    pub(super) grace: Duration,
    /// How often SIGTERM may still be sent.
    terms: u32,
    /// When the command should have ended.
    overdue_at: Instant,
    /// Whether the sandbox was asked about the command after that.
    asked: bool,
    /// Whether a signal may have reached a process of the command.
    pub(super) reached: bool,
    /// The signal that is being sent.
    sending: Option<Signal>,
}

impl Stopping {
    fn new(grace: Duration, reached: bool, now: Moment) -> Self {
        let first = if grace.is_zero() { Signal::KILL } else { Signal::TERM };
        let (next, overdue_at) = ((first, now.at), now.at + grace + END_LIMIT);
        Self { next, grace, terms: TERMS, overdue_at, asked: false, reached, sending: None }
    }

    /// When the command should have ended.
    pub(super) fn overdue_at(&self) -> Instant {
        self.overdue_at
    }

    /// Allows one question about a command that should have ended, and the time for its answer. False if it was asked already.
    fn ask_once(&mut self, now: Moment) -> bool {
        self.overdue_at = now.at + ANSWER_LIMIT;
        !std::mem::replace(&mut self.asked, true)
    }

    /// Extends the deadline by a period in which the runtime did not answer.
    pub(super) fn excuse(&mut self, outage: Duration) {
        self.overdue_at += outage;
    }

    /// When the next signal is due; none while one is being sent.
    pub(super) fn due(&self) -> Option<Instant> {
        self.sending.is_none().then_some(self.next.1)
    }

    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// A later order can only shorten the grace.
    fn hurry(&mut self, grace: Duration, now: Moment) {
        if grace < self.grace {
            self.grace = grace;
            if self.next.0 == Signal::KILL || grace.is_zero() {
                self.next = (Signal::KILL, self.next.1.min(now.at + grace));
            }
        }
    }

    /// The signal that is due is being sent from now on. SIGKILL follows it.
    fn send(&mut self, now: Moment) -> Signal {
        let signal = self.next.0;
        let wait = if signal == Signal::KILL { FIRST_PAUSE } else { self.grace };
        self.next = (Signal::KILL, now.at + wait);
        self.terms = self.terms.saturating_sub(1);
        self.sending = Some(signal);
        signal
    }

    /// The signal was sent, with this answer.
    ///
    /// A SIGTERM that may not have arrived is sent again, and the grace starts over, so that the command gets all of it. The number of
    /// repetitions is limited, because an earlier SIGTERM may have arrived with only its answer lost.
    fn sent(&mut self, answer: &Result<u32, RuntimeError>, now: Moment) {
        let Some(signal) = self.sending.take() else { return };
        // A signal without an answer may have arrived all the same. After SIGKILL, the count is of the remaining processes, so zero does
        // not mean that none was reached.
        self.reached |= signal == Signal::KILL || !matches!(answer, Ok(0));
        if answer.is_err() && signal == Signal::TERM && self.terms > 0 && !self.grace.is_zero() {
            self.next = (Signal::TERM, now.at + FIRST_PAUSE);
        }
    }
}

impl Machine {
    /// Begins to stop the command: stores the intent, or continues without it if the store fails, and makes the first signal due at once.
    pub(super) fn begin_stop(&mut self, cause: StopCause, grace: Duration, now: Moment) {
        // Which signals an earlier server sent is not known.
        let reached = matches!(self.task.state, TaskState::Stopping { .. });
        self.commit(Event::StopRequested { cause, at: now.wall }, Then::BeginStop { grace, reached }, now);
    }

    pub(super) fn begin_stop_for_timeout(&mut self, now: Moment) {
        let cause = StopCause::Timeout { after: self.task.spec.timeout };
        self.begin_stop(cause, self.rules.stop_grace, now);
    }

    /// Whether an earlier server began a stop that this one has not resumed.
    pub(super) fn stop_was_interrupted(&self) -> bool {
        matches!(self.task.state, TaskState::Stopping { .. }) && self.stopping.is_none()
    }

    /// Resumes a stop that a restart interrupted. The record keeps its cause.
    pub(super) fn resume_stop(&mut self, now: Moment) {
        self.begin_stop(StopCause::ServerShutdown, self.rules.stop_grace, now);
    }

    pub(super) fn schedule_stop(&mut self, grace: Duration, reached: bool, now: Moment) {
        match &mut self.stopping {
            None => self.stopping = Some(Stopping::new(grace, reached, now)),
            Some(stopping) => stopping.hurry(grace, now),
        }
    }

    /// The attachment reports no end of a command that should have ended. Perhaps only the attachment is silent, so the sandbox is asked once.
    pub(super) fn overdue(&mut self, now: Moment) {
        if self.stopping.as_mut().is_some_and(|stopping| stopping.ask_once(now)) {
            tracing::warn!("no end of a killed command was reported; asking the sandbox");
            return self.look_after_following(now);
        }
        tracing::warn!("the sandbox reports no end of a killed command; its task is given up");
        self.actions.push(Action::Detach);
        self.close(Ending::lost(LossReason::SandboxUnresponsive), None, now);
    }

    /// Starts sending the signal that is due.
    pub(super) fn send_signal(&mut self, now: Moment) {
        let process = self.process();
        if let Some(stopping) = &mut self.stopping {
            let signal = stopping.send(now);
            self.actions.push(Action::Signal { process, signal });
        }
    }

    pub(super) fn signalled(&mut self, answer: Result<u32, RuntimeError>, now: Moment) {
        if let Some(stopping) = &mut self.stopping {
            stopping.sent(&answer, now);
        }
        match answer {
            Ok(count) => tracing::debug!(count, "signalled"),
            Err(error) => tracing::warn!(%error, "a signal could not be sent; it is sent again"),
        }
        match &self.phase {
            Phase::Looking(_) => self.signalled_unseen(now),
            Phase::Closing(_) => self.signalled_while_closing(now),
            Phase::Idle
            | Phase::Queueing(_)
            | Phase::Launching(_)
            | Phase::Attaching(_)
            | Phase::Following(_)
            | Phase::Over => {}
        }
    }
}
