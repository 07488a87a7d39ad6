//! How old records are, by this machine's clocks.
//!
//! The wall clock can be wrong, so a [`Timeline`] decides how much of the time that it shows has really passed. The timeline is stored before
//! anything is removed, and the next server continues it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OptionalExtension as _};

use super::{
    timeline::{Step, Timeline},
    values::{micros, time},
};
use crate::{Clock, StoreError};

/// The key of the timeline in the table `meta`.
const KEY: &str = "timeline";

/// The clocks, and what was observed of them.
#[derive(Debug)]
pub(super) struct Ages {
    clock: Arc<dyn Clock>,
    /// The wall clock when the store was opened. Records of later say nothing about the time before.
    opened: SystemTime,
    /// None before the first observation.
    observed: Mutex<Option<Observed>>,
}

#[derive(Debug)]
struct Observed {
    timeline: Timeline,
    /// The monotonic clock at the last observation.
    monotonic: Duration,
}

impl Ages {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { opened: clock.wall(), clock, observed: Mutex::new(None) }
    }

    /// What the wall clock shows.
    pub(super) fn now(&self) -> SystemTime {
        self.clock.wall()
    }

    /// What the wall clock showed when `age` of real time ago.
    pub(super) fn before(&self, connection: &Connection, age: Duration) -> Result<SystemTime, StoreError> {
        self.observe(connection, |timeline| Ok(timeline.before(age)))
    }

    /// How much time has really passed since the wall clock showed `moment`.
    pub(super) fn since(&self, connection: &Connection, moment: SystemTime) -> Result<Duration, StoreError> {
        self.observe(connection, |timeline| Ok(timeline.since(moment)))
    }

    /// Stores what was observed. Part of every transaction that removes old records.
    pub(super) fn save(&self, connection: &Connection) -> Result<(), StoreError> {
        let kept =
            self.observe(connection, |timeline| serde_json::to_string(timeline).map_err(StoreError::Unstorable))?;
        let mut statement = connection.prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )?;
        statement.execute((KEY, kept))?;
        Ok(())
    }

    fn observe<T>(
        &self,
        connection: &Connection,
        question: impl FnOnce(&Timeline) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, monotonic) = (self.clock.wall(), self.clock.monotonic());
        let (mut timeline, passed) = match observed.take() {
            Some(last) => (last.timeline, Some(monotonic.saturating_sub(last.monotonic))),
            None => (self.read(connection)?, None),
        };
        match timeline.observe(now, passed) {
            Step::Usual => {}
            Step::Forward { from } => tracing::warn!(
                last_seen = %humantime::format_rfc3339_seconds(from),
                now = %humantime::format_rfc3339_seconds(now),
                "the clock is far ahead of when it was last seen; the time between is not believed to have passed, \
                 and what was stored before is kept longer"
            ),
            Step::Back { from } => tracing::warn!(
                last_seen = %humantime::format_rfc3339_seconds(from),
                now = %humantime::format_rfc3339_seconds(now),
                "the clock was set back"
            ),
        }
        let answer = question(&timeline);
        *observed = Some(Observed { timeline, monotonic });
        answer
    }

    /// The timeline that the last server stored. Without one, the newest record tells when a server last ran.
    fn read(&self, connection: &Connection) -> Result<Timeline, StoreError> {
        let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE key = ?")?;
        let kept: Option<String> = statement.query_row([KEY], |row| row.get(0)).optional()?;
        if let Some(kept) = kept {
            match serde_json::from_str(&kept) {
                Ok(timeline) => return Ok(timeline),
                Err(error) => tracing::warn!(%error, "the stored timeline of the clock cannot be decoded"),
            }
        }
        Ok(Timeline::new(newest_before(connection, self.opened)?.unwrap_or(self.opened)))
    }
}

/// The newest time before `moment` at which a task ended or a notification was made.
fn newest_before(connection: &Connection, moment: SystemTime) -> Result<Option<SystemTime>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT max(newest) FROM (\
         SELECT max(finished_at) AS newest FROM tasks INDEXED BY tasks_finished WHERE finished_at < ?1 UNION ALL \
         SELECT * FROM (SELECT created_at FROM notifications NOT INDEXED WHERE created_at < ?1 ORDER BY sequence DESC LIMIT 1))",
    )?;
    let newest: Option<i64> = statement.query_row([micros(moment)], |row| row.get(0))?;
    Ok(newest.map(time))
}
