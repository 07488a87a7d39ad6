//! What is announced of a command that simply runs: heartbeats, and that it has become silent after output.
//!
//! Both are measured by the server's monotonic clock and the command's age, never by the wall clock. A notice that cannot be stored is tried
//! again, and one that is overdue is announced once, however many were missed.

use std::time::{Duration, Instant};

use super::{
    Machine, Moment, Notice, Phase,
    commit::Then,
    follow::{Following, Stage},
};
use errand_task::{NotificationKind, TaskState};

/// How late the server may see output. An announced silence is longer by this.
const SEEN_LATE: Duration = Duration::from_secs(1);
/// The shortest time between two idle notices: a command that prints and pauses in turn must not flood its session.
const IDLE_INTERVAL: Duration = Duration::from_secs(15);

/// When the next notice about a running command is due.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pulse {
    pub(super) heartbeat_at: Option<Instant>,
    pub(super) idle_at: Option<Instant>,
}

impl Pulse {
    pub(super) fn due(self) -> Option<Instant> {
        [self.heartbeat_at, self.idle_at].into_iter().flatten().min()
    }
}

impl Machine {
    /// Sets when the next heartbeat and the next idle notice are due. Called after everything that may change that.
    pub(super) fn schedule_pulse(&mut self, now: Moment) {
        let next = self.next_pulse(now);
        if let Phase::Following(following) = &mut self.phase {
            following.pulse = next;
        }
    }

    fn next_pulse(&self, now: Moment) -> Pulse {
        let Phase::Following(Following { stage: Stage::Running { .. }, silence, .. }) = &self.phase else {
            return Pulse::default();
        };
        if !matches!(self.task.state, TaskState::Running { .. }) {
            return Pulse::default();
        }
        let policy = &self.task.notify;
        let heartbeat_at = policy
            .heartbeat_every
            .and_then(|every| self.began_at(now)?.checked_add(self.task.heartbeat_from)?.checked_add(every));
        let has_printed = self.output.end > 0 || self.task.output.bytes > 0;
        let is_news = has_printed && (self.task.idle_since.is_none() || self.has_new_output());
        let idle_at = policy
            .idle_after
            .filter(|_| is_news)
            .and_then(|after| silence.since.checked_add(after)?.checked_add(SEEN_LATE))
            .map(|at| self.idle_told_at.map_or(at, |told| at.max(told + IDLE_INTERVAL)));
        // While the store fails, nothing can be announced.
        let storable = self.unsaved.map(|unsaved| unsaved.retry_at);
        let later = |at: Option<Instant>| at.map(|at| storable.map_or(at, |storable| at.max(storable)));
        Pulse { heartbeat_at: later(heartbeat_at), idle_at: later(idle_at) }
    }

    /// Whether there is output that the record does not count yet. Output that is merely read again after a restart is not new.
    pub(super) fn has_new_output(&self) -> bool {
        self.output.end > self.task.output.bytes
    }

    /// Announces that the command still runs.
    pub(super) fn heartbeat(&mut self, now: Moment) {
        let mut task = self.draft(now);
        task.heartbeat_from = self.age(now);
        self.announce(task, NotificationKind::Heartbeat, now);
    }

    /// Announces that the command has become silent.
    pub(super) fn idle(&mut self, now: Moment) {
        let mut task = self.draft(now);
        task.idle_since = now.wall.checked_sub(self.silent_for(now));
        self.idle_told_at = Some(now.at);
        self.announce(task, NotificationKind::Idle, now);
    }

    fn announce(&mut self, task: errand_task::Task, kind: NotificationKind, now: Moment) {
        let notice = Notice { silent_for: Some(self.silent_for(now)), ..Notice::new(kind, now) };
        tracing::debug!(kind = kind.word(), "announced");
        self.try_commit(task, Some(notice), Then::Proceed, now);
    }

    /// How long the server has received no output.
    fn silent_for(&self, now: Moment) -> Duration {
        match &self.phase {
            Phase::Following(following) => now.at.saturating_duration_since(following.silence.since),
            Phase::Idle
            | Phase::Queueing(_)
            | Phase::Launching(_)
            | Phase::Looking(_)
            | Phase::Attaching(_)
            | Phase::Closing(_)
            | Phase::Over => Duration::ZERO,
        }
    }
}
