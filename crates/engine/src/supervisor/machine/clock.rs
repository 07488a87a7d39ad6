//! When the command was launched and started, by the server's monotonic clock.

use std::time::{Duration, Instant, SystemTime};

use super::{Machine, Moment};

/// Where the guest enforces the timeout, how much later the server enforces it too. This gives the guest time to report the timeout first.
const BEHIND: Duration = Duration::from_secs(5);

/// When the command was launched and started.
#[derive(Debug, Default)]
pub(super) struct CommandClock {
    /// When the launch was begun, if this server began it.
    pub(super) launched_at: Option<Instant>,
    /// When the command was started, as far as it is known other than from the record.
    began_at: Option<Instant>,
}

impl CommandClock {
    /// The command was started `age` ago. The first such statement counts.
    pub(super) fn began(&mut self, age: Duration, now: Moment) {
        self.began_at = self.began_at.or(now.at.checked_sub(age));
    }

    /// The age of a command that the sandbox reports as `age` old: it cannot have started before its launch.
    pub(super) fn possible_age(&self, age: Duration, now: Moment) -> Duration {
        self.launched_at.map_or(age, |launched_at| age.min(now.at.saturating_duration_since(launched_at)))
    }

    /// When the command was started, so that setting the machine's time ends no command early. Falls back to the time in the record for a
    /// command that was started under an earlier server in a sandbox that does not report the command's age.
    fn began_at(&self, recorded: SystemTime, now: Moment) -> Instant {
        self.began_at.unwrap_or_else(|| {
            let age = now.wall.duration_since(recorded).unwrap_or_default();
            now.at.checked_sub(age).unwrap_or(now.at)
        })
    }
}

impl Machine {
    /// When the command was started; none if it was not, as far as the record says.
    pub(super) fn began_at(&self, now: Moment) -> Option<Instant> {
        self.task.state.started_at().map(|recorded| self.clock.began_at(recorded, now))
    }

    /// How old the command is; zero if it was not started.
    pub(super) fn age(&self, now: Moment) -> Duration {
        self.began_at(now).map_or(Duration::ZERO, |began_at| now.at.saturating_duration_since(began_at))
    }

    /// When the server enforces the timeout, counted from the command's real start.
    pub(super) fn timeout_at(&self, now: Moment) -> Option<Instant> {
        // By this time the guest has killed the command. An earlier SIGTERM from the server would be the command's second one, while it
        // still uses its grace.
        let behind = if self.guest_enforces_timeout { BEHIND + self.rules.stop_grace } else { Duration::ZERO };
        self.began_at(now)?.checked_add(self.task.spec.timeout)?.checked_add(behind)
    }
}
