//! Stops a command and every process that it started: SIGTERM, the grace, SIGKILL.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{FIRST_PAUSE, Left, Supervisor};
use errand_runtime::RuntimeError;
use errand_task::{Event, Signal, StopCause, TaskState};

/// How often SIGTERM is sent at most, as long as it may not have arrived.
const TERMS: u32 = 3;
/// How often a sandbox may refuse to be examined before the remaining processes of a stopped command are given up.
const REFUSALS: u32 = 5;
/// How long beyond its grace a command that is being stopped may take to end. The kernel ends a killed process within moments, unless the
/// process waits for a device. If a sandbox reports no end for this long, it is lying or the end cannot be known.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A stop in progress.
pub(super) struct Stopping {
    /// The next signal, and when to send it.
    next: (Signal, Instant),
    grace: Duration,
    /// How often SIGTERM may still be sent.
    terms: u32,
    /// When the command should have ended.
    overdue_at: Instant,
    /// Whether a signal may have reached a process of the command.
    reached: bool,
    /// The signal that is being sent.
    sending: Option<Sending>,
}

/// A signal that is being sent, and the future count of processes that received it.
struct Sending {
    signal: Signal,
    sent: BoxFuture<'static, Result<u32, RuntimeError>>,
}

impl Stopping {
    /// When the command should have ended.
    pub(super) fn overdue_at(&self) -> Instant {
        self.overdue_at
    }

    /// Extends the deadline by a period in which the runtime did not answer.
    pub(super) fn excuse(&mut self, outage: Duration) {
        self.overdue_at += outage;
    }

    /// When the next signal is due; none while one is being sent.
    pub(super) fn due(&self) -> Option<Instant> {
        self.sending.is_none().then_some(self.next.1)
    }

    /// Waits for the current signal to be sent. Never returns if none is being sent. Cancel safe.
    ///
    /// A SIGTERM that may not have arrived is sent again, and the grace starts over, so that the command gets all of it. The number of
    /// repetitions is limited, because an earlier SIGTERM may have arrived with only its answer lost.
    pub(super) async fn sent(&mut self) -> Result<u32, RuntimeError> {
        let Some(sending) = &mut self.sending else { return std::future::pending().await };
        let (signal, result) = (sending.signal, (&mut sending.sent).await);
        self.sending = None;
        // A signal without an answer may have arrived all the same. After SIGKILL, the count is of the remaining processes, so zero does
        // not mean that none was reached.
        self.reached |= signal == Signal::KILL || !matches!(result, Ok(0));
        if result.is_err() && signal == Signal::TERM && self.terms > 0 && !self.grace.is_zero() {
            self.next = (Signal::TERM, Instant::now() + FIRST_PAUSE);
        }
        result
    }
}

impl Supervisor {
    /// Begins to stop the command: stores the intent, or continues without it if the store fails, and makes the first signal due at once.
    pub(super) async fn begin_stop(&mut self, cause: StopCause, grace: Duration) -> Result<(), Left> {
        // Which signals an earlier server sent is not known.
        let reached = matches!(self.task.state, TaskState::Stopping { .. });
        self.commit(Event::StopRequested { cause, at: SystemTime::now() }).await?;
        let first = if grace.is_zero() { Signal::KILL } else { Signal::TERM };
        match &mut self.stopping {
            None => {
                let now = Instant::now();
                let (next, overdue_at) = ((first, now), now + grace + END_LIMIT);
                self.stopping = Some(Stopping { next, grace, terms: TERMS, overdue_at, reached, sending: None });
            }
            // A later order can only shorten the grace.
            Some(stopping) if grace < stopping.grace => {
                stopping.grace = grace;
                if stopping.next.0 == Signal::KILL || grace.is_zero() {
                    stopping.next = (Signal::KILL, stopping.next.1.min(Instant::now() + grace));
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Starts sending the signal that is due.
    pub(super) fn send_signal(&mut self) {
        let process = self.process();
        let (bridge, id) = (Arc::clone(&self.sandbox.bridge), self.task.id);
        if let Some(stopping) = &mut self.stopping {
            let signal = stopping.next.0;
            let wait = if signal == Signal::KILL { FIRST_PAUSE } else { stopping.grace };
            stopping.next = (Signal::KILL, Instant::now() + wait);
            stopping.terms = stopping.terms.saturating_sub(1);
            let sent = Box::pin(async move { bridge.signal(id, process, Some(signal)).await });
            stopping.sending = Some(Sending { signal, sent });
        }
    }

    /// Stops the processes that the command left behind: gives them the rest of the grace, then kills them. True when a signal may have
    /// reached the command before it ended.
    pub(super) async fn clear_tree(&mut self) -> Result<bool, Left> {
        let mut pause = FIRST_PAUSE;
        let mut signal = None;
        let mut refusals = 0;
        if let Some(stopping) = self.stopping.as_mut().filter(|stopping| stopping.sending.is_some()) {
            // A signal that is still being sent reaches the remaining processes.
            tokio::select! {
                () = self.inner.leave.cancelled() => return Err(Left::Ending),
                _ = stopping.sent() => {}
            }
        }
        let reached = self.stopping.as_ref().is_none_or(|stopping| stopping.reached);
        let give_up_at = Instant::now() + self.stopping.as_ref().map_or(Duration::ZERO, |s| s.grace) + END_LIMIT;
        loop {
            let (bridge, process) = (Arc::clone(&self.sandbox.bridge), self.process());
            let sent = tokio::select! {
                () = self.inner.leave.cancelled() => return Err(Left::Ending),
                sent = bridge.signal(self.task.id, process, signal) => sent,
            };
            match sent {
                Ok(0) => return Ok(reached),
                Ok(count) if Instant::now() >= give_up_at => {
                    tracing::warn!(count, "what a stopped command left cannot be ended, and is left");
                    return Ok(reached);
                }
                Ok(count) if signal.is_none() => {
                    tracing::debug!(count, "the command has ended and left processes");
                    let now = Instant::now();
                    let (next, due) = self.stopping.as_ref().map_or((Signal::KILL, now), |stopping| stopping.next);
                    self.sleep_until(due).await?;
                    signal = Some(next);
                }
                // The command ended by itself, so its processes get SIGTERM and the full grace now.
                Ok(_) if signal == Some(Signal::TERM) => {
                    let grace = self.stopping.as_ref().map_or(Duration::ZERO, |stopping| stopping.grace);
                    self.sleep_until(Instant::now() + grace).await?;
                    signal = Some(Signal::KILL);
                }
                // Some process cannot be killed yet, for example because it is in an uninterruptible wait.
                Ok(_) => self.pause(&mut pause).await?,
                Err(RuntimeError::Unavailable { .. } | RuntimeError::Uncertain { .. }) => {
                    let waited_enough = Instant::now() >= give_up_at;
                    if waited_enough && self.sandbox.inspect().await.is_ok() {
                        tracing::warn!("a sandbox does not tell what a stopped command left; that is left");
                        return Ok(reached);
                    }
                    self.pause(&mut pause).await?
                }
                // A sandbox that does not run has no processes left.
                Err(RuntimeError::NoSuchSandbox { .. } | RuntimeError::NotRunning { .. }) => return Ok(reached),
                Err(error) => {
                    tracing::warn!(%error, "what a stopped command left could not be looked for");
                    refusals += 1;
                    if refusals == REFUSALS {
                        return Ok(reached);
                    }
                    self.pause(&mut pause).await?;
                }
            }
        }
    }
}
