//! Retention: removes finished tasks and their files some time after their end, and notifications after their own retention.
//!
//! Owns the sweeps. A [`Timeline`] decides how old something is, because the wall clock can be wrong. The files in sandboxes are the
//! business of [`leftovers`].

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

/// How often to sweep.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How many rows one transaction removes: few enough to let other writes in between.
const BATCH: u32 = 64;
/// How many reached sandboxes can be queued for cleaning. The next sweep cleans the rest.
const REACHED: usize = 256;
/// The key under which the store keeps the timeline.
const KEY: &str = "timeline";

/// What retention shares with the rest of the engine.
pub(super) struct Retention {
    clock: Arc<dyn Clock>,
    /// The wall clock when the engine was made. Records stored later say nothing about the time before.
    began: SystemTime,
    /// Locked by the one sweeper that runs.
    reached: Mutex<mpsc::Receiver<SandboxRecord>>,
}

impl Retention {
    /// Also returns the sender on which sandboxes are announced when they are reached.
    pub(super) fn new() -> (Self, mpsc::Sender<SandboxRecord>) {
        let (sender, reached) = mpsc::channel(REACHED);
        let clock = Arc::new(SystemClock { begun: Instant::now() });
        (Self { began: clock.wall(), clock, reached: Mutex::new(reached) }, sender)
    }
}

/// The clocks that retention uses.
trait Clock: Send + Sync {
    /// The wall clock. It may leap.
    fn wall(&self) -> SystemTime;
    /// Time since some moment of this process. It never leaps.
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

/// Removes what is due, now and every hour, until the server ends. Also cleans sandboxes when they are reached.
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

    /// The wall-clock time `age` ago, as far as the clock can be trusted.
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

    /// Observes the clocks, and stores the resulting timeline before anything is removed.
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

    /// The timeline that the last server stored. Without one, the newest record tells when a server last ran.
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
