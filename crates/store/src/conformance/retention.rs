//! Retention: what a tenant may store, which records are removed when, and which task directories remain to be removed.

use crate::{Caps, RemovedTasks, Retention, Selection, StoreError, TaskStore};
use errand_task::{NotificationKind, Task, TaskId};

use super::Place;
use crate::conformance::fixtures::{
    HOUR, MINUTE, NO_CAPS, about, alice, all, at, bot, complete, create, exited, notice, owner, remove, requested,
    sandbox, scope, sequences, task, tenant,
};

const RETENTION: Retention = Retention { acknowledged: HOUR, unacknowledged: HOUR.saturating_mul(7) };

/// Removes what is due: the number of tasks, and how many of them were not acknowledged.
async fn sweep(store: &dyn TaskStore) -> (u64, u64) {
    let RemovedTasks { tasks, unacknowledged } = store.remove_finished_tasks(RETENTION, 9).await.unwrap();
    (tasks, unacknowledged)
}

pub async fn task_and_its_notices_go_together(place: &impl Place) {
    let store = place.open().await;
    let stalled = create(&*store, task(&alice())).await;
    let told = notice(NotificationKind::Stalled, &stalled);
    let stalled = store.update_task(stalled, Some(told)).await.unwrap();
    let finished = exited(stalled, 0, at(1));
    let told = notice(NotificationKind::Completed, &finished);
    let finished = store.update_task(finished, Some(told)).await.unwrap();
    let other = complete(&*store, &alice()).await;
    store.acknowledge_completion(&tenant("a"), finished.id).await.unwrap();
    place.pass(HOUR * 2);
    assert_eq!(sweep(&*store).await, (1, 0));
    assert_eq!(store.task(&tenant("a"), finished.id).await.unwrap(), None);
    assert_eq!(about(&all(&*store, &alice()).await), [other.id], "the stall was told too, and goes too");
    assert!(store.task(&tenant("a"), other.id).await.unwrap().is_some());
}

pub async fn acknowledgement_starts_the_retention(place: &impl Place) {
    let store = place.open().await;
    let [first, second] = [complete(&*store, &alice()).await, complete(&*store, &alice()).await];
    place.pass(HOUR * 3);
    assert_eq!(sweep(&*store).await, (0, 0), "not acknowledged");
    store.acknowledge_completion(&tenant("a"), first.id).await.unwrap();
    assert_eq!(sweep(&*store).await, (0, 0), "acknowledged just now");
    place.pass(HOUR / 2);
    let made = sequences(&all(&*store, &alice()).await);
    store.acknowledge(&scope(&alice()), Selection::Sequences(made)).await.unwrap();
    place.pass(HOUR * 3 / 4);
    assert_eq!(sweep(&*store).await, (1, 0));
    assert_eq!(store.task(&tenant("a"), first.id).await.unwrap(), None);
    place.pass(HOUR / 2);
    assert_eq!(sweep(&*store).await, (1, 0));
    assert_eq!(store.task(&tenant("a"), second.id).await.unwrap(), None);
    assert!(all(&*store, &alice()).await.is_empty());
}

pub async fn unacknowledged_tasks_are_kept_longer_and_counted(place: &impl Place) {
    let store = place.open().await;
    let [unseen, seen_late] = [complete(&*store, &alice()).await, complete(&*store, &alice()).await];
    place.pass(RETENTION.unacknowledged - MINUTE);
    assert_eq!(sweep(&*store).await, (0, 0));
    store.acknowledge_completion(&tenant("a"), seen_late.id).await.unwrap();
    place.pass(MINUTE * 2);
    assert_eq!(sweep(&*store).await, (1, 1));
    assert_eq!(store.task(&tenant("a"), unseen.id).await.unwrap(), None);
    place.pass(HOUR);
    assert_eq!(sweep(&*store).await, (1, 0));
    assert_eq!(store.task(&tenant("a"), seen_late.id).await.unwrap(), None);
}

pub async fn unannounced_task_goes_after_its_retention(place: &impl Place) {
    let store = place.open().await;
    let made = create(&*store, task(&alice())).await;
    let told = notice(NotificationKind::Stalled, &made);
    let stalled = store.update_task(made, Some(told)).await.unwrap();
    let finished = store.update_task(exited(stalled, 0, at(1)), None).await.unwrap();
    place.pass(HOUR - MINUTE);
    assert_eq!(sweep(&*store).await, (0, 0));
    place.pass(MINUTE * 2);
    assert_eq!(sweep(&*store).await, (1, 0));
    assert_eq!(store.task(&tenant("a"), finished.id).await.unwrap(), None);
    assert!(all(&*store, &alice()).await.is_empty());
}

pub async fn unseen_late_outcome_holds_its_task(place: &impl Place) {
    let store = place.open().await;
    let done = complete(&*store, &alice()).await;
    store.acknowledge_completion(&tenant("a"), done.id).await.unwrap();
    place.pass(HOUR * 2);
    let late = exited(done, 3, at(9));
    let told = notice(NotificationKind::LateOutcome, &late);
    store.update_task(late, Some(told)).await.unwrap();
    assert_eq!(sweep(&*store).await, (0, 0));
    let made = sequences(&all(&*store, &alice()).await);
    store.acknowledge(&scope(&alice()), Selection::Sequences(made[1..].to_vec())).await.unwrap();
    assert_eq!(sweep(&*store).await, (0, 0));
    place.pass(HOUR + MINUTE);
    assert_eq!(sweep(&*store).await, (1, 0));

    let unseen = complete(&*store, &alice()).await;
    place.pass(RETENTION.unacknowledged - MINUTE);
    let late = exited(unseen, 3, at(9));
    let told = notice(NotificationKind::LateOutcome, &late);
    store.update_task(late, Some(told)).await.unwrap();
    place.pass(MINUTE * 2);
    assert_eq!(sweep(&*store).await, (0, 0), "its late outcome was told just now");
    place.pass(RETENTION.unacknowledged);
    assert_eq!(sweep(&*store).await, (1, 1));
}

pub async fn age_is_the_time_that_passed(place: &impl Place) {
    let store = place.open().await;
    let since = std::time::SystemTime::now();
    assert!(store.age(since).await.unwrap() < MINUTE);
    place.pass(HOUR);
    let age = store.age(since).await.unwrap();
    assert!((HOUR..HOUR + MINUTE).contains(&age), "{age:?}");
    assert_eq!(store.age(since + HOUR * 9).await.unwrap(), std::time::Duration::ZERO);
}

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
    assert_eq!(remove(&*store, MINUTE, 9).await, 1);
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
    assert_eq!(remove(&*store, MINUTE, 9).await, 2);
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
    assert_eq!(remove(&*store, MINUTE, 9).await, 4);
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
    assert_eq!(remove(&*store, MINUTE, 9).await, 2);
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
