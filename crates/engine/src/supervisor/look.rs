//! Reconciles a task with its sandbox: finds out what became of a command when no attachment reports on it.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};

use super::{ANSWER_LIMIT, FIRST_PAUSE, Left, Step, Supervisor, stopping::Stopping};
use crate::verdict::{Verdict, verdict};
use errand_bridge::Finding;
use errand_runtime::{Found, RuntimeError};
use errand_task::{
    Ending, Event, LossReason, ProcessIdentity, Signal, StopCause, TaskState,
    sentinel::{self, Sentinel},
};

/// Stands for a process whose identity was not recorded because the sandbox's disk was full.
const UNRECORDED: ProcessIdentity = ProcessIdentity { pid: 0, start_ticks: 0 };

/// How long a running sandbox may leave questions about a task unanswered once the task has to end. A bridge process starts much faster
/// than this, even on a busy machine.
const DEAF_LIMIT: Duration = Duration::from_secs(30);

/// Why a sandbox could not be examined.
enum Obstacle {
    /// The runtime does not answer, or the sandbox is paused. This can last arbitrarily long.
    Runtime(RuntimeError),
    /// The sandbox runs and does not answer.
    Sandbox(RuntimeError),
}

impl Supervisor {
    /// Repeats until the next step is clear, for as long as the runtime does not answer. Gives up on a sandbox that does not answer once
    /// the task has to end.
    pub(super) async fn look(&mut self) -> Result<Step, Left> {
        self.permit = None;
        let mut pause = FIRST_PAUSE;
        let mut sure = false;
        loop {
            let begun = Instant::now();
            let leave = self.inner.leave.clone();
            let looked = tokio::select! {
                () = leave.cancelled() => return Err(Left::Ending),
                looked = self.look_once(sure) => looked?,
            };
            match looked {
                Ok(Some(step)) => return Ok(step),
                // The second look comes one second later, so that a process that was about to write the exit file has written it.
                Ok(None) => {
                    self.pause(&mut FIRST_PAUSE.clone()).await?;
                    sure = true;
                }
                Err(Obstacle::Runtime(error)) => {
                    tracing::warn!(%error, "the sandbox cannot be looked at; trying again");
                    if let Some(hold) = &self.hold {
                        hold.because(&error.to_string());
                    }
                    self.stop_unseen(false).await?;
                    self.pause(&mut pause).await?;
                    if let Some(stopping) = &mut self.stopping {
                        stopping.excuse(begun.elapsed());
                    }
                }
                Err(Obstacle::Sandbox(error)) => {
                    tracing::warn!(%error, "the sandbox does not answer; trying again");
                    // Let calls about the bot proceed, so that callers can stop what runs there.
                    self.hold = None;
                    self.stop_unseen(true).await?;
                    self.deaf_for += begun.elapsed();
                    if self.has_to_end() && self.deaf_for >= DEAF_LIMIT {
                        tracing::warn!(limit = ?DEAF_LIMIT, "the sandbox gave no answer; its task is given up");
                        return Ok(lost(LossReason::SandboxUnresponsive));
                    }
                    self.deaf_for += pause;
                    self.pause_unless_ordered(&mut pause).await?;
                }
            }
        }
    }

    async fn look_once(&mut self, sure: bool) -> Result<Result<Option<Step>, Obstacle>, Left> {
        let found = match self.sandbox.inspect().await {
            Ok(found) => found,
            Err(RuntimeError::NoSuchSandbox { .. }) => return Ok(Ok(Some(lost(LossReason::SandboxRemoved)))),
            Err(error) => return Ok(Err(Obstacle::Runtime(error))),
        };
        if found.paused {
            // The sandbox is paused with all of its processes; they can be queried when it runs again.
            return Ok(Err(Obstacle::Runtime(RuntimeError::NotRunning { id: self.sandbox.name.to_string() })));
        }
        self.look_into(found, sure).await
    }

    /// Whether the task is being stopped, or a launch was begun that reported nothing.
    fn has_to_end(&self) -> bool {
        self.must_fence() || self.stopping.is_some()
    }

    /// Waits before the next look. Returns at once on a stop order.
    async fn pause_unless_ordered(&mut self, pause: &mut Duration) -> Result<(), Left> {
        let mut orders = self.orders.clone();
        tokio::select! {
            paused = self.pause(pause) => paused,
            _ = orders.changed() => {
                self.orders.mark_unchanged();
                Ok(())
            }
        }
    }

