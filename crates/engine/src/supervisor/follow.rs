//! Follows a running command through an attachment.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};

use super::{
    ANSWER_LIMIT, FIRST_PAUSE, Left, Step, Supervisor, launch::not_launched, lost, stall::Silence, stopping::Stopping,
};
use errand_bridge::{Attachment, Report};
use errand_runtime::RuntimeError;
use errand_task::{Ending, Event, LossReason, ProcessIdentity, StopCause, TaskState};

/// A launch reports the first and the last output by itself. A command that runs longer than this is followed in between as well.
const FOLLOW_AFTER: Duration = Duration::from_secs(1);
/// How long to wait for the rest of the log after the command has ended. The wait only takes this long if a daemon holds the log open.
const DRAIN: Duration = Duration::from_secs(1);

/// How long a launch without a sign of life may keep its permit.
pub(super) const PERMIT_LIMIT: Duration = Duration::from_secs(5);
/// Where the guest enforces the timeout, how much later the server enforces it too. This gives the guest time to report the timeout first.
const BEHIND: Duration = Duration::from_secs(5);

/// How long after a command's start its commit may be delayed. A command that ends sooner needs one commit less.
const SETTLE: Duration = Duration::from_millis(20);

/// Waits until `due`; for ever when there is none.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// A start that is not committed yet.
#[derive(Debug, Clone, Copy)]
struct Begun {
    process: ProcessIdentity,
    at: SystemTime,
    commit_by: Instant,
}

/// What the attachment has reported so far, and which deadlines are pending.
struct View {
    attachment: Attachment,
    begun: Option<Begun>,
    ending: Option<Ending>,
    /// When to begin following new output.
    follow_at: Option<Instant>,
    /// When to stop waiting for the rest of the log.
    drain_by: Option<Instant>,
    /// When to check for a stall. None where the bridge reports process activity and has reported nothing that may be a stall.
    stall_check_at: Option<Instant>,
    silence: Silence,
    /// When to release the launch permit even though this launch shows no sign of life.
    permit_until: Option<Instant>,
    /// When to give up a launch that shows no sign of life.
    silent_until: Option<Instant>,
    timeout_at: Option<Instant>,
}

impl View {
    /// Whether a stop order is handled now. An order that arrives between a start and its commit waits for the commit.
    fn takes_orders(&self) -> bool {
        self.ending.is_none() && self.begun.is_none()
    }

    /// When the command was started, if that is not committed yet.
    fn started_at(&self) -> Option<SystemTime> {
        self.begun.map(|begun| begun.at)
    }
}

impl Supervisor {
    /// Attaches to a command that is already running.
    pub(super) async fn attach(&mut self) -> Result<Step, Left> {
        let (bridge, from) = (std::sync::Arc::clone(&self.sandbox.bridge), self.live.output.end());
        let attaching = timeout(ANSWER_LIMIT, bridge.attach(self.task.id, self.task.nonce, from));
        let attached = tokio::select! {
            () = self.inner.leave.cancelled() => return Err(Left::Ending),
            attached = attaching => attached.unwrap_or_else(|_| {
                Err(RuntimeError::Unavailable { detail: format!("the sandbox did not answer within {ANSWER_LIMIT:?}") })
            }),
        };
        match attached {
            Ok(attachment) => {
                let begun = Instant::now();
                let step = self.follow_from(attachment, None).await?;
                if matches!(step, Step::Look) && begun.elapsed() < FIRST_PAUSE {
                    // What ended the attachment at once would probably do so again, so pause first.
                    self.pause(&mut FIRST_PAUSE.clone()).await?;
                }
                Ok(step)
            }
            Err(error) => {
                tracing::debug!(%error, "attaching failed");
                self.pause(&mut FIRST_PAUSE.clone()).await?;
                Ok(Step::Look)
            }
        }
    }

    /// Follows a command that was just launched.
    pub(super) async fn follow(&mut self, attachment: Attachment) -> Result<Step, Left> {
        self.follow_from(attachment, Some(Instant::now() + FOLLOW_AFTER)).await
    }

    async fn follow_from(&mut self, attachment: Attachment, follow_at: Option<Instant>) -> Result<Step, Left> {
        let now = Instant::now();
        let mut view = View {
            attachment,
            begun: None,
            ending: None,
            follow_at,
            drain_by: None,
            stall_check_at: (!self.enforces_timeout()).then_some(now + self.inner.settings.stall_check_interval),
            silence: Silence::new(now),
            permit_until: self.permit.is_some().then_some(now + PERMIT_LIMIT),
            silent_until: self.must_fence().then(|| self.silent_until()),
            timeout_at: self.timeout_at(),
        };
        // Handle a stop order that arrived before there was a process to stop, and resume a stop that a restart interrupted.
        self.orders.mark_changed();
        if matches!(self.task.state, TaskState::Stopping { .. }) && self.stopping.is_none() {
            self.begin_stop(StopCause::ServerShutdown, self.inner.settings.stop_grace).await?;
        }
        loop {
            let due = self.next_due(&view);
            let mut step = None;
            if due.is_some_and(|due| due <= Instant::now()) {
                step = self.on_time(&mut view).await?;
            }
            if step.is_none() {
                step = self.next_step(&mut view).await?;
            }
            match step {
                // The next step reads the record, so commit the start first.
                Some(step @ (Step::Look | Step::Launch | Step::Judge(..) | Step::Attach | Step::Follow(_))) => {
                    self.commit_start(&mut view).await?;
                    return Ok(step);
                }
                Some(step @ (Step::End(..) | Step::Over)) => return Ok(step),
                None => {}
            }
        }
    }

