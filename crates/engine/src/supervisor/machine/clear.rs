//! Ends the processes that a stopped command left behind: gives them the rest of the grace, then kills them.

use std::time::{Duration, Instant};

use super::{
    FIRST_PAUSE, Machine, Moment, Operation, Phase, doubled,
    end::{Closing, Stage},
    stop::END_LIMIT,
};
use errand_runtime::{Found, RuntimeError};
use errand_task::Signal;

/// How often a sandbox may refuse to be examined before the remaining processes of a stopped command are given up.
const REFUSALS: u32 = 5;

/// The remaining processes of a command are being ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clearing {
    /// The signal to send; none: only count the processes.
    signal: Option<Signal>,
    give_up_at: Instant,
    pause: Duration,
    refusals: u32,
    /// When to ask next; none while the sandbox is being asked.
    ask_at: Option<Instant>,
}

impl Clearing {
    pub(super) fn due(&self) -> Option<Instant> {
        self.ask_at
    }

    fn ask_later(mut self, now: Moment) -> Self {
        self.ask_at = Some(now.at + self.pause);
        self.pause = doubled(self.pause);
        self
    }
}

impl Machine {
    /// Begins with counting. A command that ended before any signal reached it ended by itself.
    pub(super) fn count_remaining(&mut self, now: Moment) {
        let stopping = self.stopping.as_ref();
        let reached = stopping.is_none_or(|stopping| stopping.reached);
        let give_up_at = now.at + stopping.map_or(Duration::ZERO, |stopping| stopping.grace) + END_LIMIT;
        if let Phase::Closing(closing) = &mut self.phase {
            closing.signalled = reached;
        }
        self.ask(Clearing { signal: None, give_up_at, pause: FIRST_PAUSE, refusals: 0, ask_at: None });
    }

    fn ask(&mut self, clearing: Clearing) {
        let (process, signal) = (self.process(), clearing.signal);
        self.closing(Stage::Clearing(Clearing { ask_at: None, ..clearing }));
        self.begin(Operation::Clear { process, signal, limit: None });
    }

    pub(super) fn clear_tick(&mut self, now: Moment) {
        if let Phase::Closing(Closing { stage: Stage::Clearing(clearing), .. }) = self.phase
            && clearing.ask_at.is_some_and(|at| at <= now.at)
        {
            self.ask(clearing);
        }
    }

    pub(super) fn cleared(&mut self, answer: Result<u32, RuntimeError>, now: Moment) {
        if matches!(self.phase, Phase::Looking(_)) {
            return self.killed(&answer, now);
        }
        let Phase::Closing(Closing { stage: Stage::Clearing(mut clearing), .. }) = self.phase else { return };
        let waited_enough = now.at >= clearing.give_up_at;
        match answer {
            Ok(0) => return self.sum_up(now),
            Ok(count) if waited_enough => {
                tracing::warn!(count, "what a stopped command left cannot be ended, and is left");
                return self.sum_up(now);
            }
            Ok(count) if clearing.signal.is_none() => {
                tracing::debug!(count, "the command has ended and left processes");
                let (next, at) = self.stopping.as_ref().map_or((Signal::KILL, now.at), |stopping| stopping.next);
                (clearing.signal, clearing.ask_at) = (Some(next), Some(at));
            }
            // The command ended by itself, so its processes get SIGTERM and the full grace now.
            Ok(_) if clearing.signal == Some(Signal::TERM) => {
                let grace = self.stopping.as_ref().map_or(Duration::ZERO, |stopping| stopping.grace);
                (clearing.signal, clearing.ask_at) = (Some(Signal::KILL), Some(now.at + grace));
            }
            // Some process cannot be killed yet, for example because it is in an uninterruptible wait.
            Ok(_) => clearing = clearing.ask_later(now),
            Err(RuntimeError::Unavailable { .. } | RuntimeError::Uncertain { .. }) if waited_enough => {
                self.begin(Operation::Inspect);
            }
            Err(RuntimeError::Unavailable { .. } | RuntimeError::Uncertain { .. }) => {
                clearing = clearing.ask_later(now);
            }
            // A sandbox that does not run has no processes left.
            Err(RuntimeError::NoSuchSandbox { .. } | RuntimeError::NotRunning { .. }) => return self.sum_up(now),
            Err(error) => {
                tracing::warn!(%error, "what a stopped command left could not be looked for");
                clearing.refusals += 1;
                if clearing.refusals == REFUSALS {
                    return self.sum_up(now);
                }
                clearing = clearing.ask_later(now);
            }
        }
        self.closing(Stage::Clearing(clearing));
    }

    /// The runtime was asked about a sandbox that has not answered for long enough.
    pub(super) fn inspected_while_clearing(&mut self, answer: &Result<Found, RuntimeError>, now: Moment) {
        let Phase::Closing(Closing { stage: Stage::Clearing(clearing), .. }) = self.phase else { return };
        if answer.is_ok() {
            tracing::warn!("a sandbox does not tell what a stopped command left; that is left");
            return self.sum_up(now);
        }
        self.closing(Stage::Clearing(clearing.ask_later(now)));
    }
}
