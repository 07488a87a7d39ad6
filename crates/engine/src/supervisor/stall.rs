//! When a silent command counts as stalled, and when it has moved on.
//!
//! What a bridge says of a command's processes is a claim: a sandbox can forge it. How long the command has been silent is therefore measured
//! here, by the server's own clock, from the last output that came. A stall needs a whole `stall_after` since that, and since the last
//! resumption: a task gets one stall and one resumption in that time, whatever is claimed.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Left, Supervisor};
use errand_bridge::Activity;
use errand_task::{NotificationKind, Stall, TaskState, Waiting, prompt};

/// How much of the end of the output is looked at for a prompt, in bytes.
const PROMPT_BYTES: usize = 4096;
/// The shortest time between two stalls of a task, where `stall_after` is shorter.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// The silence of one command, as the server hears it.
pub(super) struct Silence {
    /// The last output, or the start of following.
    since: Instant,
    /// From when on a stall must be waited for: the same, or the last resumption.
    calm_since: Instant,
    /// What the bridge claims of the processes since then.
    claim: Option<Claim>,
}

struct Claim {
    busy: bool,
    waiting: Option<Waiting>,
}

/// What a claim leads to.
#[derive(Debug, PartialEq, Eq)]
enum Claimed {
    /// Nothing: it is no news.
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

    /// There was output, or a start. What was claimed before is out of date.
    pub(super) fn broken(&mut self) {
        *self = Self::new(Instant::now());
    }

    /// Takes a claim about a command that is or is not stalled. Its own measure of the silence is left alone.
    fn claimed(&mut self, stall: Option<&Stall>, activity: Activity) -> Claimed {
        let Activity { busy, waiting, .. } = activity;
        match stall {
            // A process that waited and does not any more has its answer, whatever it does with it.
            Some(stall) if busy || (stall.waiting.is_some() && waiting.is_none()) => {
                // Only another claim makes another stall: the prompt that was just answered still stands in the last line.
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

    /// When a stall may be announced; never while the command is said to work.
    fn due(&self, stall_after: Duration) -> Option<Instant> {
        let busy = self.claim.as_ref().is_some_and(|claim| claim.busy);
        (!busy).then(|| self.calm_since + stall_after.max(LEAST_INTERVAL))
    }
}

impl Supervisor {
    /// What the bridge claims of a silent command's processes. Returns when to look again, if a stall may be due then: the bridge makes the
    /// same claim only once.
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

    /// Announces a stall when the command has been silent for long enough, and either a process waits for input or the last line looks
    /// like a prompt. Where it was not long enough yet, returns when it will be.
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
        // Not until it is done: a command that cannot be told of must still be stopped when that is asked for.
        self.try_commit_record(task, NotificationKind::Stalled).await?;
        let again = Instant::now() + self.inner.settings.stall_check_interval;
        Ok(self.task.stall.is_none().then_some(again))
    }

    /// Announces that a stalled command has printed something it had not printed before.
    pub(super) async fn check_resumed(&mut self) -> Result<(), Left> {
        // The record holds the size as of the stall: output that is only read again after a restart is no news.
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
