//! Decides when a silent command counts as stalled, and when it has moved on.
//!
//! What the guest reports about a command's processes is only a claim: code in the sandbox can forge it. So the server measures the silence
//! by its own clock, from the last output that arrived. A stall needs a full `stall_after` since that output and since the last resumption.
//! A task therefore gets at most one stall and one resumption in that time, whatever is claimed.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Left, Supervisor};
use errand_bridge::Activity;
use errand_task::{NotificationKind, Stall, TaskState, Waiting, prompt};

/// How many bytes at the end of the output are searched for a prompt.
const PROMPT_BYTES: usize = 4096;
/// The shortest time between two stalls of a task, if `stall_after` is shorter.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// How long one command has been silent, as measured by the server.
pub(super) struct Silence {
    /// When the last output arrived, or following began.
    since: Instant,
    /// The start of the `stall_after` period: the last output or the last resumption, whichever is later.
    calm_since: Instant,
    /// What the guest has claimed about the processes since then.
    claim: Option<Claim>,
}

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
    pub(super) fn broken(&mut self) {
        *self = Self::new(Instant::now());
    }

    /// Takes in a claim about the command's processes. `stall` is the current stall, if any. Ignores how long the guest says the command
    /// was silent.
    fn claimed(&mut self, stall: Option<&Stall>, activity: Activity) -> Claimed {
        let Activity { busy, waiting, .. } = activity;
        match stall {
            // A process that waited for input and no longer does has received some, whatever it does with it.
            Some(stall) if busy || (stall.waiting.is_some() && waiting.is_none()) => {
                // Requires a new claim before the next stall: the prompt that was just answered is still the last line.
                (self.calm_since, self.claim) = (Instant::now(), None);
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

impl Supervisor {
    /// Handles a claim about a silent command's processes. Returns when to check again if a stall may be due then, because the guest makes
    /// the same claim only once.
    pub(super) async fn check_activity(
        &mut self,
        silence: &mut Silence,
        activity: Activity,
    ) -> Result<Option<Instant>, Left> {
        match silence.claimed(self.task.stall.as_ref(), activity) {
            Claimed::Nothing => Ok(None),
            Claimed::Resumption => self.resume().await.map(|()| None),
            Claimed::Suspicion => self.check_stall(silence).await,
        }
    }

    /// Announces a stall if the command has been silent long enough, and either a process waits for input or the last line looks like a
    /// prompt. If the silence is still too short, returns when to check again.
    pub(super) async fn check_stall(&mut self, silence: &mut Silence) -> Result<Option<Instant>, Left> {
        if self.task.stall.is_some() || !matches!(self.task.state, TaskState::Running { .. }) {
            return Ok(None);
        }
        let Some(due) = silence.due(self.inner.settings.stall_after) else { return Ok(None) };
        if Instant::now() < due {
            return Ok(Some(due));
        }
        let waiting = silence.claim.as_ref().and_then(|claim| claim.waiting.clone());
        let tail = self.live.output.tail(PROMPT_BYTES);
        let last_line = match (prompt::waiting_line(&tail), &waiting) {
            (Some(line), _) => line,
            (None, Some(_)) => prompt::last_line(&tail),
            (None, None) => return Ok(None),
        };
        let silent_for = silence.since.elapsed();
        let stall = Stall { since: SystemTime::now(), silent_for, last_line, waiting }.bounded();
        tracing::info!(?silent_for, last_line = ?stall.last_line, waiting = ?stall.waiting, "stalled");
        let mut task = self.task.clone();
        task.stall = Some(stall);
        // Tried once only: while the store fails, the supervisor must still be able to stop the command.
        self.try_commit_record(task, NotificationKind::Stalled).await?;
        let again = Instant::now() + self.inner.settings.stall_check_interval;
        Ok(self.task.stall.is_none().then_some(again))
    }

    /// Announces that a stalled command has printed something new.
    pub(super) async fn check_resumed(&mut self) -> Result<(), Left> {
        // The record holds the output size at the stall: output that is merely read again after a restart is not new.
        if self.task.stall.is_none() || self.live.output.end() <= self.task.output.bytes {
            return Ok(());
        }
        self.resume().await
    }

    async fn resume(&mut self) -> Result<(), Left> {
        let mut task = self.task.clone();
        task.stall = None;
        self.try_commit_record(task, NotificationKind::Resumed).await
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
        Stall { since: SystemTime::UNIX_EPOCH, silent_for: STALL_AFTER, last_line: String::new(), waiting }
    }

    #[tokio::test(start_paused = true)]
    async fn a_claimed_silence_makes_no_stall() {
        let mut silence = Silence::new(Instant::now());
        assert_eq!(silence.claimed(None, claim(false, true)), Claimed::Suspicion);
        assert_eq!(silence.due(STALL_AFTER), Some(Instant::now() + STALL_AFTER));
        tokio::time::advance(STALL_AFTER / 2).await;
        silence.broken();
        assert_eq!(silence.due(STALL_AFTER), Some(Instant::now() + STALL_AFTER));
        assert_eq!(silence.claimed(None, claim(true, false)), Claimed::Suspicion);
        assert_eq!(silence.due(STALL_AFTER), None);
    }

    #[tokio::test(start_paused = true)]
    async fn forged_claims_make_one_stall_in_its_time() {
        let mut silence = Silence::new(Instant::now());
        let mut stalled: Option<Stall> = None;
        let (mut stalls, mut resumptions) = (0, 0);
        for round in 0..10_000 {
            tokio::time::advance(Duration::from_millis(60)).await;
            match silence.claimed(stalled.as_ref(), claim(round % 2 == 0, round % 2 == 1)) {
                Claimed::Resumption => {
                    resumptions += 1;
                    stalled = None;
                }
                Claimed::Suspicion if silence.due(STALL_AFTER).is_some_and(|due| due <= Instant::now()) => {
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
    fn a_stall_is_over_when_its_reader_works_or_is_answered() {
        let waiting = claim(false, true).waiting;
        for (stall, activity, expected) in [
            (stall(waiting.clone()), claim(false, true), Claimed::Nothing),
            (stall(waiting.clone()), claim(false, false), Claimed::Resumption),
            (stall(waiting), claim(true, true), Claimed::Resumption),
            (stall(None), claim(false, false), Claimed::Nothing),
            (stall(None), claim(true, false), Claimed::Resumption),
        ] {
            let mut silence = Silence::new(Instant::now());
            assert_eq!(silence.claimed(Some(&stall), activity.clone()), expected, "{activity:?}");
        }
    }
}
