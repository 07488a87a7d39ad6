//! The invariants that hold whatever happens. Each violation is a sentence.

use std::time::{Duration, Instant};

use super::{
    announced::{Announced, Seen},
    sandbox::{LINE, Sandbox},
    schedule::Launch,
    watching::matches,
};
use crate::supervisor::machine::Notice;
use errand_task::{LossReason, NotificationKind, Outcome, Signal, StartFailure, Status, StopCause, Task, TaskState};

/// How long a running command that must be stopped may remain without a signal while everything answers.
const SIGNAL_WITHIN: Duration = Duration::from_secs(45);
/// How long a launch without a sign of life may keep its permit: 5 s until it is answered, and 5 s from then on.
const PERMIT_WITHIN: Duration = Duration::from_secs(11);

/// What was observed of the supervision of one task, over all servers.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// How often the end was announced.
    completions: u32,
    /// What was announced besides the end.
    pub(super) announced: Announced,
    /// Why a further launch is forbidden.
    launch_forbidden: Option<&'static str>,
    /// The requests to stop the task.
    pub(super) stops: u32,
    signals: u32,
    /// Whether a signal reached a process of the command.
    pub(super) reached: bool,
    /// Whether SIGKILL was sent. Its answer does not tell whether it reached anything.
    killed: bool,
    /// When SIGTERM was first sent, and with which grace at least.
    termed: Option<Instant>,
    /// Since when the command has had to be signalled, while everything answered.
    must_signal_since: Option<Instant>,
    permit_since: Option<Instant>,
    /// How long the sandbox has been deaf in all.
    pub(super) deaf: Duration,
    /// Whether the server was told that the command had started.
    pub(super) told_started: bool,
    /// Whether it is not known if a signal arrived.
    pub(super) signal_lost: bool,
    /// How often an attachment went silent.
    pub(super) muted: u32,
    pub(super) removed: bool,
    pub(super) stopped: bool,
    pub(super) restarted: bool,
    /// Whether another supervisor took over, which knows neither the command's age nor what was sent to it.
    pub(super) server_changed: bool,
    /// Whether the machine's clock was set.
    pub(super) leapt: bool,
    /// Whether the sandbox was restarted between the commit of the intent and the launch, so that the record names another life.
    pub(super) launched_elsewhere: bool,
    /// When this server last told of matches.
    pub(super) told_matches_at: Option<Instant>,
    /// How often matches were told of.
    pub(super) matches_told: u32,
}

impl Observed {
    /// A record is about to be stored in place of another one.
    pub(super) fn storing(
        &mut self,
        old: &Task,
        new: &Task,
        notice: Option<&Notice>,
        seen: Seen,
    ) -> Result<(), String> {
        if old.status().is_terminal() {
            return Err(format!("a finished record was changed from {:?} to {:?}", old.state, new.state));
        }
        if rank(&new.state) < rank(&old.state) {
            return Err(format!("the state went back from {:?} to {:?}", old.state, new.state));
        }
        let completed = notice.is_some_and(|notice| notice.kind == NotificationKind::Completed);
        if completed != (new.status().is_terminal() && new.notify.announces(new.status())) {
            return Err(format!("a record that is {:?} was stored with the notice {notice:?}", new.status()));
        }
        let told = match notice.map(|notice| notice.kind) {
            Some(NotificationKind::Stalled) => old.stall.is_none() && new.stall.is_some(),
            Some(NotificationKind::Resumed) => old.stall.is_some() && new.stall.is_none(),
            Some(NotificationKind::Completed) => new.stall.is_none(),
            Some(NotificationKind::LateOutcome) => false,
            Some(
                NotificationKind::Heartbeat
                | NotificationKind::Idle
                | NotificationKind::WatchMatched
                | NotificationKind::WatchDisabled
                | NotificationKind::WatchesSuspended
                | NotificationKind::WatchesRestored,
            )
            | None => old.stall == new.stall || (notice.is_none() && new.status().is_terminal() && new.stall.is_none()),
        };
        if !told {
            return Err(format!(
                "the stall changed from {:?} to {:?} with the notice {notice:?}",
                old.stall, new.stall
            ));
        }
        self.announced.storing(old, new, notice, (seen, self.leapt && self.server_changed))?;
        self.watching(old, new, notice, seen.now)?;
        self.completions += u32::from(completed);
        if self.completions > 1 {
            return Err("the end was announced twice".to_owned());
        }
        Ok(())
    }

