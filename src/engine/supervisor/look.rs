//! Finding out what became of a command when nothing is heard of it.

use std::time::SystemTime;

use tokio::time::Instant;

use super::{FIRST_PAUSE, Left, Step, Supervisor, stopping::Stopping};
use crate::{
    bridge::Finding,
    engine::verdict::{Verdict, verdict},
    runtime::{Found, RuntimeError},
    task::{Ending, Event, LossReason, ProcessIdentity, Signal, StopCause, TaskState},
};

/// Stands for a process whose identity was not recorded, because the sandbox's disk was full.
const UNRECORDED: ProcessIdentity = ProcessIdentity { pid: 0, start_ticks: 0 };

impl Supervisor {
    /// Looks until it is clear how to go on, for as long as the engine does not answer.
    pub(super) async fn look(&mut self) -> Result<Step, Left> {
        self.permit = None;
        let mut pause = FIRST_PAUSE;
        let mut sure = false;
        loop {
            let (answers, looked) = match self.inner.runtime.inspect(&self.sandbox).await {
                Ok(found) => (true, self.look_into(found, sure).await),
                Err(RuntimeError::NoSuchSandbox { .. }) => return Ok(lost(LossReason::SandboxRemoved)),
                Err(error) => (false, Err(error)),
            };
            match looked {
                Ok(Some(step)) => return Ok(step),
                // A second apart, so that a process that was about to write the exit file has written it.
                Ok(None) => {
                    self.pause(&mut FIRST_PAUSE.clone()).await?;
                    sure = true;
                }
                Err(error) => {
                    tracing::warn!(%error, "the sandbox cannot be looked into; trying again");
                    self.stop_unseen(answers).await?;
                    self.pause(&mut pause).await?;
                }
            }
        }
    }

    /// Goes on stopping a command that cannot be looked at: a sandbox at its limit of processes answers no question, but takes a signal.
    /// Where the runtime itself does not answer, nothing is sent.
    async fn stop_unseen(&mut self, runtime_answers: bool) -> Result<(), Left> {
        if !self.may_stop() {
            return Ok(());
        }
        let order = self.orders.borrow().clone();
        if let Some(order) = order {
            self.begin_stop(order.cause, order.grace).await?;
        } else if self.timeout_at().is_some_and(|at| at <= Instant::now()) {
            let cause = StopCause::Timeout { after: self.task.spec.timeout };
            self.begin_stop(cause, self.inner.settings.stop_grace).await?;
        }
        if !runtime_answers {
            return Ok(());
        }
        if self.stopping.as_ref().and_then(Stopping::due).is_some_and(|at| at <= Instant::now()) {
            self.send_signal();
        }
        if let Some(stopping) = self.stopping.as_mut().filter(|stopping| stopping.due().is_none()) {
            let sent = stopping.sent().await;
            tracing::info!(?sent, "a command that cannot be looked at is signalled");
        }
        Ok(())
    }

    async fn look_into(&mut self, found: Found, sure: bool) -> Result<Option<Step>, RuntimeError> {
        if found.paused {
            // Its processes are all there; they can be asked when they run again.
            return Err(RuntimeError::NotRunning { id: self.sandbox.clone() });
        }
        if !found.running {
            // One that is being restarted or removed is seen like this on its way.
            return Ok(sure.then(|| lost(LossReason::SandboxStopped)));
        }
        let asked = [(self.task.id, self.task.nonce)];
        let findings = self.inner.bridge.probe(&self.sandbox, &asked, self.must_fence()).await?;
        match findings.first() {
            Some(finding) => Ok(self.judge(&found, finding, sure).await),
            None => Ok(None),
        }
    }

    /// A launch of which nothing is known must not happen any more once it was looked for.
    pub(in crate::engine) fn must_fence(&self) -> bool {
        matches!(self.task.state, TaskState::Starting { .. })
    }

    /// What a finding means; none when it is too early to tell.
    pub(in crate::engine) async fn judge(&mut self, found: &Found, finding: &Finding, sure: bool) -> Option<Step> {
        let restarted = self.task.state.incarnation().is_some_and(|incarnation| *incarnation != found.incarnation);
        self.output_is(finding.output_bytes, finding.incomplete, finding.gap);
        self.task.usage = finding.usage.or(self.task.usage);
        let made = finding.process.map(|(_, made)| made);
        match verdict(&self.task.state, restarted, finding, sure) {
            Verdict::End(ending) => Some(Step::End(ending, made)),
            Verdict::KillAndEnd(ending) => {
                let process = finding.process.map(|(process, _)| process).or(self.task.state.process());
                let process = process.filter(|process| *process != UNRECORDED);
                let killed = self.inner.bridge.signal(&self.sandbox, self.task.id, process, Some(Signal::KILL)).await;
                match killed {
                    Ok(count) => tracing::info!(count, "killed what an unwatched command had left"),
                    Err(error) => tracing::warn!(%error, "what an unwatched command left could not be killed"),
                }
                Some(Step::End(ending, made))
            }
            Verdict::Follow(process) => {
                let (process, at) = process.unwrap_or((UNRECORDED, SystemTime::now()));
                match self.commit(Event::Started { process, at }).await {
                    Ok(()) => Some(Step::Attach),
                    // The server ends; the next step notices.
                    Err(Left) => None,
                }
            }
            Verdict::LookAgain => None,
        }
    }

    /// The process to signal, if its identity is known.
    pub(super) fn process(&self) -> Option<ProcessIdentity> {
        self.task.state.process().filter(|process| *process != UNRECORDED)
    }
}

/// The end of a task for whose sandbox there is no hope.
pub(in crate::engine) fn lost(reason: LossReason) -> Step {
    Step::End(Ending::lost(reason), None)
}
