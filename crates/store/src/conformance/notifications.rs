//! Notifications: committed with the change they tell of, in order, held by one at a time, until acknowledged.

use crate::{LeaseRequest, NotificationQuery, PAGE_BYTES, Scope, Selection, StoreError, TaskStore};
use errand_task::{LeaseId, Notification, NotificationKind, Owner};

use super::Place;
use crate::conformance::fixtures::{
    NO_CAPS, about, all_notifications, all_tasks, at, complete, create, exited, notice, owner, sandbox, scope,
    sequences, task, tenant,
};

fn alice() -> Owner {
    owner("a", "bot", "s")
}

/// A lease from `now` for ten seconds.
fn request(lease: LeaseId, limit: u32, now: u64) -> LeaseRequest {
    LeaseRequest { lease, after: 0, limit, now: at(now), until: at(now + 10) }
}

async fn all(store: &dyn TaskStore, owner: &Owner) -> Vec<Notification> {
    store.notifications(all_notifications(&scope(owner))).await.unwrap()
}

/// As many completed tasks, and the sequences of their notifications.
async fn completed(store: &dyn TaskStore, owner: &Owner, count: usize) -> Vec<i64> {
    for _ in 0..count {
        complete(store, owner).await;
    }
    sequences(&all(store, owner).await)
}

pub async fn notifications_are_in_order_of_commit(place: &impl Place) {
    let store = place.open().await;
    let first = create(&*store, task(&alice())).await;
    let second = create(&*store, task(&alice())).await;
    let second = exited(second, 2, at(1));
    let told = notice(NotificationKind::Completed, &second);
    store.update_task(second.clone(), Some(told.clone())).await.unwrap();
    let stalled = notice(NotificationKind::Stalled, &first);
    let first = store.update_task(first, Some(stalled)).await.unwrap();
    let first = exited(first, 0, at(2));
    let ended = notice(NotificationKind::Completed, &first);
    store.update_task(first.clone(), Some(ended)).await.unwrap();

    let listed = all(&*store, &alice()).await;
    assert_eq!(about(&listed), [second.id, first.id, first.id]);
    assert!(listed.is_sorted_by(|one, next| one.sequence < next.sequence));
    assert_eq!(listed[0].body, told);
    assert_eq!((listed[0].acknowledged_at, listed[0].deliveries), (None, 0));
    let of_first = NotificationQuery { task: Some(first.id), limit: 1, ..all_notifications(&scope(&alice())) };
    assert_eq!(store.notifications(of_first.clone()).await.unwrap(), listed[1..2]);
    let rest = NotificationQuery { after: listed[1].sequence, ..of_first };
    assert_eq!(store.notifications(rest).await.unwrap(), listed[2..]);
}

pub async fn large_notifications_come_in_pages_by_size(place: &impl Place) {
    let store = place.open().await;
    let large = "x".repeat(4000);
    for number in 0..800 {
        let task = exited(create(&*store, task(&alice())).await, 0, at(number));
        let mut told = notice(NotificationKind::Completed, &task);
        (told.output_tail, told.command) = (large.clone(), large[..1000].to_owned());
        store.update_task(task, Some(told)).await.unwrap();
    }
    let (mut seen, mut after) = (0, 0);
    loop {
        let page = NotificationQuery { after, ..all_notifications(&scope(&alice())) };
        let page = store.notification_page(page).await.unwrap();
        let weight: usize = page.notifications.iter().map(|notification| notification.body.weight()).sum();
        assert!(weight <= PAGE_BYTES + 64 * 1024, "{weight}");
        seen += page.notifications.len();
        let Some(next) = page.next else { break };
        after = next;
    }
    assert_eq!(seen, 800);
    // One lease holds as much as an answer, and leaves the rest to the next.
    let mut leased = 0;
    loop {
        let held = store.lease(&scope(&alice()), request(LeaseId::new(), 1000, 0)).await.unwrap();
        if held.is_empty() {
            break;
        }
        assert!(held.len() < 300 && held.iter().all(|notification| notification.deliveries == 1));
        leased += held.len();
    }
    assert_eq!(leased, 800);
}

