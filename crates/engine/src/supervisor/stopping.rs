//! Stopping a command with everything that it has started: SIGTERM, the grace, SIGKILL.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{FIRST_PAUSE, Left, Supervisor};
use errand_runtime::RuntimeError;
use errand_task::{Event, Signal, StopCause, TaskState};

/// How often SIGTERM is sent at most while it may not have arrived.
const TERMS: u32 = 3;
/// How often a sandbox may refuse to be looked into before what a stopped command left in it is given up.
const REFUSALS: u32 = 5;
/// How long beyond its grace a command may take to end that is being stopped. The kernel ends a killed process within moments, unless it
/// waits for a device; a sandbox that tells no end for so long does not tell the truth, or nobody can know it.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A stop under way.
pub(super) struct Stopping {
    /// The next signal, and when to send it.
    next: (Signal, Instant),
    grace: Duration,
    /// How often SIGTERM may still be sent.
    terms: u32,
    /// When the command ought to have ended.
    overdue_at: Instant,
    /// Whether a signal may have reached a process of the command.
    reached: bool,
    /// A signal that is being sent.
    sending: Option<Sending>,
}

/// A signal on its way, and how many processes got it.
struct Sending {
    signal: Signal,
    sent: BoxFuture<'static, Result<u32, RuntimeError>>,
}

impl Stopping {
    /// When the command ought to have ended.
    pub(super) fn overdue_at(&self) -> Instant {
        self.overdue_at
    }

    /// Gives the command more time, for a while in which the runtime did not answer.
    pub(super) fn excuse(&mut self, outage: Duration) {
        self.overdue_at += outage;
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.sending.is_none().then_some(self.next.1)
    }

    /// Waits for a signal to be sent. Never, when none is being sent. Cancel safe.
    ///
    /// SIGTERM that may not have arrived is sent again, and the grace begins again with it: a command shall have all of it. Not without end,
    /// since what did arrive may have been answered too late.
    pub(super) async fn sent(&mut self) -> Result<u32, RuntimeError> {
        let Some(sending) = &mut self.sending else { return std::future::pending().await };
        let (signal, result) = (sending.signal, (&mut sending.sent).await);
        self.sending = None;
        // Without an answer it may have arrived all the same; and the count after SIGKILL is of what is left.
        self.reached |= signal == Signal::KILL || !matches!(result, Ok(0));
        if result.is_err() && signal == Signal::TERM && self.terms > 0 && !self.grace.is_zero() {
            self.next = (Signal::TERM, Instant::now() + FIRST_PAUSE);
        }
        result
    }
}

impl Supervisor {
    /// Begins to stop the command: stores the intent, or goes on without where it cannot be stored now, and lets the first signal be due at
    /// once.
    pub(super) async fn begin_stop(&mut self, cause: StopCause, grace: Duration) -> Result<(), Left> {
        // What an earlier server sent is not known.
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

    /// Sends the signal that is due.
    pub(super) fn send_signal(&mut self) {
        let process = self.process();
        let (bridge, sandbox, id) = (Arc::clone(&self.inner.bridge), self.sandbox.clone(), self.task.id);
        if let Some(stopping) = &mut self.stopping {
            let signal = stopping.next.0;
            let wait = if signal == Signal::KILL { FIRST_PAUSE } else { stopping.grace };
            stopping.next = (Signal::KILL, Instant::now() + wait);
            stopping.terms = stopping.terms.saturating_sub(1);
            let sent = Box::pin(async move { bridge.signal(&sandbox, id, process, Some(signal)).await });
            stopping.sending = Some(Sending { signal, sent });
        }
    }

    /// After the command itself has ended: gives what it started the rest of the grace, and kills what is left then. True when a signal may
    /// have reached the command before its end.
    pub(super) async fn clear_tree(&mut self) -> Result<bool, Left> {
        let mut pause = FIRST_PAUSE;
        let mut signal = None;
        let mut refusals = 0;
        if let Some(stopping) = self.stopping.as_mut().filter(|stopping| stopping.sending.is_some()) {
            // What is still on its way reaches what is left.
            tokio::select! {
                () = self.inner.leave.cancelled() => return Err(Left::Ending),
                _ = stopping.sent() => {}
            }
        }
        let reached = self.stopping.as_ref().is_none_or(|stopping| stopping.reached);
        let give_up_at = Instant::now() + self.stopping.as_ref().map_or(Duration::ZERO, |s| s.grace) + END_LIMIT;
        loop {
            let (bridge, process) = (Arc::clone(&self.inner.bridge), self.process());
            let sent = tokio::select! {
                () = self.inner.leave.cancelled() => return Err(Left::Ending),
                sent = bridge.signal(&self.sandbox, self.task.id, process, signal) => sent,
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
                // The command ended by itself before it was told to.
                Ok(_) if signal == Some(Signal::TERM) => {
                    let grace = self.stopping.as_ref().map_or(Duration::ZERO, |stopping| stopping.grace);
                    self.sleep_until(Instant::now() + grace).await?;
                    signal = Some(Signal::KILL);
                }
                // Something in it cannot be killed yet, such as a process in an uninterruptible wait.
                Ok(_) => self.pause(&mut pause).await?,
                Err(RuntimeError::Unavailable { .. } | RuntimeError::Uncertain { .. }) => {
                    let waited_enough = Instant::now() >= give_up_at;
                    if waited_enough && self.inner.runtime.inspect(&self.sandbox).await.is_ok() {
                        tracing::warn!("a sandbox does not tell what a stopped command left; that is left");
                        return Ok(reached);
                    }
                    self.pause(&mut pause).await?
                }
                // Without a running sandbox there is nothing left in it.
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