    /// Continues to stop a command that cannot be examined: a sandbox at its process limit answers no question, but its processes can be
    /// signalled. Sends nothing if the runtime itself does not answer.
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
            // A call that takes longer continues in the background.
            if let Ok(sent) = timeout(ANSWER_LIMIT, stopping.sent()).await {
                tracing::info!(?sent, "a command that cannot be looked at is signalled");
            }
        }
        Ok(())
    }

    async fn look_into(&mut self, found: Found, sure: bool) -> Result<Result<Option<Step>, Obstacle>, Left> {
        if !found.running {
            // A sandbox that is being restarted or removed also looks like this for a moment, so a second look decides.
            return Ok(if sure {
                self.look_at_rest(&found).await.map(Some).map_err(Obstacle::Runtime)
            } else {
                Ok(None)
            });
        }
        let asked = [(self.task.id, self.task.nonce)];
        let probe = self.sandbox.bridge.probe(&asked, self.must_fence());
        let findings = timeout(ANSWER_LIMIT, probe).await.unwrap_or_else(|_| {
            Err(RuntimeError::Unavailable { detail: format!("the sandbox did not answer within {ANSWER_LIMIT:?}") })
        });
        let findings = match findings {
            Ok(findings) => findings,
            Err(error) => return Ok(Err(Obstacle::Sandbox(error))),
        };
        match findings.first() {
            Some(finding) => Ok(Ok(self.judge(&found, finding, sure).await?)),
            None => Ok(Ok(None)),
        }
    }

    /// Reads the result of a task from the files of a sandbox that does not run.
    async fn look_at_rest(&mut self, found: &Found) -> Result<Step, RuntimeError> {
        let Some(directory) = self.task.output_file.rsplit_once('/').map(|(directory, _)| directory.to_owned()) else {
            return Ok(lost(stopped(found)));
        };
        let path = format!("{directory}/{}", sentinel::NAME);
        let exit_file = self.sandbox.read_at_rest(&path, sentinel::SIZE_LIMIT).await?;
        let content = exit_file.as_ref().map(|file| file.content.as_slice());
        let Sentinel::Complete(ending) = sentinel::read(content, self.task.nonce) else {
            return Ok(lost(stopped(found)));
        };
        if found.out_of_memory && ending == Ending::Signaled(Signal::KILL) {
            self.oom_kills_told = 1;
        }
        if let Some(log) = self.sandbox.read_at_rest(&self.task.output_file, 0).await? {
            self.output_is(log.size, false, None);
        }
        Ok(Step::End(ending, None))
    }

    /// The step that follows from recovery's first query, which asks a sandbox about all of its tasks.
    pub(super) async fn first_judgement(&mut self, found: &Found, finding: &Finding) -> Result<Step, Left> {
        let step = self.judge(found, finding, false).await?;
        // If the finding is not conclusive, a second look decides; there is nothing to follow.
        Ok(step.unwrap_or(Step::Look))
    }

    /// A launch that reported nothing must be fenced, so that it cannot happen after the sandbox was examined.
    pub(crate) fn must_fence(&self) -> bool {
        matches!(self.task.state, TaskState::Starting { .. })
    }

    /// The step that follows from a finding; none when it is too early to tell.
    async fn judge(&mut self, found: &Found, finding: &Finding, sure: bool) -> Result<Option<Step>, Left> {
        let restarted = self.task.state.incarnation().is_some_and(|incarnation| *incarnation != found.incarnation);
        self.output_is(finding.output_bytes, finding.incomplete, finding.gap);
        self.task.usage = finding.usage.or(self.task.usage);
        self.oom_kills_told = finding.oom_kills;
        let made = finding.process.map(|(_, made)| made);
        // The command is not older than its task, whatever the sandbox reports.
        let made = made.map(|made| made.max(self.task.created_at));
        if let Some(age) = made.and_then(|made| SystemTime::now().duration_since(made).ok()) {
            self.began_at = self.began_at.or(Instant::now().checked_sub(age));
        }
        Ok(match verdict(&self.task.state, restarted, finding, sure) {
            Verdict::End(ending) => Some(Step::End(ending, made)),
            Verdict::KillAndEnd(ending) => {
                let process = finding.process.map(|(process, _)| process).or(self.task.state.process());
                let process = process.filter(|process| *process != UNRECORDED);
                let kill = self.sandbox.bridge.signal(self.task.id, process, Some(Signal::KILL));
                match timeout(ANSWER_LIMIT, kill).await {
                    Ok(Ok(count)) => tracing::info!(count, "killed what an unwatched command had left"),
                    Ok(Err(error)) => tracing::warn!(%error, "what an unwatched command left could not be killed"),
                    Err(_) => tracing::warn!("what an unwatched command left was not killed in time"),
                }
                Some(Step::End(ending, made))
            }
            Verdict::Follow(process) => {
                let (process, at) = process.unwrap_or((UNRECORDED, SystemTime::now()));
                self.commit(Event::Started { process, at }).await?;
                Some(Step::Attach)
            }
            Verdict::LookAgain => None,
        })
    }

    /// The process to signal, if its identity is known.
    pub(super) fn process(&self) -> Option<ProcessIdentity> {
        self.task.state.process().filter(|process| *process != UNRECORDED)
    }
}

/// The reason why a task in a stopped sandbox is lost.
fn stopped(found: &Found) -> LossReason {
    if found.out_of_memory { LossReason::SandboxOutOfMemory } else { LossReason::SandboxStopped }
}

/// The end of a task that is lost.
pub(crate) fn lost(reason: LossReason) -> Step {
    Step::End(Ending::lost(reason), None)
}
