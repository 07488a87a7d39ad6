//! Closes a task: reads the rest of its output, ends what a stopped command left, and commits the end.

use std::time::{Duration, Instant, SystemTime};

use super::{Action, FIRST_PAUSE, Machine, Moment, Operation, Phase, RestRead, clear::Clearing, commit::Then};
use errand_task::{Ending, Event, LossReason, TaskState};

/// How often to try reading the rest of a log before leaving it unread, and how long each attempt may take.
const READ_ATTEMPTS: u32 = 3;
const READ_LIMIT: Duration = Duration::from_secs(10);

/// The end of a task that is not committed yet.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) ending: Ending,
    /// When the command was started, if the record does not have it yet.
    started_at: Option<SystemTime>,
    /// Whether a signal of a stop may have reached the command before it ended.
    pub(super) signalled: bool,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The rest of the output is being read, and so many further attempts may follow.
    ReadingRest { further: u32 },
    /// The next attempt to read the rest of the output comes at this time.
    Waiting { further: u32, until: Instant },
    /// A signal that is still being sent is waited for: it reaches the remaining processes.
    AwaitingSignal,
    /// The processes that a stopped command left are being ended.
    Clearing(Clearing),
    /// The sandbox's memory kills are being counted.
    Counting,
    /// So many processes were killed for lack of memory; the memory limit is being read.
    FindingLimit { kills: u32 },
    /// The end is being committed.
    Committing,
}

impl Closing {
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Waiting { until, .. } => Some(*until),
            Stage::Clearing(clearing) => clearing.due(),
            Stage::ReadingRest { .. }
            | Stage::AwaitingSignal
            | Stage::Counting
            | Stage::FindingLimit { .. }
            | Stage::Committing => None,
        }
    }
}

impl Machine {
    /// Commits how the command ended, once all of its output was read and, if it was stopped, none of its processes is left.
    pub(super) fn close(&mut self, ending: Ending, started_at: Option<SystemTime>, now: Moment) {
        // The store may refuse the end for long; others can launch meanwhile.
        self.release_permit();
        let answers = !matches!(ending, Ending::Lost { reason: LossReason::SandboxUnresponsive, .. });
        let was_started = self.task.state.started_at().or(started_at).is_some();
        let stage = Stage::ReadingRest { further: READ_ATTEMPTS };
        self.phase = Phase::Closing(Closing { ending, started_at, signalled: true, stage });
        if answers && was_started && !self.all_read() {
            self.read_rest(READ_ATTEMPTS);
        } else if answers {
            self.clear(now);
        } else {
            self.sum_up(now);
        }
    }

    /// Reads the unread end of the log.
    fn read_rest(&mut self, attempts: u32) {
        self.closing(Stage::ReadingRest { further: attempts.saturating_sub(1) });
        self.begin(Operation::ReadRest { limit: READ_LIMIT });
    }

    pub(super) fn rest_read(&mut self, read: &RestRead, now: Moment) {
        let Phase::Closing(Closing { stage: Stage::ReadingRest { further }, .. }) = self.phase else { return };
        if let Some((size, gap)) = read.log {
            self.output_is(size, false, gap);
        }
        self.output.end = self.output.end.max(read.end);
        if read.again && further > 0 {
            self.closing(Stage::Waiting { further, until: now.at + FIRST_PAUSE });
        } else {
            self.clear(now);
        }
    }

    /// Ends the processes that a stopped command left.
    fn clear(&mut self, now: Moment) {
        if !matches!(self.task.state, TaskState::Stopping { .. }) {
            return self.sum_up(now);
        }
        // Stopping the remaining processes can take as long as the grace; calls about the bot do not wait for it.
        self.release_hold();
        if self.stopping.as_ref().is_some_and(super::Stopping::is_sending) {
            self.closing(Stage::AwaitingSignal);
        } else {
            self.count_remaining(now);
        }
    }

    pub(super) fn signalled_while_closing(&mut self, now: Moment) {
        if let Phase::Closing(Closing { stage: Stage::AwaitingSignal, .. }) = self.phase {
            self.count_remaining(now);
        }
    }

    /// Fills in what is known besides the ending.
    pub(super) fn sum_up(&mut self, now: Moment) {
        if let Some(gap) = self.task.output.gap {
            // The end of the output may lie in a gap.
            let end = gap.past(self.output.end);
            self.output.end = end;
            self.actions.push(Action::SkipTo(end));
        }
        self.count_after_end(now);
    }

    pub(super) fn commit_end(&mut self, now: Moment) {
        let Phase::Closing(closing) = &mut self.phase else { return };
        closing.stage = Stage::Committing;
        let (ending, started_at, signalled) = (closing.ending.clone(), closing.started_at, closing.signalled);
        self.commit(Event::Ended { ending, started_at, signalled, at: now.wall }, Then::Finish, now);
    }

    pub(super) fn close_tick(&mut self, now: Moment) {
        let Phase::Closing(closing) = &self.phase else { return };
        match closing.stage {
            Stage::Waiting { further, until } if until <= now.at => self.read_rest(further),
            Stage::Clearing(_) => self.clear_tick(now),
            Stage::Waiting { .. }
            | Stage::ReadingRest { .. }
            | Stage::AwaitingSignal
            | Stage::Counting
            | Stage::FindingLimit { .. }
            | Stage::Committing => {}
        }
    }

    pub(super) fn closing(&mut self, next: Stage) {
        if let Phase::Closing(Closing { stage, .. }) = &mut self.phase {
            *stage = next;
        }
    }
}
