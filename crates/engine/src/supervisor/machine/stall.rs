//! Decides when a silent command counts as stalled, and when it has moved on.
//!
//! What the guest reports about a command's processes is only a claim: code in the sandbox can forge it. So the server measures the silence
//! by its own clock, from the last output that arrived. A stall needs a full `stall_after` since that output and since the last resumption.
//! A task therefore gets at most one stall and one resumption in that time, whatever is claimed.

use std::time::{Duration, Instant};

use super::{
    Machine, Moment, Notice, Operation, Phase,
    commit::Then,
    follow::{Following, Stage},
};
use errand_bridge::Activity;
use errand_task::{NotificationKind, Stall, TaskState, Waiting, prompt};

/// How many bytes at the end of the output are searched for a prompt.
const PROMPT_BYTES: usize = 4096;
/// The shortest time between two stalls of a task, if `stall_after` is shorter.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// How long one command has been silent, as measured by the server.
#[derive(Debug)]
pub(super) struct Silence {
    /// When the last output arrived, or following began.
    pub(super) since: Instant,
    /// The start of the `stall_after` period: the last output or the last resumption, whichever is later.
    calm_since: Instant,
    /// What the guest has claimed about the processes since then.
    claim: Option<Claim>,
}

#[derive(Debug)]
struct Claim {
    busy: bool,
    waiting: Option<Waiting>,
}

/// What follows from a claim.
#[derive(Debug, PartialEq, Eq)]
enum Claimed {
    /// Nothing: the claim changes nothing.
    Nothing,
    /// The stalled command moved on.
    Resumption,
    /// The command may be stalled.
    Suspicion,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, calm_since: now, claim: None }
    }

    /// Resets the silence: there was output, or the command started. Earlier claims are out of date.
    pub(super) fn broken(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// Takes in a claim about the command's processes. `stall` is the current stall, if any. Ignores how long the guest says the command
    /// was silent.
    fn claimed(&mut self, stall: Option<&Stall>, activity: Activity, now: Instant) -> Claimed {
        let Activity { busy, waiting, .. } = activity;
        match stall {
            // A process that waited for input and no longer does has received some, whatever it does with it.
            Some(stall) if busy || (stall.waiting.is_some() && waiting.is_none()) => {
                // Requires a new claim before the next stall: the prompt that was just answered is still the last line.
                (self.calm_since, self.claim) = (now, None);
                Claimed::Resumption
            }
            Some(_) => Claimed::Nothing,
            None => {
                self.claim = Some(Claim { busy, waiting });
                Claimed::Suspicion
            }
        }
    }

    /// When a stall may be announced; none while the guest claims that the command is busy.
    fn due(&self, stall_after: Duration) -> Option<Instant> {
        let busy = self.claim.as_ref().is_some_and(|claim| claim.busy);
        (!busy).then(|| self.calm_since + stall_after.max(LEAST_INTERVAL))
    }
}

impl Machine {
    /// Handles a claim about a silent command's processes.
    pub(super) fn activity(&mut self, activity: Activity, now: Moment) {
        let Phase::Following(following) = &mut self.phase else { return };
        let claimed = following.silence.claimed(self.task.stall.as_ref(), activity, now.at);
        if matches!(following.stage, Stage::Begun { .. }) {
            // A stall is told of a command whose start is committed.
            following.stall_check_at = Some(now.at);
            return self.commit_start(Then::Proceed, now);
        }
        match claimed {
            Claimed::Nothing => self.check_stall_at(None, now),
            Claimed::Resumption => {
                self.check_stall_at(None, now);
                self.resume(Then::Proceed, now);
            }
            Claimed::Suspicion => self.check_stall(now),
        }
    }

    /// Reads the end of the output if the command has been silent long enough to count as stalled. If the silence is still too short, sets
    /// when to check again, because the guest makes the same claim only once.
    pub(super) fn check_stall(&mut self, now: Moment) {
        let Phase::Following(following) = &self.phase else { return };
        if self.task.stall.is_some() || !matches!(self.task.state, TaskState::Running { .. }) {
            return self.check_stall_at(None, now);
        }
        match following.silence.due(self.rules.stall_after) {
            Some(due) if due <= now.at => {
                self.check_stall_at(None, now);
                if let Phase::Following(following) = &mut self.phase {
                    following.reads_tail = true;
                }
                self.begin(Operation::ReadTail { limit: PROMPT_BYTES });
            }
            due => self.check_stall_at(due, now),
        }
    }

    /// Announces a stall if either a process waits for input or the last line looks like a prompt.
    pub(super) fn tail_read(&mut self, tail: &[u8], now: Moment) {
        let Phase::Following(following) = &mut self.phase else { return };
        following.reads_tail = false;
        let waiting = following.silence.claim.as_ref().and_then(|claim| claim.waiting.clone());
        let last_line = match (prompt::waiting_line(tail), &waiting) {
            (Some(line), _) => line,
            (None, Some(_)) => prompt::last_line(tail),
            (None, None) => return,
        };
        let silent_for = now.at.saturating_duration_since(following.silence.since);
        let stall = Stall { since: now.wall, silent_for, last_line, waiting }.bounded();
        tracing::info!(?silent_for, last_line = ?stall.last_line, waiting = ?stall.waiting, "stalled");
        let mut task = self.draft(now);
        task.stall = Some(stall);
        // Tried once only: while the store fails, the command must still be stopped in time.
        self.try_commit(task, Some(Notice::new(NotificationKind::Stalled, now)), Then::StallTold, now);
    }

