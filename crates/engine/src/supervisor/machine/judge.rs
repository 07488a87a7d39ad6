//! Decides how to continue by what was found in the sandbox.

use super::{
    ANSWER_LIMIT, Machine, Moment, Operation, Phase,
    commit::Then,
    facts::UNRECORDED,
    look::{Looking, Stage},
};
use crate::verdict::{Verdict, verdict};
use errand_bridge::Finding;
use errand_runtime::{Found, RuntimeError};
use errand_task::{Event, Signal};

impl Machine {
    /// Decides by recovery's first query, which asks a sandbox about all of its tasks. If the finding is not conclusive, the sandbox is
    /// asked again; there is nothing to follow.
    pub(super) fn judge_first(&mut self, found: &Found, finding: &Finding, now: Moment) {
        self.phase = Phase::Looking(Looking::new());
        if !self.judge(found, finding, false, now) {
            self.look(now);
        }
    }

    /// Decides by a finding. False when it is too early to tell.
    pub(super) fn judge(&mut self, found: &Found, finding: &Finding, sure: bool, now: Moment) -> bool {
        let restarted = self.task.state.incarnation().is_some_and(|incarnation| *incarnation != found.incarnation);
        self.output_is(finding.output_bytes, finding.incomplete, finding.gap);
        self.task.usage = finding.usage.or(self.task.usage);
        self.oom_kills_told = finding.oom_kills;
        let made = finding.process.map(|(_, made)| made);
        // The command is not older than its task, whatever the sandbox reports.
        let made = made.map(|made| made.max(self.task.created_at));
        if let Some(age) = made.and_then(|made| now.wall.duration_since(made).ok()) {
            self.clock.began(age, now);
        }
        match verdict(&self.task.state, restarted, finding, sure) {
            Verdict::End(ending) => self.close(ending, made, now),
            Verdict::KillAndEnd(ending) => {
                let process = finding.process.map(|(process, _)| process).or(self.task.state.process());
                let process = process.filter(|process| *process != UNRECORDED);
                self.looking(Stage::Killing(ending, made));
                self.begin(Operation::Clear { process, signal: Some(Signal::KILL), limit: Some(ANSWER_LIMIT) });
            }
            Verdict::Follow(process) => {
                let (process, at) = process.unwrap_or((UNRECORDED, now.wall));
                self.looking(Stage::Found);
                self.commit(Event::Started { process, at }, Then::Attach, now);
            }
            Verdict::LookAgain => return false,
        }
        true
    }

    /// What an unwatched command left was killed, or could not be.
    pub(super) fn killed(&mut self, answer: &Result<u32, RuntimeError>, now: Moment) {
        let Phase::Looking(Looking { stage: Stage::Killing(ending, made), .. }) = &self.phase else { return };
        let (ending, made) = (ending.clone(), *made);
        match answer {
            Ok(count) => tracing::info!(count, "killed what an unwatched command had left"),
            Err(error) => tracing::warn!(%error, "what an unwatched command left could not be killed"),
        }
        self.close(ending, made, now);
    }
}
