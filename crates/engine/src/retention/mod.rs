//! What is forgotten, and when: finished tasks some time after their end, with their files; notifications after theirs.
//!
//! Owns the sweeps. How old something is goes by a [`Timeline`], because the wall clock can be wrong; files in sandboxes are [`leftovers`].

mod leftovers;
mod timeline;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{Mutex, mpsc};

use super::{EngineError, Inner};
use errand_store::{StoreError, TaskStore};
use errand_task::SandboxRecord;
use timeline::{Step, Timeline};

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How many rows are removed in one transaction: few enough for other changes to come between.
const BATCH: u32 = 64;
/// How many sandboxes can wait to be looked at because they were reached. More are looked at in the next sweep.
const REACHED: usize = 256;
/// Under which name the store keeps the timeline.
const KEY: &str = "timeline";

/// What retention shares with the rest of the engine.
pub(super) struct Retention {
    clock: Arc<dyn Clock>,
    /// The wall clock when the engine was made: what was stored later says nothing of the time before.
    began: SystemTime,
    /// Used by one sweeper at a time.
    reached: Mutex<mpsc::Receiver<SandboxRecord>>,
}

impl Retention {
    /// With the way for sandboxes that were reached.
    pub(super) fn new() -> (Self, mpsc::Sender<SandboxRecord>) {
        let (sender, reached) = mpsc::channel(REACHED);
        let clock = Arc::new(SystemClock { begun: Instant::now() });
        (Self { began: clock.wall(), clock, reached: Mutex::new(reached) }, sender)
    }
}

/// Where retention takes the time from.
trait Clock: Send + Sync {
    /// The time of day. It may leap.
    fn wall(&self) -> SystemTime;
    /// Time that has passed since some moment of this process. It never leaps.
    fn monotonic(&self) -> Duration;
}

struct SystemClock {
    begun: Instant,
}

impl Clock for SystemClock {
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// Removes what is due, now and every hour, until the server ends; and what is left in sandboxes when they are reached.
pub(super) async fn run(inner: Arc<Inner>) {
    let retention = &inner.retention;
    let mut reached = retention.reached.lock().await;
    let mut sweeper = Sweeper::new(Arc::clone(&inner.store), Arc::clone(&retention.clock), retention.began);
    let mut due = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = inner.leave.cancelled() => return,
            () = tokio::time::sleep_until(due) => {
                due = tokio::time::Instant::now() + INTERVAL;
                tokio::select! {
                    () = inner.leave.cancelled() => return,
                    swept = sweep(&inner, &mut sweeper) => {
                        if let Err(error) = swept {
                            tracing::error!(error = &error as &dyn std::error::Error, "old tasks could not be removed");
                        }
                    }
                }
            }
            Some(sandbox) = reached.recv() => {
                tokio::select! {
                    () = inner.leave.cancelled() => return,
                    () = leftovers::remove_pending(&inner, &sandbox) => {}
                }
            }
        }
    }
}

async fn sweep(inner: &Arc<Inner>, sweeper: &mut Sweeper) -> Result<(), EngineError> {
    let settings = &inner.settings;
    sweeper.sweep(settings.retention, settings.notification_retention).await?;
    let before = sweeper.before(leftovers::ORPHAN_AGE);
    leftovers::sweep(inner, before).await
}

/// Removes old records.
struct Sweeper {
    store: Arc<dyn TaskStore>,
    clock: Arc<dyn Clock>,
    began: SystemTime,
    /// None before the first sweep.
    timeline: Option<Timeline>,
    /// The monotonic time of the last sweep.
    last: Option<Duration>,
}

impl Sweeper {
    fn new(store: Arc<dyn TaskStore>, clock: Arc<dyn Clock>, began: SystemTime) -> Self {
        Self { store, clock, began, timeline: None, last: None }
    }

    /// The wall clock of the time so long ago, as far as that can be believed.
    fn before(&self, age: Duration) -> SystemTime {
        self.timeline.as_ref().map_or(SystemTime::UNIX_EPOCH, |timeline| timeline.before(age))
    }

    async fn sweep(&mut self, retention: Duration, notification_retention: Duration) -> Result<(), StoreError> {
        self.observe(retention.max(notification_retention)).await?;
        let (finished, unread) = (self.before(retention), self.before(notification_retention));
        let mut tasks = 0;
        loop {
            match self.store.remove_finished_tasks(finished, BATCH).await? {
                0 => break,
                removed => tasks += removed,
            }
        }
        if tasks > 0 {
            tracing::info!(tasks, "removed old tasks");
        }
        while self.store.remove_notifications(finished, unread, BATCH).await? > 0 {}
        Ok(())
    }

    /// Notes the time, and keeps what it means before anything is removed.
    async fn observe(&mut self, longest: Duration) -> Result<(), StoreError> {
        let (now, monotonic) = (self.clock.wall(), self.clock.monotonic());
        let mut timeline = match self.timeline.take() {
            Some(timeline) => timeline,
            None => self.read().await?,
        };
        let passed = self.last.map(|last| monotonic.saturating_sub(last));
        match timeline.observe(now, passed, longest) {
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
        let kept = serde_json::to_string(&timeline)?;
        self.timeline = Some(timeline);
        self.last = Some(monotonic);
        self.store.put_meta(KEY, kept).await
    }

    /// What the last server knew of the time. Without that, the newest record tells when one was running.
    async fn read(&self) -> Result<Timeline, StoreError> {
        if let Some(kept) = self.store.meta(KEY).await? {
            match serde_json::from_str(&kept) {
                Ok(timeline) => return Ok(timeline),
                Err(error) => tracing::warn!(%error, "what was known of the clock cannot be understood"),
            }
        }
        let newest = self.store.newest_time(self.began).await?;
        Ok(Timeline::new(newest.unwrap_or(self.began)))
    }
}

#[cfg(test)]
mod tests;