    /// The stall was committed, or is tried again later.
    pub(super) fn stall_told(&mut self, now: Moment) {
        let again = now.at + self.rules.stall_check_interval;
        self.check_stall_at(self.task.stall.is_none().then_some(again), now);
        self.proceed(now);
    }

    /// Announces that a stalled command has printed something new, or ends its silence, then continues.
    pub(super) fn check_resumed(&mut self, then: Then, now: Moment) {
        // The record holds the output size at the stall and at the silence.
        match (&self.task.stall, self.task.idle_since) {
            (Some(_), _) if self.has_new_output() => self.resume(then, now),
            // The draft ends the silence.
            (None, Some(_)) if self.has_new_output() => self.try_commit(self.draft(now), None, then, now),
            (Some(_) | None, _) => self.go_on(then, now),
        }
    }

    fn resume(&mut self, then: Then, now: Moment) {
        let mut task = self.draft(now);
        task.stall = None;
        self.try_commit(task, Some(Notice::new(NotificationKind::Resumed, now)), then, now);
    }

    /// Sets when to check for a stall. Where the guest does not report activity, that is done regularly.
    fn check_stall_at(&mut self, due: Option<Instant>, now: Moment) {
        let regular = now.at + self.rules.stall_check_interval;
        let guest_enforces_timeout = self.guest_enforces_timeout;
        if let Phase::Following(Following { stall_check_at, .. }) = &mut self.phase {
            *stall_check_at = if guest_enforces_timeout { due } else { Some(regular) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use errand_task::Reads;

    const STALL_AFTER: Duration = Duration::from_secs(45);

    fn claim(busy: bool, waits: bool) -> Activity {
        let waiting = waits.then(|| Waiting { pid: 1, command: "x".repeat(1 << 20), reads: Reads::Stdin });
        Activity { silent_for: Duration::from_secs(1 << 40), busy, waiting }
    }

    fn stall(waiting: Option<Waiting>) -> Stall {
        Stall { since: std::time::SystemTime::UNIX_EPOCH, silent_for: STALL_AFTER, last_line: String::new(), waiting }
    }

    #[test]
    fn silence_claim_alone_makes_no_stall() {
        let mut now = Instant::now();
        let mut silence = Silence::new(now);
        assert_eq!(silence.claimed(None, claim(false, true), now), Claimed::Suspicion);
        assert_eq!(silence.due(STALL_AFTER), Some(now + STALL_AFTER));
        now += STALL_AFTER / 2;
        silence.broken(now);
        assert_eq!(silence.due(STALL_AFTER), Some(now + STALL_AFTER));
        assert_eq!(silence.claimed(None, claim(true, false), now), Claimed::Suspicion);
        assert_eq!(silence.due(STALL_AFTER), None);
    }

    #[test]
    fn forged_claims_make_no_extra_stalls() {
        let mut now = Instant::now();
        let mut silence = Silence::new(now);
        let mut stalled: Option<Stall> = None;
        let (mut stalls, mut resumptions) = (0, 0);
        for round in 0..10_000 {
            now += Duration::from_millis(60);
            match silence.claimed(stalled.as_ref(), claim(round % 2 == 0, round % 2 == 1), now) {
                Claimed::Resumption => {
                    resumptions += 1;
                    stalled = None;
                }
                Claimed::Suspicion if silence.due(STALL_AFTER).is_some_and(|due| due <= now) => {
                    stalls += 1;
                    stalled = Some(stall(silence.claim.as_ref().and_then(|claim| claim.waiting.clone())).bounded());
                }
                Claimed::Suspicion | Claimed::Nothing => {}
            }
        }
        // Ten minutes of claims.
        assert!((12..=14).contains(&stalls) && resumptions <= stalls, "{stalls} stalls, {resumptions} resumptions");
    }

    #[test]
    fn stall_ends_once_its_process_stops_waiting() {
        let waiting = claim(false, true).waiting;
        for (stall, activity, expected) in [
            (stall(waiting.clone()), claim(false, true), Claimed::Nothing),
            (stall(waiting.clone()), claim(false, false), Claimed::Resumption),
            (stall(waiting), claim(true, true), Claimed::Resumption),
            (stall(None), claim(false, false), Claimed::Nothing),
            (stall(None), claim(true, false), Claimed::Resumption),
        ] {
            let now = Instant::now();
            let mut silence = Silence::new(now);
            assert_eq!(silence.claimed(Some(&stall), activity.clone(), now), expected, "{activity:?}");
        }
    }
}
