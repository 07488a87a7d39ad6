//! The invariants of what is announced besides the end: heartbeats, silences, and the policies that callers want.

use std::time::{Duration, Instant};

use crate::supervisor::machine::Notice;
use errand_task::{NotificationKind, NotifyPolicy, Task, TaskState};

/// How much later than it was made a notice may be stored.
const LATENESS: Duration = Duration::from_millis(3100);
/// How late an announcement may be while everything answers: a store that failed is tried again after at most 10 s.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(30);

/// What a record is judged by when it is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) now: Instant,
    /// The command's real age.
    pub(super) age: Option<Duration>,
    /// The output that the server knows ends at this byte.
    pub(super) output_end: u64,
}

/// What was announced besides the end.
#[derive(Debug, Default)]
pub(super) struct Announced {
    pub(super) heartbeats: u32,
    pub(super) silences: u32,
    /// When the last heartbeat was announced, or the interval changed.
    heartbeat_base: Option<Instant>,
    /// When this server last announced a silence.
    silence_at: Option<Instant>,
    /// When the server last heard of output.
    output_at: Option<Instant>,
    /// When a server first learned from the sandbox that there was output before it.
    output_found_at: Option<Instant>,
    /// Since when a policy has been wanted that is not stored.
    policy_since: Option<Instant>,
    /// When the policy last changed.
    policy_at: Option<Instant>,
    /// Since when everything has answered while the command ran.
    announcing_since: Option<Instant>,
}

impl Announced {
    /// The server ended: what its callers wanted and was not stored is forgotten with it.
    pub(super) fn forget_server(&mut self) {
        (self.policy_since, self.announcing_since, self.silence_at) = (None, None, None);
    }

    /// A record is about to be stored, perhaps with a heartbeat or an idle notice. `misled`: the command's age is known from a clock alone that
    /// was set.
    pub(super) fn storing(
        &mut self,
        old: &Task,
        new: &Task,
        notice: Option<&Notice>,
        (seen, misled): (Seen, bool),
    ) -> Result<(), String> {
        let kind = notice.map(|notice| notice.kind);
        let running = |task: &Task| matches!(task.state, TaskState::Running { .. });
        match kind {
            Some(NotificationKind::Heartbeat) => {
                let Some(every) = new.notify.heartbeat_every else { return Err("nobody wants heartbeats".to_owned()) };
                let since = self.heartbeat_base.map(|base| seen.now.saturating_duration_since(base)).or(seen.age);
                if !misled && since.is_none_or(|since| since + LATENESS < every) {
                    return Err(format!("a heartbeat came {since:?} after the last one, not after {every:?}"));
                }
                self.heartbeats += 1;
            }
            Some(NotificationKind::Idle) => {
                let after = new.notify.idle_after;
                let silent = self.output_at.or(self.output_found_at).map(|at| seen.now.saturating_duration_since(at));
                if after.is_none() || silent < after {
                    return Err(format!("a silence of {silent:?} was announced, not of {after:?}"));
                }
                let again = old.idle_since.is_some() && seen.output_end <= old.output.bytes;
                if again || new.idle_since.is_none() {
                    return Err("a silence was announced twice".to_owned());
                }
                let since = self.silence_at.map(|at| seen.now.saturating_duration_since(at));
                if since.is_some_and(|since| since + LATENESS < Duration::from_secs(15)) {
                    return Err(format!("two silences were announced within {since:?}"));
                }
                self.silence_at = Some(seen.now);
                self.silences += 1;
            }
            Some(
                NotificationKind::Completed
                | NotificationKind::Stalled
                | NotificationKind::Resumed
                | NotificationKind::LateOutcome
                | NotificationKind::WatchMatched
                | NotificationKind::WatchDisabled
                | NotificationKind::WatchesSuspended
                | NotificationKind::WatchesRestored,
            )
            | None => {
                if new.idle_since.is_some() && new.idle_since != old.idle_since {
                    return Err("a silence began without a notice".to_owned());
                }
            }
        }
        if matches!(kind, Some(NotificationKind::Heartbeat | NotificationKind::Idle)) && !(running(old) && running(new))
        {
            return Err(format!("{kind:?} was announced of a command that is {:?}", new.status()));
        }
        let changed = old.notify.heartbeat_every != new.notify.heartbeat_every;
        // Before the start is known, nothing but the start can count.
        if kind == Some(NotificationKind::Heartbeat) || (changed && old.state.started_at().is_some()) {
            self.heartbeat_base = Some(seen.now);
        }
        if old.notify != new.notify {
            self.policy_at = Some(seen.now);
        }
        Ok(())
    }

    /// A server that takes over learns of output that none has heard of.
    pub(super) fn found_output(&mut self, now: Instant) {
        self.output_found_at.get_or_insert(now);
    }

    /// There was output, or it was read again.
    pub(super) fn heard_output(&mut self, now: Instant) {
        self.output_at = Some(now);
    }

    /// A caller wants another policy.
    pub(super) fn policy_wanted(&mut self, now: Instant) {
        self.policy_since = Some(now);
    }

    /// A caller is told that its policy, which is `wanted` unless there is a later one, is stored.
    pub(super) fn policy_stored(&mut self, wanted: Option<NotifyPolicy>, stored: &Task) -> Result<(), String> {
        let Some(wanted) = wanted else { return Ok(()) };
        self.policy_since = None;
        if stored.notify != wanted {
            return Err(format!("a policy is said to be stored, and {:?} is", stored.notify));
        }
        Ok(())
    }

    /// Called at each step. `can`: everything answers, and the command runs.
    pub(super) fn announcing(&mut self, stored: &Task, can: bool, (seen, leapt): (Seen, bool)) -> Result<(), String> {
        if !can || !matches!(stored.state, TaskState::Running { .. }) {
            self.announcing_since = None;
            return Ok(());
        }
        let since = *self.announcing_since.get_or_insert(seen.now);
        let since = self.policy_at.map_or(since, |at| at.max(since));
        let overdue = |at: Instant| seen.now.saturating_duration_since(at.max(since)) > ANNOUNCED_WITHIN;
        if self.policy_since.is_some_and(overdue) {
            return Err("a policy is not stored".to_owned());
        }
        let began = seen.age.and_then(|age| seen.now.checked_sub(age));
        let base = self.heartbeat_base.or(began);
        let due = stored.notify.heartbeat_every.and_then(|every| Some(base? + every));
        if !leapt && due.is_some_and(overdue) {
            return Err("a heartbeat is overdue".to_owned());
        }
        let silent = self.output_at.filter(|_| stored.idle_since.is_none() && seen.output_end > 0);
        let due = stored.notify.idle_after.and_then(|after| Some(silent? + after));
        if due.is_some_and(overdue) {
            return Err("a silence is not announced".to_owned());
        }
        Ok(())
    }
}