    /// The command is about to be launched.
    pub(super) fn launching(&mut self, stored: &Task, answer: Launch) -> Result<(), String> {
        if !matches!(stored.state, TaskState::Starting { .. }) {
            return Err(format!("the command was launched while its stored state was {:?}", stored.status()));
        }
        if let Some(why) = self.launch_forbidden {
            return Err(format!("the command was launched again although {why}"));
        }
        self.launch_forbidden = match answer {
            Launch::Unavailable => None,
            Launch::Fine => Some("it was launched"),
            Launch::Refused => Some("the launch was refused"),
            Launch::Uncertain(_) => Some("it was not known whether it was launched"),
            Launch::Unanswered(_) => Some("the launch was not answered"),
            Launch::Silent(_) => Some("the launch was accepted"),
        };
        Ok(())
    }

    /// The server ended or the supervisor broke down: the next one has to signal the command by itself.
    pub(super) fn forget_server(&mut self) {
        (self.signals, self.termed, self.must_signal_since, self.permit_since) = (0, None, None, None);
        self.told_started = false;
        self.announced.forget_server();
        self.told_matches_at = None;
    }

    pub(super) fn signalled(&mut self, signal: Signal, graces: Duration, now: Instant) -> Result<(), String> {
        self.signals += 1;
        self.must_signal_since = None;
        match signal {
            Signal::TERM => {
                self.termed.get_or_insert(now);
            }
            _ => {
                self.killed = true;
                if let Some(termed) = self.termed
                    && now.saturating_duration_since(termed) < graces
                {
                    return Err("SIGKILL was sent before the grace was over".to_owned());
                }
            }
        }
        Ok(())
    }

    /// Called at each step. `must_signal`: the command runs although it was ordered to stop or its time is up. `calm`: everything answers.
    pub(super) fn waiting(&mut self, must_signal: bool, calm: bool, now: Instant) -> Result<(), String> {
        if !must_signal || !calm || self.signals > 0 {
            self.must_signal_since = None;
            return Ok(());
        }
        let since = *self.must_signal_since.get_or_insert(now);
        if now.saturating_duration_since(since) > SIGNAL_WITHIN {
            return Err(format!("the command has had to end for {SIGNAL_WITHIN:?} and no signal was sent"));
        }
        Ok(())
    }

    /// Called at each step. `silent`: a launch was begun and nothing was heard of it.
    pub(super) fn permit(&mut self, held: bool, silent: bool, now: Instant) -> Result<(), String> {
        if !held || !silent {
            self.permit_since = None;
            return Ok(());
        }
        let since = *self.permit_since.get_or_insert(now);
        if now.saturating_duration_since(since) > PERMIT_WITHIN {
            return Err("a launch without a sign of life kept its permit".to_owned());
        }
        Ok(())
    }

