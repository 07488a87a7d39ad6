//! Reconciles a task with its sandbox: finds out what became of a command when no attachment reports on it.
//!
//! Repeats until it is clear how to continue, for as long as the runtime does not answer.

use std::time::{Duration, Instant, SystemTime};

use super::{ANSWER_LIMIT, FIRST_PAUSE, Machine, Moment, Operation, Phase, unseen::Obstacle};
use errand_bridge::Finding;
use errand_runtime::{FileAtRest, Found, RuntimeError};
use errand_task::{
    Ending, LossReason, Signal,
    sentinel::{self, Sentinel},
};

/// A look at the sandbox.
#[derive(Debug)]
pub(super) struct Looking {
    /// Whether this is a second look, and enough time has passed since the first.
    sure: bool,
    /// How long to wait before the next look, should the sandbox not be examined.
    pub(super) pause: Duration,
    /// When this look began.
    pub(super) begun: Option<Instant>,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The next look is due at once.
    Due,
    /// The runtime was asked about the sandbox.
    Inspecting,
    /// The sandbox, which is in this state, was asked about the task.
    Probing(Box<Found>),
    /// The exit file is being read from a sandbox that does not run and is in this state.
    ReadingExit(Box<Found>),
    /// The size of the log is being read from a sandbox that does not run; the command ended in this way.
    ReadingSize(Ending),
    /// What an unwatched command left is being killed. The command ended in this way and was started at this time.
    Killing(Ending, Option<SystemTime>),
    /// The command runs, and its start is being committed.
    Found,
    /// The sandbox was not examined. A stop of the command is being committed.
    Unseen(Obstacle),
    /// The sandbox was not examined. A signal is being sent, and is waited for until this time.
    Signalling(Obstacle, Instant),
    /// The next look comes at this time. The obstacle in the way of the last one, if there was one.
    Waiting(Option<Obstacle>, Instant),
}

impl Looking {
    pub(super) fn new() -> Self {
        Self { sure: false, pause: FIRST_PAUSE, begun: None, stage: Stage::Due }
    }

    /// Whether the next look is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting(..))
    }

    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Signalling(_, at) | Stage::Waiting(_, at) => Some(at),
            Stage::Due
            | Stage::Inspecting
            | Stage::Probing(_)
            | Stage::ReadingExit(_)
            | Stage::ReadingSize(_)
            | Stage::Killing(..)
            | Stage::Found
            | Stage::Unseen(_) => None,
        }
    }
}

impl Machine {
    pub(super) fn look(&mut self, now: Moment) {
        self.release_permit();
        self.phase = Phase::Looking(Looking::new());
        self.inspect(now);
    }

    pub(super) fn inspect(&mut self, now: Moment) {
        if let Phase::Looking(looking) = &mut self.phase {
            looking.begun = Some(now.at);
            looking.stage = Stage::Inspecting;
            self.begin(Operation::Inspect);
        }
    }

    pub(super) fn look_tick(&mut self, now: Moment) {
        let Phase::Looking(Looking { stage, .. }) = &self.phase else { return };
        match stage {
            Stage::Signalling(obstacle, until) if *until <= now.at => self.unseen_done(*obstacle, now),
            Stage::Waiting(obstacle, until) if *until <= now.at => self.look_again(*obstacle, now),
            Stage::Signalling(..)
            | Stage::Waiting(..)
            | Stage::Due
            | Stage::Inspecting
            | Stage::Probing(_)
            | Stage::ReadingExit(_)
            | Stage::ReadingSize(_)
            | Stage::Killing(..)
            | Stage::Found
            | Stage::Unseen(_) => {}
        }
    }

