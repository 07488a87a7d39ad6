//! A watch: yields a snapshot of a tenant's tasks, then their events, each with the newest state of its task.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    TaskEvent, TenantFeed,
    log::{Listed, Next, Wanted},
};
use crate::{Engine, EngineError, Inner};
use errand_store::{BotFilter, StoreError, TaskQuery};
use errand_task::{BotId, Nonce, SessionId, Status, Task, TaskId, TenantId};

/// The shortest time between two looks at the log by one watch. Many events in that time cost one look.
const PACE: Duration = Duration::from_millis(50);
/// How many events of others there may be before a quiet watch tells its position.
const PROGRESS: u64 = 1024;
/// How many finished tasks are read at once.
const PAGE: u32 = 32;
/// How long to wait before a busy store is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// How much earlier than a cursor a task may have ended to be listed again: clocks are set, and commits take time.
const MARGIN: Duration = Duration::from_secs(60);
/// How much longer than its timeout a task may take, from its acceptance to its end, and still be found after a restart.
const LONGEST_QUEUE: Duration = Duration::from_hours(24);

/// What to watch.
#[derive(Debug, Clone)]
pub struct WatchQuery {
    /// The tenant.
    pub tenant: TenantId,
    /// The bots.
    pub bots: BotFilter,
    /// The session; none: every session.
    pub session: Option<SessionId>,
    /// Where an earlier watch ended.
    pub after: Option<WatchCursor>,
}

impl Wanted for WatchQuery {
    fn wants(&self, bot: &BotId, session: &SessionId) -> bool {
        self.bots.admits(bot) && self.session.as_ref().is_none_or(|wanted| wanted == session)
    }
}

/// Where a watch can be continued. As text, it is opaque to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchCursor {
    epoch: Nonce,
    position: u64,
    /// When it was made, in whole seconds.
    at: SystemTime,
}

impl fmt::Display for WatchCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        write!(f, "{} {} {seconds}", self.epoch, self.position)
    }
}

/// The text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct NotACursor;

impl FromStr for WatchCursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let words: Vec<&str> = text.split(' ').collect();
        let [epoch, position, seconds] = words[..] else { return Err(NotACursor) };
        let seconds = Duration::from_secs(seconds.parse().map_err(|_| NotACursor)?);
        Ok(Self {
            epoch: epoch.parse().map_err(|_| NotACursor)?,
            position: position.parse().map_err(|_| NotACursor)?,
            at: UNIX_EPOCH.checked_add(seconds).ok_or(NotACursor)?,
        })
    }
}

/// What a watch yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// A snapshot begins.
    SnapshotStarted {
        /// Whether the watch could not be continued where its cursor says.
        too_old: bool,
    },
    /// A task of the snapshot.
    Listed(Box<Task>),
    /// The snapshot is complete.
    SnapshotComplete,
    /// Something happened to a task.
    Changed(TaskEvent, Box<Task>),
    /// Nothing happened for a while.
    Progress,
}

/// A watch of tasks. Reads when it is asked for the next item: it has no task and no queue, and a watch that is not read costs no memory.
pub struct TaskWatch {
    inner: Arc<Inner>,
    feed: Arc<TenantFeed>,
    changed: watch::Receiver<u64>,
    query: WatchQuery,
    stage: Stage,
    /// Position of the last event that was yielded or skipped.
    position: u64,
    /// Position that the caller was told last.
    told: u64,
    /// When nothing was pending the last time, or an event was yielded.
    current_at: SystemTime,
    look_at: Instant,
}

/// What comes next.
enum Stage {
    Snapshot {
        too_old: bool,
    },
    /// The unfinished tasks after this one; then, if the time is set, the tasks that ended since.
    Unfinished {
        after: Option<TaskId>,
        since: Option<SystemTime>,
    },
    /// Tasks that ended since a cursor was made, newest first.
    Ended {
        since: SystemTime,
        read: VecDeque<Task>,
        before: Option<TaskId>,
        more: bool,
    },
    Complete,
    Events,
}

impl Engine {
    /// Watches the tasks of a tenant. The watch goes on until it is dropped.
    pub fn watch(&self, query: WatchQuery) -> TaskWatch {
        let inner = Arc::clone(&self.inner);
        let feed = inner.feed.of(&query.tenant);
        let changed = feed.changed.subscribe();
        let known = |cursor: &WatchCursor| cursor.epoch == inner.feed.epoch && feed.log().continues(cursor.position);
        let (stage, position) = match query.after {
            Some(cursor) if known(&cursor) => (Stage::Events, cursor.position),
            Some(_) => (Stage::Snapshot { too_old: true }, 0),
            None => (Stage::Snapshot { too_old: false }, 0),
        };
        let current_at = query.after.map_or_else(SystemTime::now, |cursor| cursor.at);
        let look_at = Instant::now();
        TaskWatch { inner, feed, changed, query, stage, position, told: position, current_at, look_at }
    }
}

