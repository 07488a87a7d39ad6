//! Sweeps over a real store, with a clock that leaps.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Mutex;

use tempfile::TempDir;

use super::{Arc, Clock, Duration, Sweeper, SystemTime};
use errand_store::{Caps, Created, SqliteStore, TaskStore as _};
use errand_task::{
    Ending, Event, NewNotification, Nonce, NotificationKind, OutputSummary, Owner, Program, SandboxId, Task, TaskId,
    TaskSpec, TaskState, TenantId,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const CAPS: Caps = Caps { per_bot: 10, per_tenant: 10, stored_tasks: 1000, stored_bytes: 1 << 30 };

/// A clock that the test sets.
#[derive(Default)]
struct Hands {
    time: Mutex<(Duration, Duration)>,
}

impl Hands {
    fn go_on(&self, time: Duration) {
        let mut both = self.time.lock().unwrap();
        both.0 += time;
        both.1 += time;
    }

    fn leap(&self, time: Duration) {
        self.time.lock().unwrap().0 += time;
    }
}

impl Clock for Hands {
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 20_000 + self.time.lock().unwrap().0
    }

    fn monotonic(&self) -> Duration {
        self.time.lock().unwrap().1
    }
}

/// A server's data across restarts.
struct Place {
    directory: TempDir,
    clock: Arc<Hands>,
}

impl Place {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap(), clock: Arc::default() }
    }

    async fn start(&self) -> (Arc<SqliteStore>, Sweeper) {
        let store = Arc::new(SqliteStore::open(&self.directory.path().join("errand.db")).await.unwrap());
        let sweeper = Sweeper::new(Arc::clone(&store) as _, Arc::clone(&self.clock) as _, self.clock.wall());
        (store, sweeper)
    }

    /// Stores a task that ends now, with its notification.
    async fn ended(&self, store: &SqliteStore) -> TaskId {
        let owner =
            Owner { tenant: TenantId::local(), bot: "bot".parse().unwrap(), session: "session".parse().unwrap() };
        let mut task = Task {
            id: TaskId::new(),
            owner,
            sandbox: SandboxId::new(),
            spec: Arc::new(TaskSpec::new(Program::Argv(vec!["true".to_owned()]), HOUR)),
            nonce: Nonce::new(),
            state: TaskState::Queued,
            late_outcome: None,
            stop_requested: None,
            output_file: String::new(),
            output: OutputSummary::default(),
            stall: None,
            usage: None,
            memory_kills: Default::default(),
            created_at: self.clock.wall(),
            revision: 0,
        };
        assert!(matches!(store.create_task(task.clone(), CAPS).await.unwrap(), Created::New(_)));
        let at = self.clock.wall();
        assert!(task.apply(Event::Ended { ending: Ending::Exited(0), started_at: None, signalled: false, at }));
        let told = NewNotification::new(NotificationKind::Completed, &task, &[], at);
        store.update_task(task.clone(), Some(told)).await.unwrap();
        task.id
    }

    async fn hours(&self, sweeper: &mut Sweeper, hours: u32) {
        for _ in 0..hours {
            self.clock.go_on(HOUR);
            sweeper.sweep(DAY, DAY * 7).await.unwrap();
        }
    }
}

async fn is_there(store: &SqliteStore, task: TaskId) -> bool {
    store.task(&TenantId::local(), task).await.unwrap().is_some()
}

#[tokio::test]
async fn tasks_go_when_their_time_is_over() {
    let place = Place::new();
    let (store, mut sweeper) = place.start().await;
    let task = place.ended(&store).await;
    place.hours(&mut sweeper, 24).await;
    assert!(is_there(&store, task).await);
    place.hours(&mut sweeper, 1).await;
    assert!(!is_there(&store, task).await);
}

#[tokio::test]
async fn a_leap_of_the_clock_removes_nothing() {
    let place = Place::new();
    let (store, mut sweeper) = place.start().await;
    let task = place.ended(&store).await;
    place.hours(&mut sweeper, 2).await;
    place.clock.leap(DAY * 365);
    place.hours(&mut sweeper, 20).await;
    let after = place.ended(&store).await;
    assert!(is_there(&store, task).await, "it was kept for 22 hours");
    place.hours(&mut sweeper, 4).await;
    assert!(!is_there(&store, task).await, "it was kept for 26 hours");
    assert!(is_there(&store, after).await);
}

#[tokio::test]
async fn a_leap_between_two_servers_removes_little() {
    let place = Place::new();
    let (store, mut sweeper) = place.start().await;
    let old = place.ended(&store).await;
    place.hours(&mut sweeper, 12).await;
    let young = place.ended(&store).await;
    sweeper.sweep(DAY * 2, DAY * 7).await.unwrap();
    for _ in 0..3 {
        store.close().await;
        place.clock.leap(DAY * 365);
        let (store, mut sweeper) = place.start().await;
        sweeper.sweep(DAY * 4, DAY * 7).await.unwrap();
        assert!(is_there(&store, young).await, "each time counts for a day at most");
        store.close().await;
    }
    place.clock.leap(DAY * 365);
    let (store, mut sweeper) = place.start().await;
    sweeper.sweep(DAY * 4, DAY * 7).await.unwrap();
    assert!(!is_there(&store, old).await);
}

#[tokio::test]
async fn without_a_timeline_the_newest_record_tells() {
    let place = Place::new();
    let (store, _) = place.start().await;
    let task = place.ended(&store).await;
    store.close().await;
    place.clock.leap(DAY * 365);
    let (store, mut sweeper) = place.start().await;
    // This record is stored after the start, so it says nothing about the time before.
    place.ended(&store).await;
    sweeper.sweep(DAY * 2, DAY * 7).await.unwrap();
    assert!(is_there(&store, task).await);
}

#[tokio::test]
async fn a_clock_set_back_removes_nothing() {
    let place = Place::new();
    place.clock.leap(DAY * 365);
    let (store, mut sweeper) = place.start().await;
    let task = place.ended(&store).await;
    place.hours(&mut sweeper, 1).await;
    place.clock.time.lock().unwrap().0 -= DAY * 300;
    place.hours(&mut sweeper, 48).await;
    assert!(is_there(&store, task).await);
}