    /// Waits for the next event or the next deadline.
    async fn next_step(&mut self, view: &mut View) -> Result<Option<Step>, Left> {
        let due = self.next_due(view);
        tokio::select! {
            // Reports may never pause, so stop orders take priority. The caller checks the deadlines first, because a timer that is not
            // needed would be the most expensive part of this function.
            biased;
            () = self.inner.leave.cancelled() => Err(Left::Ending),
            changed = self.orders.changed(), if view.takes_orders() => {
                let order = self.orders.borrow_and_update().clone();
                if let (Ok(()), Some(order)) = (changed, order) {
                    if self.may_stop() {
                        self.begin_stop(order.cause, order.grace).await?;
                    } else if view.silent_until.is_some() {
                        // There is no process to stop yet, and there may never be one.
                        view.silent_until = Some(self.silent_until());
                    }
                }
                Ok(None)
            }
            sent = async {
                match &mut self.stopping {
                    Some(stopping) => stopping.sent().await,
                    None => std::future::pending().await,
                }
            } => {
                match sent {
                    Ok(count) => tracing::debug!(count, "signalled"),
                    Err(error) => tracing::warn!(%error, "a signal could not be sent; it is sent again"),
                }
                Ok(None)
            }
            report = view.attachment.next() => self.report(view, report).await,
            () = until(due) => Ok(None),
        }
    }

    /// Commits a start whose commit was delayed.
    async fn commit_start(&mut self, view: &mut View) -> Result<(), Left> {
        if let Some(Begun { process, at, .. }) = view.begun.take() {
            self.commit(Event::Started { process, at }).await?;
            view.timeout_at = self.timeout_at();
            // An order may have come before there was a process to stop.
            self.orders.mark_changed();
        }
        Ok(())
    }

    /// Only a running command can be stopped; an earlier order waits.
    pub(super) fn may_stop(&self) -> bool {
        match self.task.state {
            TaskState::Running { .. } | TaskState::Stopping { .. } => true,
            TaskState::Queued | TaskState::Starting { .. } | TaskState::Finished { .. } => false,
        }
    }

    fn enforces_timeout(&self) -> bool {
        self.sandbox.bridge.enforces_timeout()
    }

    /// When the server enforces the timeout, counted from the command's real start.
    pub(super) fn timeout_at(&self) -> Option<Instant> {
        // By this time the guest has killed the command. An earlier SIGTERM from the server would be the command's second one, while it
        // still uses its grace.
        let behind = if self.enforces_timeout() { BEHIND + self.inner.settings.stop_grace } else { Duration::ZERO };
        self.began_at()?.checked_add(self.task.spec.timeout)?.checked_add(behind)
    }

    /// When the command was started, on the monotonic clock, so that setting the machine's time ends no command early. Falls back to the
    /// record for a command that was started under an earlier server in a sandbox that does not report the command's age.
    fn began_at(&self) -> Option<Instant> {
        let recorded = self.task.state.started_at()?;
        self.began_at.or_else(|| {
            let age = SystemTime::now().duration_since(recorded).unwrap_or_default();
            Some(Instant::now().checked_sub(age).unwrap_or_else(Instant::now))
        })
    }

    fn next_due(&self, view: &View) -> Option<Instant> {
        // A command that has ended by itself is no longer stopped or timed out, even if its log is still held open.
        let runs = view.ending.is_none();
        let signal = self.stopping.as_ref().and_then(Stopping::due).filter(|_| runs);
        let timeout = view.timeout_at.filter(|_| runs && self.stopping.is_none());
        let begun = view.begun.map(|begun| begun.commit_by).filter(|_| runs);
        let overdue = self.stopping.as_ref().map(Stopping::overdue_at).filter(|_| runs);
        let silent = view.silent_until.filter(|_| runs && view.begun.is_none());
        let others = [view.follow_at, view.drain_by, view.stall_check_at, view.permit_until];
        let unsaved = self.unsaved.map(|unsaved| unsaved.retry_at);
        let due = [unsaved, begun, timeout, signal, overdue, silent].into_iter().chain(others);
        due.flatten().min()
    }