impl TaskWatch {
    /// The next item, and where another watch can continue after it; no cursor within a snapshot. Cancel safe.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next(&mut self) -> Result<(WatchItem, Option<WatchCursor>), EngineError> {
        loop {
            let item = match &mut self.stage {
                Stage::Snapshot { too_old } => {
                    let too_old = *too_old;
                    self.position = self.feed.log().last();
                    self.stage = Stage::Unfinished { after: None, since: too_old.then_some(self.current_at) };
                    return Ok((WatchItem::SnapshotStarted { too_old }, None));
                }
                Stage::Unfinished { .. } => self.unfinished().await?,
                Stage::Ended { .. } => self.ended().await?,
                Stage::Complete => {
                    self.stage = Stage::Events;
                    self.current_at = SystemTime::now();
                    Some(WatchItem::SnapshotComplete)
                }
                Stage::Events => self.event().await?,
            };
            match item {
                Some(item @ WatchItem::Listed(_)) => return Ok((item, None)),
                Some(item) => {
                    self.told = self.position;
                    let cursor =
                        WatchCursor { epoch: self.inner.feed.epoch, position: self.position, at: self.current_at };
                    return Ok((item, Some(cursor)));
                }
                None => {}
            }
        }
    }

    /// The next unfinished task of the snapshot; none: ask again.
    async fn unfinished(&mut self) -> Result<Option<WatchItem>, EngineError> {
        let Stage::Unfinished { after, since } = self.stage else { return Ok(None) };
        let listed = self.feed.log().unfinished(after, &self.query);
        let task = match listed {
            Listed::Task(id) => self.newest(id).await?.filter(|task| !task.status().is_terminal()).map(Box::new),
            Listed::Skipped(_) => {
                tokio::task::yield_now().await;
                None
            }
            Listed::End => None,
        };
        self.stage = match (listed, since) {
            (Listed::Task(id) | Listed::Skipped(id), since) => Stage::Unfinished { after: Some(id), since },
            (Listed::End, Some(since)) => Stage::Ended { since, read: VecDeque::new(), before: None, more: true },
            (Listed::End, None) => Stage::Complete,
        };
        Ok(task.map(WatchItem::Listed))
    }

    /// The next task that ended since the cursor was made; none: ask again.
    async fn ended(&mut self) -> Result<Option<WatchItem>, EngineError> {
        let Stage::Ended { since, read, before, more } = &mut self.stage else { return Ok(None) };
        if let Some(task) = read.pop_front() {
            return Ok(Some(WatchItem::Listed(Box::new(task))));
        }
        if !*more {
            self.stage = Stage::Complete;
            return Ok(None);
        }
        let query = TaskQuery {
            tenant: self.query.tenant.clone(),
            bots: self.query.bots.clone(),
            session: self.query.session.clone(),
            statuses: Status::ALL.into_iter().filter(|status| status.is_terminal()).collect(),
            labels: Default::default(),
            before: *before,
            limit: PAGE,
        };
        let page = match self.inner.store.task_page(query).await {
            Err(StoreError::Busy) => {
                sleep(BUSY_PAUSE).await;
                return Ok(None);
            }
            page => page?,
        };
        let oldest = *since - (self.inner.settings.max_timeout + LONGEST_QUEUE).min(elapsed(*since));
        *more = page.next.is_some_and(|next| made_at(next).is_none_or(|made| made >= oldest));
        *before = page.next;
        let since = *since - MARGIN.min(elapsed(*since));
        read.extend(page.tasks.into_iter().filter(|task| task.state.finished_at().is_some_and(|at| at >= since)));
        Ok(None)
    }

    /// The next event; none: ask again.
    async fn event(&mut self) -> Result<Option<WatchItem>, EngineError> {
        // What changes from here on counts as a change, so that none is missed between the look and the wait.
        self.changed.borrow_and_update();
        let next = {
            let mut log = self.feed.log();
            log.tell_growth(Instant::now().into_std());
            log.next(self.position, &self.query)
        };
        match next {
            Next::Event { position, task, event } => {
                let task = self.newest(task).await?;
                self.position = position;
                self.current_at = SystemTime::now();
                Ok(task.map(|task| WatchItem::Changed(event, Box::new(task))))
            }
            Next::Skipped { position } => {
                self.position = position;
                tokio::task::yield_now().await;
                Ok(None)
            }
            Next::CaughtUp { position, growth_at } => {
                self.position = position;
                self.current_at = SystemTime::now();
                if position - self.told >= PROGRESS {
                    return Ok(Some(WatchItem::Progress));
                }
                self.wait(growth_at.map(Instant::from_std)).await;
                Ok(None)
            }
            Next::TooOld => {
                self.stage = Stage::Snapshot { too_old: true };
                Ok(None)
            }
        }
    }

    /// Waits until there may be something new.
    async fn wait(&mut self, growth_at: Option<Instant>) {
        tokio::select! {
            // The sender lives in the feed, which the watch holds.
            _ = self.changed.changed() => {}
            () = until(growth_at) => {}
        }
        sleep_until(self.look_at).await;
        self.look_at = Instant::now() + PACE;
    }

    /// The newest state of a task; none if its record was removed or cannot be decoded.
    async fn newest(&self, id: TaskId) -> Result<Option<Task>, EngineError> {
        if let Some(live) = self.inner.live(id) {
            return Ok(Some(live.snapshot()));
        }
        loop {
            match self.inner.store.task(&self.query.tenant, id).await {
                Ok(task) => return Ok(task),
                Err(StoreError::Record { .. }) => return Ok(None),
                Err(StoreError::Busy) => sleep(BUSY_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// When the task was made; none if its id does not tell.
fn made_at(id: TaskId) -> Option<SystemTime> {
    let (seconds, nanos) = id.uuid().get_timestamp()?.to_unix();
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// The time since 1970: the most that can be subtracted from a time.
fn elapsed(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Waits until `due`; for ever when there is none.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn cursor_round_trips_through_text() {
        let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let cursor = WatchCursor { epoch: Nonce::new(), position: 17, at };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        let epoch = Nonce::new();
        for wrong in ["", "17", &format!("{epoch} 1"), &format!("{epoch} x 1"), &format!("{epoch} 1 {}", u64::MAX)] {
            assert_eq!(wrong.parse::<WatchCursor>(), Err(NotACursor), "{wrong}");
        }
    }
}
