//! What the reports of an attachment mean.

use std::time::{Duration, SystemTime};

use super::{Machine, Moment, Phase, Reported, commit::Then, follow::Stage, not_launched::not_launched};
use errand_runtime::RuntimeError;
use errand_task::{Ending, ProcessIdentity, ResourceUsage};

/// How long to wait for the rest of the log after the command has ended. The wait only takes this long if a daemon holds the log open.
const DRAIN: Duration = Duration::from_secs(1);
/// How long after a command's start its commit may be delayed. A command that ends sooner needs one commit less.
const SETTLE: Duration = Duration::from_millis(20);

impl Machine {
    /// Takes in a report. Any report is a sign of life.
    pub(super) fn reported(&mut self, report: Reported, now: Moment) {
        if self.storing.is_some() || !matches!(self.phase, Phase::Following(_)) {
            return;
        }
        self.release_permit();
        match report {
            Reported::Started { process, age } => self.started(process, age, now),
            Reported::Output { end } => self.grown(end, Then::Complete, now),
            Reported::Skipped { end } => self.grown(end, Then::Proceed, now),
            Reported::Activity(activity) => self.activity(activity, now),
            Reported::Matched { matches, unsearched } => self.matched(matches, unsearched, now),
            Reported::Ended { ending, usage, oom_kills } => self.ended(ending, usage, oom_kills, now),
            Reported::Over { bytes, incomplete, gap } => {
                self.output_is(bytes, incomplete, gap);
                self.output.whole_log = true;
                if self.has_ended() {
                    self.complete(now);
                } else {
                    // The process that should have reported the result was killed.
                    self.look_after_following(now);
                }
            }
            Reported::Broken if self.has_ended() => self.close_followed(now),
            Reported::Broken => {
                tracing::debug!("the attachment broke off");
                self.look_after_following(now);
            }
            Reported::Claimed => self.look_after_following(now),
            Reported::Failed(error) => self.attachment_failed(&error, now),
        }
    }

    /// The command's first process exists. What is said of it later is no news.
    fn started(&mut self, process: ProcessIdentity, age: Duration, now: Moment) {
        let age = self.clock.possible_age(age, now);
        let started = now.wall.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        self.clock.began(age, now);
        let running_until = self.timeout_at(now);
        let Phase::Following(following) = &mut self.phase else { return };
        following.silence.broken(now.at);
        match &mut following.stage {
            Stage::Silent { .. } => {
                let commit_by = now.at + SETTLE.saturating_sub(age);
                following.stage = Stage::Begun { process, at: started, commit_by };
            }
            Stage::Begun { .. } => {}
            Stage::Running { timeout_at } => *timeout_at = running_until,
            Stage::Ended { started_at, .. } => {
                started_at.get_or_insert(started);
            }
        }
        self.schedule_pulse(now);
    }

    /// There is more output.
    fn grown(&mut self, end: u64, then: Then, now: Moment) {
        self.output.end = self.output.end.max(end);
        if let Phase::Following(following) = &mut self.phase {
            following.silence.broken(now.at);
        }
        self.check_resumed(then, now);
    }

    /// The command has ended. The first report of that counts, so that repeated reports do not delay the task's end.
    fn ended(&mut self, ending: Ending, usage: Option<ResourceUsage>, oom_kills: u32, now: Moment) {
        self.oom_kills_told = oom_kills;
        self.task.usage = usage.or(self.task.usage);
        let Phase::Following(following) = &mut self.phase else { return };
        let started_at = match following.stage {
            Stage::Begun { at, .. } => Some(at),
            Stage::Silent { .. } | Stage::Running { .. } => None,
            Stage::Ended { .. } => return,
        };
        following.stage = Stage::Ended { ending, started_at, drain_by: now.at + DRAIN };
    }

    fn attachment_failed(&mut self, error: &RuntimeError, now: Moment) {
        let Phase::Following(following) = &self.phase else { return };
        match following.stage {
            Stage::Silent { .. } => {
                self.actions.push(super::Action::Detach);
                self.close(not_launched(error), None, now);
            }
            Stage::Begun { .. } | Stage::Running { .. } => {
                tracing::debug!(%error, "attaching failed");
                self.look_after_following(now);
            }
            Stage::Ended { .. } => self.close_followed(now),
        }
    }

    fn has_ended(&self) -> bool {
        matches!(&self.phase, Phase::Following(following) if matches!(following.stage, Stage::Ended { .. }))
    }
}
