//! Retention: what a tenant may store, which records are removed when, and which task directories remain to be removed.

use crate::{Caps, StoreError};
use errand_task::{Task, TaskId};

use super::Place;
use crate::conformance::fixtures::{
    HOUR, MINUTE, NO_CAPS, at, bot, complete, create, exited, owner, requested, sandbox, task, tenant,
};

pub async fn stored_tasks_of_a_tenant_are_limited(place: &impl Place) {
    let store = place.open().await;
    let caps = Caps { stored_tasks: 2, ..NO_CAPS };
    let alice = owner("a", "bot", "s");
    let first = store.create_task(requested(&alice, "r"), caps).await.unwrap();
    complete(&*store, &alice).await;
    for session in ["s", "other"] {
        let refused = store.create_task(task(&owner("a", "bot2", session)), caps).await.unwrap_err();
        assert!(matches!(refused, StoreError::TooManyStored { stored: 2, limit: 2 }), "{refused:?}");
        assert_eq!(refused.to_string().matches('2').count(), 2, "{refused}");
    }
    // A repeated request makes no new task, and each tenant has a limit of its own.
    assert!(store.create_task(requested(&alice, "r"), caps).await.is_ok(), "{first:?}");
    store.create_task(task(&owner("b", "bot", "s")), caps).await.unwrap();
    place.pass(HOUR);
    assert_eq!(store.remove_finished_tasks(MINUTE, 9).await.unwrap(), 1);
    store.create_task(task(&alice), caps).await.unwrap();
    assert!(store.create_task(task(&alice), caps).await.is_err());
}

pub async fn stored_bytes_of_a_tenant_are_limited(place: &impl Place) {
    let store = place.open().await;
    let alice = owner("a", "bot", "s");
    let caps = |stored_bytes| Caps { stored_bytes, ..NO_CAPS };
    let stored = async || match store.create_task(task(&alice), caps(0)).await.unwrap_err() {
        StoreError::TooMuchStored { stored, limit: 0 } => stored,
        other => panic!("{other:?}"),
    };
    assert_eq!(stored().await, 0);
    let mut large = task(&alice);
    std::sync::Arc::make_mut(&mut large.spec).description = "x".repeat(100_000);
    assert!(store.create_task(large.clone(), caps(100_000)).await.is_err());
    let large = create(&*store, large).await;
    let with_task = stored().await;
    assert!((100_000..110_000).contains(&with_task), "{with_task}");
    complete(&*store, &alice).await;
    let with_notification = stored().await;
    assert!(with_notification > with_task);
    store.update_task(exited(large, 0, at(1)), None).await.unwrap();
    place.pass(HOUR);
    assert_eq!(store.remove_finished_tasks(MINUTE, 9).await.unwrap(), 2);
    assert!((1..10_000).contains(&stored().await), "the notification");
    assert_eq!(store.remove_notifications(HOUR, MINUTE, 9).await.unwrap(), 1);
    assert_eq!(stored().await, 0, "removals are subtracted");
}

/// A finished task in a bot's sandbox.
async fn finished_in(store: &dyn crate::TaskStore, record: &errand_task::SandboxRecord) -> Task {
    let made = Task { sandbox: record.id, ..task(&owner("a", record.bot.as_str(), "s")) };
    let made = create(store, made).await;
    store.update_task(exited(made, 0, at(1)), None).await.unwrap()
}

pub async fn directories_of_removed_tasks_await_removal(place: &impl Place) {
    let store = place.open().await;
    let (one, gone) = (sandbox("a", "one"), sandbox("a", "gone"));
    store.put_sandbox(one.clone()).await.unwrap();
    let mut tasks: Vec<TaskId> = Vec::new();
    for _ in 0..3 {
        tasks.push(finished_in(&*store, &one).await.id);
    }
    finished_in(&*store, &gone).await;
    assert_eq!(store.pending_removals(one.id, 9).await.unwrap(), []);
    place.pass(HOUR);
    assert_eq!(store.remove_finished_tasks(MINUTE, 9).await.unwrap(), 4);
    assert_eq!(store.pending_removals(gone.id, 9).await.unwrap(), [], "a removed sandbox has no directories");
    store.close().await;
    drop(store);
    let store = place.open().await;
    assert_eq!(store.pending_removals(one.id, 2).await.unwrap(), tasks[..2]);
    store.removed(one.id, &tasks[..1]).await.unwrap();
    store.removed(gone.id, &tasks[1..]).await.unwrap();
    assert_eq!(store.pending_removals(one.id, 9).await.unwrap(), tasks[1..]);
}

pub async fn pending_removals_end_with_their_sandbox(place: &impl Place) {
    let store = place.open().await;
    let records = ["one", "two"].map(|name| sandbox("a", name));
    for record in &records {
        store.put_sandbox(record.clone()).await.unwrap();
        finished_in(&*store, record).await;
    }
    place.pass(HOUR);
    assert_eq!(store.remove_finished_tasks(MINUTE, 9).await.unwrap(), 2);
    store.remove_sandbox(&tenant("a"), &bot("one")).await.unwrap();
    assert_eq!(store.pending_removals(records[0].id, 9).await.unwrap(), []);
    assert_eq!(store.pending_removals(records[1].id, 9).await.unwrap().len(), 1);
}

pub async fn only_old_unknown_tasks_are_reported(place: &impl Place) {
    let store = place.open().await;
    let (of_a, of_b) = (task(&owner("a", "bot", "s")), task(&owner("b", "bot", "s")));
    let unknown = [TaskId::new(), TaskId::new()];
    // The time in this id is in 2023.
    let old: TaskId = "018bcfe5-6800-7000-8000-000000000001".parse().unwrap();
    let asked = [unknown[0], create(&*store, of_a).await.id, unknown[1], create(&*store, of_b).await.id, old];
    assert_eq!(store.unknown_tasks(&asked, HOUR).await.unwrap(), [old]);
    assert_eq!(store.unknown_tasks(&[], HOUR).await.unwrap(), []);
    place.pass(HOUR * 2);
    assert_eq!(store.unknown_tasks(&asked, HOUR).await.unwrap(), [unknown[0], unknown[1], old]);
}
