//! Ages by a clock that leaps, over restarts of the server.

use std::time::Duration;

use errand_store::{SqliteStore, TaskStore as _};
use errand_task::TaskId;

use crate::SqlitePlace;
use errand_store::conformance::fixtures::{complete, owner, remove, tenant};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

async fn ended(store: &SqliteStore) -> TaskId {
    complete(store, &owner("a", "bot", "s")).await.id
}

async fn sweep(store: &SqliteStore, retention: Duration) {
    while remove(store, retention, 64).await > 0 {}
}

/// Lets hours pass, with a sweep after each.
async fn hours(place: &SqlitePlace, store: &SqliteStore, hours: u32) {
    for _ in 0..hours {
        place.clock.pass(HOUR);
        sweep(store, DAY).await;
    }
}

async fn is_there(store: &SqliteStore, task: TaskId) -> bool {
    store.task(&tenant("a"), task).await.unwrap().is_some()
}

#[tokio::test]
async fn tasks_are_removed_after_their_retention() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let task = ended(&store).await;
    hours(&place, &store, 23).await;
    assert!(is_there(&store, task).await);
    hours(&place, &store, 2).await;
    assert!(!is_there(&store, task).await);
}

#[tokio::test]
async fn a_leap_of_the_clock_removes_nothing() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let task = ended(&store).await;
    hours(&place, &store, 2).await;
    place.clock.leap(DAY * 365);
    hours(&place, &store, 20).await;
    let after = ended(&store).await;
    assert!(is_there(&store, task).await, "it was kept for 22 hours");
    hours(&place, &store, 4).await;
    assert!(!is_there(&store, task).await, "it was kept for 26 hours");
    assert!(is_there(&store, after).await);
}

#[tokio::test]
async fn a_leap_between_two_servers_removes_little() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let old = ended(&store).await;
    hours(&place, &store, 12).await;
    let young = ended(&store).await;
    sweep(&store, DAY * 2).await;
    for _ in 0..3 {
        store.close().await;
        place.clock.leap(DAY * 365);
        let store = place.store().await;
        sweep(&store, DAY * 4).await;
        assert!(is_there(&store, young).await, "each time counts for a day at most");
        store.close().await;
    }
    place.clock.leap(DAY * 365);
    let store = place.store().await;
    sweep(&store, DAY * 4).await;
    assert!(!is_there(&store, old).await);
}

#[tokio::test]
async fn newest_record_replaces_a_missing_timeline() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let task = ended(&store).await;
    store.close().await;
    place.clock.leap(DAY * 365);
    let store = place.store().await;
    // This record is stored after the start, so it says nothing about the time before.
    ended(&store).await;
    sweep(&store, DAY * 2).await;
    assert!(is_there(&store, task).await);
}

#[tokio::test]
async fn a_clock_set_back_removes_nothing() {
    let place = SqlitePlace::new();
    place.clock.leap(DAY * 365);
    let store = place.store().await;
    let task = ended(&store).await;
    hours(&place, &store, 1).await;
    place.clock.set_back(DAY * 300);
    hours(&place, &store, 48).await;
    assert!(is_there(&store, task).await);
}
