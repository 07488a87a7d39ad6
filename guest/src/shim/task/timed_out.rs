//! The phase of a task whose timeout has expired: it ends when no process of it is left.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Body, Phase, running::Unrecorded};
use crate::{process, shim::link::Link};

/// The interval between kills of what is left of a timed-out command.
const KILL_AGAIN: Duration = Duration::from_millis(100);

/// The phase.
pub(super) struct TimedOut {
    pub(super) unrecorded: Unrecorded,
    /// How long the timeout was.
    after: Duration,
    /// The next signal, and when to send it.
    signal: Signal,
    due: Instant,
}

impl TimedOut {
    /// Sends the first signal at once.
    pub(super) fn begin(unrecorded: Unrecorded, after: Duration, now: Instant) -> Self {
        let signal = if unrecorded.grace.is_zero() { Signal::KILL } else { Signal::TERM };
        Self { unrecorded, after, signal, due: now }.on_time(now)
    }

    /// When to send the next signal.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Sends the signal that is due.
    pub(super) fn on_time(self, now: Instant) -> Self {
        if self.due > now {
            return self;
        }
        let wait = if self.signal == Signal::KILL { KILL_AGAIN } else { self.unrecorded.grace };
        process::send_to_all(&process::descendants(std::process::id()), self.signal);
        Self { signal: Signal::KILL, due: now + wait, ..self }
    }

    /// Reaps processes, and records the end when the last one has ended.
    pub(super) fn reap(mut self, body: &mut Body, links: &mut [Link]) -> Phase {
        if self.unrecorded.children.reap_all(body.process.pid).drained {
            let result = format!("timed_out {}", self.after.as_millis());
            return Phase::Recorded(self.unrecorded.end(body, links, result, true));
        }
        Phase::TimedOut(self)
    }
}