    pub(super) fn inspected(&mut self, answer: Result<Found, RuntimeError>, now: Moment) {
        if matches!(self.phase, Phase::Closing(_)) {
            return self.inspected_while_clearing(&answer, now);
        }
        let Phase::Looking(Looking { stage: Stage::Inspecting, sure, .. }) = &self.phase else { return };
        match answer {
            Err(RuntimeError::NoSuchSandbox { .. }) => self.close(Ending::lost(LossReason::SandboxRemoved), None, now),
            Err(error) => self.unseen(Obstacle::Runtime, &error, now),
            // The sandbox is paused with all of its processes; they can be queried when it runs again.
            Ok(found) if found.paused => {
                self.unseen(Obstacle::Runtime, &RuntimeError::NotRunning { id: found.runtime_id }, now);
            }
            Ok(found) if found.running => {
                self.looking(Stage::Probing(Box::new(found)));
                self.begin(Operation::Probe { fence: self.must_fence(), limit: ANSWER_LIMIT });
            }
            // A sandbox that is being restarted or removed also looks like this for a moment, so a second look decides.
            Ok(_) if !sure => self.look_twice(now),
            Ok(found) => match self.task.output_file.rsplit_once('/') {
                Some((directory, _)) => {
                    let path = format!("{directory}/{}", sentinel::NAME);
                    self.looking(Stage::ReadingExit(Box::new(found)));
                    self.begin(Operation::ReadAtRest { path, limit: sentinel::SIZE_LIMIT });
                }
                None => self.close(Ending::lost(stopped(&found)), None, now),
            },
        }
    }

    pub(super) fn probed(&mut self, answer: Result<Option<Finding>, RuntimeError>, now: Moment) {
        let Phase::Looking(Looking { stage, sure, .. }) = &mut self.phase else { return };
        if !matches!(stage, Stage::Probing(_)) {
            return;
        }
        let (sure, Stage::Probing(found)) = (*sure, std::mem::replace(stage, Stage::Due)) else { return };
        match answer {
            Ok(Some(finding)) => {
                if !self.judge(&found, &finding, sure, now) {
                    self.look_twice(now);
                }
            }
            Ok(None) => self.look_twice(now),
            Err(error) => self.unseen(Obstacle::Sandbox, &error, now),
        }
    }

    /// Takes in the files of a sandbox that does not run.
    pub(super) fn at_rest(&mut self, answer: Result<Option<FileAtRest>, RuntimeError>, now: Moment) {
        let Phase::Looking(Looking { stage, .. }) = &mut self.phase else { return };
        if !matches!(stage, Stage::ReadingExit(_) | Stage::ReadingSize(_)) {
            return;
        }
        let stage = std::mem::replace(stage, Stage::Due);
        let file = match answer {
            Ok(file) => file,
            Err(error) => return self.unseen(Obstacle::Runtime, &error, now),
        };
        match stage {
            Stage::ReadingExit(found) => {
                let content = file.as_ref().map(|file| file.content.as_slice());
                let Sentinel::Complete(ending) = sentinel::read(content, self.task.nonce) else {
                    return self.close(Ending::lost(stopped(&found)), None, now);
                };
                if found.out_of_memory && ending == Ending::Signaled(Signal::KILL) {
                    self.oom_kills_told = 1;
                }
                let path = self.task.output_file.clone();
                self.looking(Stage::ReadingSize(ending));
                self.begin(Operation::ReadAtRest { path, limit: 0 });
            }
            Stage::ReadingSize(ending) => {
                if let Some(log) = file {
                    self.output_is(log.size, false, None);
                }
                self.close(ending, None, now);
            }
            Stage::Due
            | Stage::Inspecting
            | Stage::Probing(_)
            | Stage::Killing(..)
            | Stage::Found
            | Stage::Unseen(_)
            | Stage::Signalling(..)
            | Stage::Waiting(..) => {}
        }
    }

    /// Looks again one second later, so that a process that was about to write the exit file has written it.
    fn look_twice(&mut self, now: Moment) {
        if let Phase::Looking(looking) = &mut self.phase {
            looking.sure = true;
            looking.stage = Stage::Waiting(None, now.at + FIRST_PAUSE);
        }
    }

    pub(super) fn looking(&mut self, next: Stage) {
        if let Phase::Looking(Looking { stage, .. }) = &mut self.phase {
            *stage = next;
        }
    }
}

/// The reason why a task in a stopped sandbox is lost.
fn stopped(found: &Found) -> LossReason {
    if found.out_of_memory { LossReason::SandboxOutOfMemory } else { LossReason::SandboxStopped }
}