    /// The task is finished: its outcome must be what really happened.
    pub(super) fn finished(
        &self,
        task: &Task,
        sandbox: &Sandbox,
        timeout: Duration,
        now: Instant,
    ) -> Result<(), String> {
        let TaskState::Finished { outcome, .. } = &task.state else {
            return Err(format!("the task is over and its stored state is {:?}", task.state));
        };
        let told = matches(&task.watches.list);
        if told > sandbox.output / LINE {
            return Err(format!("{told} matches of {} were told of", sandbox.output / LINE));
        }
        if self.completions != u32::from(task.notify.announces(task.status())) {
            return Err(format!("the end was announced {} times", self.completions));
        }
        let wrong = |why: &str| Err(format!("the outcome is {outcome:?}, but {why}; really: {:?}", sandbox.ended));
        if sandbox.exit_file_is_true() && matches!(outcome, Outcome::Lost { .. }) && !self.excused(outcome) {
            return wrong("the exit file was readable");
        }
        if self.told_started
            && matches!(
                outcome,
                Outcome::FailedToStart { .. } | Outcome::Lost { reason: LossReason::LaunchInterrupted, .. }
            )
        {
            return wrong("its start was reported");
        }
        if !self.server_changed && !self.signal_lost && sandbox.ended.is_some() {
            match outcome {
                Outcome::Stopped { .. } if !self.reached && !self.killed => {
                    return wrong("no signal reached the command");
                }
                Outcome::Exited { .. } | Outcome::Signaled { .. } if self.reached => {
                    return wrong("it was stopped");
                }
                _ => {}
            }
        }
        match outcome {
            Outcome::Exited { .. } | Outcome::Signaled { .. } => {
                let told = sandbox.ended.clone().map(|ending| match ending {
                    errand_task::Ending::Exited(code) => Outcome::Exited { code },
                    errand_task::Ending::Signaled(signal) => Outcome::Signaled { signal },
                    errand_task::Ending::TimedOut { after } => Outcome::TimedOut { after },
                    _ => outcome.clone(),
                });
                let unwatched = !sandbox.knowable || self.launched_elsewhere;
                let forged = sandbox.forged && unwatched;
                if told.as_ref() != Some(outcome) && !forged {
                    wrong("that is not how the command ended")
                } else {
                    Ok(())
                }
            }
            Outcome::TimedOut { .. } => match sandbox.age(now) {
                Some(age) if age >= timeout => Ok(()),
                _ if self.leapt && self.server_changed => Ok(()),
                age => wrong(&format!("its age was {age:?}")),
            },
            Outcome::Stopped { cause: StopCause::Request { .. }, .. } if self.stops == 0 => wrong("nobody asked"),
            Outcome::Stopped { signal: None, .. } if sandbox.launches > 0 => wrong("the command was launched"),
            Outcome::Stopped { .. } => Ok(()),
            Outcome::FailedToStart { failure, .. } => match failure {
                _ if sandbox.launches > 0 => wrong("the command was launched"),
                StartFailure::SandboxGone if !self.removed && !self.stopped && !self.restarted => wrong("it is there"),
                _ => Ok(()),
            },
            Outcome::Lost { reason, .. } => match reason {
                LossReason::SandboxRestarted if !self.restarted && !self.stopped => wrong("it was not restarted"),
                LossReason::SandboxRemoved if !self.removed => wrong("it was not removed"),
                LossReason::SandboxStopped if !self.stopped && !self.restarted => wrong("it was not stopped"),
                LossReason::SandboxUnresponsive if !self.excused(outcome) => wrong("it answered"),
                LossReason::LogDirectoryGone if !sandbox.wiped => wrong("it was not removed"),
                LossReason::SandboxOutOfMemory => wrong("that did not happen"),
                LossReason::SupervisorKilled | LossReason::ExitFileUnreadable if sandbox.knowable => {
                    wrong("the shim was not killed")
                }
                LossReason::LaunchInterrupted if !sandbox.wiped => wrong("its directory tells whether it was launched"),
                _ => Ok(()),
            },
        }
    }

    /// Whether the sandbox could not be asked, so that a loss is the truth.
    fn excused(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Lost { reason: LossReason::SandboxUnresponsive, .. } => {
                // After the first silence the sandbox is asked, and attached to again.
                self.muted > 1 || self.deaf >= Duration::from_secs(10)
            }
            Outcome::Lost { reason: LossReason::SandboxRemoved, .. } => self.removed,
            Outcome::Lost { reason: LossReason::SandboxRestarted, .. } => self.launched_elsewhere,
            _ => false,
        }
    }
}

/// Whether a launch may still take effect after its task has ended in this way.
pub(super) fn may_launch_later(task: &Task) -> bool {
    match task.state.outcome() {
        // The sandbox did not answer, so it could not be fenced either.
        Some(Outcome::Lost { reason: LossReason::SandboxUnresponsive, .. }) => true,
        Some(_) | None => false,
    }
}

fn rank(state: &TaskState) -> u8 {
    match state.status() {
        Status::Queued => 0,
        Status::Starting => 1,
        Status::Running => 2,
        Status::Stopping => 3,
        _ => 4,
    }
}