pub async fn an_update_that_conflicts_adds_no_notification(place: &impl Place) {
    let store = place.open().await;
    let old = create(&*store, task(&alice())).await;
    store.update_task(old.clone(), None).await.unwrap();
    let told = notice(NotificationKind::Stalled, &old);
    assert!(matches!(store.update_task(old, Some(told)).await, Err(StoreError::Conflict)));
    assert!(all(&*store, &alice()).await.is_empty());
}

pub async fn a_notification_outlives_its_task(place: &impl Place) {
    let store = place.open().await;
    let task = complete(&*store, &alice()).await;
    assert_eq!(store.remove_finished_tasks(at(100), 10).await.unwrap(), 1);
    assert_eq!(store.task(&tenant("a"), task.id).await.unwrap(), None);
    assert_eq!(about(&all(&*store, &alice()).await), [task.id]);
}

pub async fn concurrent_drainers_never_hold_the_same(place: &impl Place) {
    let store = place.open().await;
    let expected = completed(&*store, &alice(), 30).await;
    let drain = async || {
        let mut held = Vec::new();
        loop {
            let leased = store.lease(&scope(&alice()), request(LeaseId::new(), 4, 0)).await.unwrap();
            assert!(leased.is_sorted_by(|one, next| one.sequence < next.sequence));
            assert!(leased.iter().all(|notification| notification.deliveries == 1));
            if leased.is_empty() {
                return held;
            }
            held.extend(sequences(&leased));
        }
    };
    let (mut held, others) = tokio::join!(drain(), drain());
    held.extend(others);
    held.sort_unstable();
    assert_eq!(held, expected);
}

pub async fn a_lease_that_ended_is_free_again(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 3).await;
    let lease = async |limit, now| store.lease(&scope(&alice()), request(LeaseId::new(), limit, now)).await.unwrap();
    assert_eq!(sequences(&lease(2, 0).await), made[..2]);
    assert_eq!(sequences(&lease(9, 9).await), made[2..]);
    let again = lease(9, 10).await;
    assert_eq!(sequences(&again), made[..2]);
    assert_eq!(again[0].deliveries, 2);
    let after = LeaseRequest { after: made[1], ..request(LeaseId::new(), 9, 99) };
    assert_eq!(sequences(&store.lease(&scope(&alice()), after).await.unwrap()), made[2..]);
}

pub async fn the_next_lease_end_is_that_of_the_scope(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 2).await;
    let end = async |of: &Owner, after| store.next_lease_end(&scope(of), after).await.unwrap();
    assert_eq!(end(&alice(), 0).await, None);
    store.lease(&scope(&alice()), request(LeaseId::new(), 1, 5)).await.unwrap();
    store.lease(&scope(&alice()), request(LeaseId::new(), 1, 7)).await.unwrap();
    assert_eq!(end(&alice(), 0).await, Some(at(15)));
    assert_eq!(end(&alice(), made[0]).await, Some(at(17)));
    assert_eq!(end(&owner("a", "bot", "other"), 0).await, None);
    store.acknowledge(&scope(&alice()), Selection::Sequences(vec![made[0]]), at(8)).await.unwrap();
    assert_eq!(end(&alice(), 0).await, Some(at(17)));
}

pub async fn a_released_notification_is_free_at_once(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 3).await;
    let whose = scope(&alice());
    let (first, second) = (LeaseId::new(), LeaseId::new());
    store.lease(&whose, request(first, 2, 0)).await.unwrap();
    store.lease(&whose, request(second, 1, 0)).await.unwrap();
    assert_eq!(store.release(&whose, Selection::Lease(first)).await.unwrap(), 2);
    assert_eq!(store.release(&whose, Selection::Lease(first)).await.unwrap(), 0);
    assert_eq!(sequences(&store.lease(&whose, request(first, 9, 1)).await.unwrap()), made[..2]);
    assert_eq!(store.release(&whose, Selection::Sequences(vec![made[2], 999])).await.unwrap(), 1);
    assert_eq!(sequences(&store.lease(&whose, request(first, 9, 1)).await.unwrap()), made[2..]);
}