    async fn on_time(&mut self, view: &mut View) -> Result<Option<Step>, Left> {
        let now = Instant::now();
        if view.drain_by.is_some_and(|at| at <= now)
            && let Some(ending) = view.ending.take()
        {
            return Ok(Some(Step::End(ending, view.started_at())));
        }
        if view.ending.is_none() && view.begun.is_some_and(|begun| begun.commit_by <= now) {
            self.commit_start(view).await?;
        }
        if view.follow_at.is_some_and(|at| at <= now) {
            view.follow_at = None;
            if let Err(error) = view.attachment.follow().await {
                tracing::debug!(%error, "the attachment takes no word any more");
            }
        }
        let runs = view.ending.is_none() && self.may_stop();
        if runs && self.stopping.is_none() && view.timeout_at.is_some_and(|at| at <= now) {
            tracing::info!(timeout = ?self.task.spec.timeout, "the time is up");
            let cause = StopCause::Timeout { after: self.task.spec.timeout };
            self.begin_stop(cause, self.inner.settings.stop_grace).await?;
        }
        let signal = self.stopping.as_ref().and_then(Stopping::due);
        if signal.is_some_and(|at| at <= now) && view.ending.is_none() {
            self.send_signal();
        }
        if view.stall_check_at.is_some_and(|at| at <= now) {
            let due = self.check_stall(&mut view.silence).await?;
            let regular = now + self.inner.settings.stall_check_interval;
            view.stall_check_at = if self.enforces_timeout() { due } else { Some(regular) };
        }
        if view.permit_until.is_some_and(|at| at <= now) {
            view.permit_until = None;
            self.permit = None;
        }
        // Checked after the deadlines above, so that these do not wait for the store.
        if self.unsaved.is_some_and(|unsaved| unsaved.retry_at <= now) {
            self.commit_unsaved().await?;
        }
        if view.ending.is_none() && self.stopping.as_ref().is_some_and(|stopping| stopping.overdue_at() <= now) {
            tracing::warn!("the sandbox told no end of a command that was killed; its task is given up");
            return Ok(Some(lost(LossReason::SandboxUnresponsive)));
        }
        if view.takes_orders() && view.silent_until.is_some_and(|at| at <= now) {
            tracing::warn!("the launch shows no sign of life; looking whether it happened");
            return Ok(Some(Step::Look));
        }
        Ok(None)
    }

    /// Ends the task once the whole log was read. Output and reports travel separately, so either may finish first.
    fn complete(&mut self, view: &mut View) -> Option<Step> {
        if self.all_read() { view.ending.take().map(|ending| Step::End(ending, view.started_at())) } else { None }
    }

    async fn report(&mut self, view: &mut View, report: Result<Report, RuntimeError>) -> Result<Option<Step>, Left> {
        self.permit = None;
        view.permit_until = None;
        match report {
            Ok(Report::Started { process, age }) => {
                let now = Instant::now();
                // The command cannot have started before its launch, whatever the sandbox reports.
                let age = self.launched_at.map_or(age, |launched_at| age.min(launched_at.elapsed()));
                let at = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
                self.began_at = self.began_at.or(now.checked_sub(age));
                view.silent_until = None;
                view.begun = Some(Begun { process, at, commit_by: now + SETTLE.saturating_sub(age) });
                view.silence.broken();
                Ok(None)
            }
            Ok(Report::Output(piece)) => {
                self.live.output.push(piece).await;
                view.silence.broken();
                self.check_resumed().await?;
                Ok(self.complete(view))
            }
            Ok(Report::Skipped { to }) => {
                self.live.output.leave_out(to);
                view.silence.broken();
                self.check_resumed().await?;
                Ok(None)
            }
            Ok(Report::Activity(activity)) => {
                self.commit_start(view).await?;
                let due = self.check_activity(&mut view.silence, activity).await?;
                if self.enforces_timeout() {
                    view.stall_check_at = due;
                }
                Ok(None)
            }
            Ok(Report::Ended { ending, usage, oom_kills }) => {
                self.oom_kills_told = oom_kills;
                self.task.usage = usage.or(self.task.usage);
                view.ending = Some(ending);
                view.drain_by = Some(Instant::now() + DRAIN);
                Ok(None)
            }
            Ok(Report::Over { bytes, incomplete, gap }) => {
                self.output_is(bytes, incomplete, gap);
                self.whole_log = true;
                match view.ending {
                    Some(_) => Ok(self.complete(view)),
                    // The process that should have reported the result was killed.
                    None => Ok(Some(Step::Look)),
                }
            }
            Ok(Report::Broken) => match view.ending.take() {
                Some(ending) => Ok(Some(Step::End(ending, view.started_at()))),
                None => {
                    tracing::debug!("the attachment broke off");
                    Ok(Some(Step::Look))
                }
            },
            Ok(Report::Claimed) => Ok(Some(Step::Look)),
            Err(error) => match self.task.state {
                TaskState::Queued | TaskState::Starting { .. } => Ok(Some(not_launched(&error))),
                TaskState::Running { .. } | TaskState::Stopping { .. } | TaskState::Finished { .. } => {
                    tracing::debug!(%error, "attaching failed");
                    Ok(Some(Step::Look))
                }
            },
        }
    }
}