pub async fn acknowledging_twice_counts_once(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 2).await;
    let these = || Selection::Sequences(vec![made[0], made[0], 999]);
    assert_eq!(store.acknowledge(&scope(&alice()), these(), at(20)).await.unwrap(), 1);
    assert_eq!(store.acknowledge(&scope(&alice()), these(), at(30)).await.unwrap(), 0);
    let listed = all(&*store, &alice()).await;
    assert_eq!(listed[0].acknowledged_at, Some(at(20)));
    let pending = NotificationQuery { acknowledged: false, ..all_notifications(&scope(&alice())) };
    assert_eq!(sequences(&store.notifications(pending).await.unwrap()), made[1..]);
    assert_eq!(sequences(&store.lease(&scope(&alice()), request(LeaseId::new(), 9, 99)).await.unwrap()), made[1..]);
}

pub async fn acknowledging_a_lease_ends_what_it_holds(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 3).await;
    let lease = LeaseId::new();
    store.lease(&scope(&alice()), request(lease, 2, 0)).await.unwrap();
    assert_eq!(store.acknowledge(&scope(&alice()), Selection::Lease(lease), at(1)).await.unwrap(), 2);
    assert_eq!(store.acknowledge(&scope(&alice()), Selection::Lease(lease), at(1)).await.unwrap(), 0);
    let pending = NotificationQuery { acknowledged: false, ..all_notifications(&scope(&alice())) };
    assert_eq!(sequences(&store.notifications(pending).await.unwrap()), made[2..]);
}

pub async fn another_scope_changes_nothing(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 1).await;
    let lease = LeaseId::new();
    store.lease(&scope(&alice()), request(lease, 1, 0)).await.unwrap();
    let before = all(&*store, &alice()).await;
    for foreign in [owner("b", "bot", "s"), owner("a", "bot2", "s"), owner("a", "bot", "s2")] {
        let foreign = scope(&foreign);
        assert!(store.notifications(all_notifications(&foreign)).await.unwrap().is_empty());
        assert!(store.lease(&foreign, request(LeaseId::new(), 9, 99)).await.unwrap().is_empty());
        for which in [Selection::Sequences(made.clone()), Selection::Lease(lease)] {
            assert_eq!(store.release(&foreign, which.clone()).await.unwrap(), 0);
            assert_eq!(store.acknowledge(&foreign, which, at(1)).await.unwrap(), 0);
        }
    }
    assert_eq!(all(&*store, &alice()).await, before);
    assert_eq!(store.next_lease_end(&scope(&alice()), 0).await.unwrap(), Some(at(10)));
    // All sessions of the bot, on the other hand, are a scope that holds this one.
    let whole_bot = Scope { session: None, ..scope(&alice()) };
    assert_eq!(store.notifications(all_notifications(&whole_bot)).await.unwrap(), before);
    assert_eq!(store.acknowledge(&whole_bot, Selection::Sequences(made), at(1)).await.unwrap(), 1);
}

pub async fn a_completion_is_acknowledged_by_its_task(place: &impl Place) {
    let store = place.open().await;
    let stalled = create(&*store, task(&alice())).await;
    let told = notice(NotificationKind::Stalled, &stalled);
    let stalled = store.update_task(stalled, Some(told)).await.unwrap();
    let finished = exited(stalled, 0, at(1));
    let told = notice(NotificationKind::Completed, &finished);
    store.update_task(finished.clone(), Some(told)).await.unwrap();
    complete(&*store, &alice()).await;
    assert_eq!(store.acknowledge_completion(&tenant("b"), finished.id, at(2)).await.unwrap(), 0);
    assert_eq!(store.acknowledge_completion(&tenant("a"), finished.id, at(2)).await.unwrap(), 1);
    assert_eq!(store.acknowledge_completion(&tenant("a"), finished.id, at(3)).await.unwrap(), 0);
    let ended: Vec<bool> = all(&*store, &alice()).await.iter().map(|one| one.acknowledged_at.is_some()).collect();
    assert_eq!(ended, [false, true, false]);
}

pub async fn old_notifications_are_removed(place: &impl Place) {
    let store = place.open().await;
    // All are made at second 10.
    let made = completed(&*store, &alice(), 3).await;
    store.acknowledge(&scope(&alice()), Selection::Sequences(vec![made[0]]), at(20)).await.unwrap();
    store.acknowledge(&scope(&alice()), Selection::Sequences(vec![made[1]]), at(30)).await.unwrap();
    assert_eq!(store.remove_notifications(at(20), at(10), 9).await.unwrap(), 0);
    assert_eq!(store.remove_notifications(at(25), at(10), 9).await.unwrap(), 1);
    assert_eq!(sequences(&all(&*store, &alice()).await), made[1..]);
    assert_eq!(store.remove_notifications(at(25), at(11), 1).await.unwrap(), 1);
    assert_eq!(store.remove_notifications(at(25), at(11), 9).await.unwrap(), 1);
    assert!(all(&*store, &alice()).await.is_empty());
}

pub async fn a_sequence_is_never_used_twice(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 2).await;
    store.remove_notifications(at(0), at(1000), 9).await.unwrap();
    let next = completed(&*store, &alice(), 1).await;
    assert!(next[0] > made[1]);
}

pub async fn commits_and_releases_are_signalled(place: &impl Place) {
    let store = place.open().await;
    let mut notified = store.notified(&scope(&alice()));
    let other = store.notified(&Scope { session: Some("another".parse().unwrap()), ..scope(&alice()) });
    notified.mark_unchanged();
    let quiet = create(&*store, task(&alice())).await;
    store.update_task(quiet.clone(), None).await.unwrap();
    let told = notice(NotificationKind::Stalled, &quiet);
    assert!(store.update_task(quiet, Some(told)).await.is_err());
    assert!(!notified.has_changed().unwrap());
    complete(&*store, &alice()).await;
    assert!(notified.has_changed().unwrap());
    let lease = LeaseId::new();
    store.lease(&scope(&alice()), request(lease, 1, 0)).await.unwrap();
    notified.mark_unchanged();
    store.release(&scope(&alice()), Selection::Lease(lease)).await.unwrap();
    assert!(notified.has_changed().unwrap());
    notified.mark_unchanged();
    store.release(&scope(&alice()), Selection::Lease(lease)).await.unwrap();
    assert!(!notified.has_changed().unwrap());
    assert!(!other.has_changed().unwrap(), "another session is not disturbed");
}

pub async fn everything_survives_a_reopen(place: &impl Place) {
    let store = place.open().await;
    let finished = complete(&*store, &alice()).await;
    let queued = create(&*store, task(&alice())).await;
    let kept = sandbox("a", "bot");
    store.put_sandbox(kept.clone()).await.unwrap();
    store.lease(&scope(&alice()), request(LeaseId::new(), 1, 0)).await.unwrap();
    let told = all(&*store, &alice()).await;
    store.close().await;
    drop(store);

    let store = place.open().await;
    assert_eq!(store.tasks(all_tasks("a")).await.unwrap(), [queued, finished]);
    assert_eq!(store.sandboxes(None, None, 9).await.unwrap(), [kept]);
    assert_eq!(all(&*store, &alice()).await, told);
    assert!(store.lease(&scope(&alice()), request(LeaseId::new(), 9, 9)).await.unwrap().is_empty());
    assert_eq!(store.next_lease_end(&scope(&alice()), 0).await.unwrap(), Some(at(10)));
}

pub async fn a_closed_store_refuses_all_use(place: &impl Place) {
    let store = place.open().await;
    store.close().await;
    store.close().await;
    assert!(matches!(store.create_task(task(&alice()), NO_CAPS).await, Err(StoreError::Closed)));
    assert!(matches!(store.tasks(all_tasks("a")).await, Err(StoreError::Closed)));
}
