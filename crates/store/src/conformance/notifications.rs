//! Notifications: committed with the change that they report, listed in order, acknowledged, and removed after their retention.

use std::time::Duration;

use crate::{NotificationQuery, PAGE_BYTES, Retention, Scope, Selection, StoreError};
use errand_task::{LeaseId, NewNotification, NotificationKind, Owner};
use futures_util::future::join_all;

use super::Place;
use crate::conformance::fixtures::{
    HOUR, MINUTE, about, alice, all, all_notifications, at, complete, completed, create, exited, lease, notice, owner,
    remove, request, scope, sequences, task, tenant,
};

pub async fn notifications_are_listed_in_commit_order(place: &impl Place) {
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

pub async fn notification_pages_are_limited_by_size(place: &impl Place) {
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
        let held = lease(&*store, &alice(), request(LeaseId::new(), 1000)).await;
        if held.is_empty() {
            break;
        }
        assert!(held.len() < 300 && held.iter().all(|notification| notification.deliveries == 1));
        leased += held.len();
    }
    assert_eq!(leased, 800);
}

pub async fn conflicting_update_adds_no_notification(place: &impl Place) {
    let store = place.open().await;
    let old = create(&*store, task(&alice())).await;
    store.update_task(old.clone(), None).await.unwrap();
    let told = notice(NotificationKind::Stalled, &old);
    assert!(matches!(store.update_task(old, Some(told)).await, Err(StoreError::Conflict)));
    assert!(all(&*store, &alice()).await.is_empty());
}

pub async fn second_acknowledgement_changes_nothing(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 2).await;
    let these = || Selection::Sequences(vec![made[0], made[0], 999]);
    assert_eq!(store.acknowledge(&scope(&alice()), these()).await.unwrap(), 1);
    let first = all(&*store, &alice()).await[0].acknowledged_at;
    assert!(first.is_some());
    place.pass(HOUR * 2);
    assert_eq!(store.acknowledge(&scope(&alice()), these()).await.unwrap(), 0);
    assert_eq!(all(&*store, &alice()).await[0].acknowledged_at, first);
    let pending = NotificationQuery { acknowledged: false, ..all_notifications(&scope(&alice())) };
    assert_eq!(sequences(&store.notifications(pending).await.unwrap()), made[1..]);
    assert_eq!(sequences(&lease(&*store, &alice(), request(LeaseId::new(), 9)).await), made[1..]);
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
    assert_eq!(store.acknowledge_completion(&tenant("b"), finished.id).await.unwrap(), 0);
    assert_eq!(store.acknowledge_completion(&tenant("a"), finished.id).await.unwrap(), 1);
    assert_eq!(store.acknowledge_completion(&tenant("a"), finished.id).await.unwrap(), 0);
    let ended: Vec<bool> = all(&*store, &alice()).await.iter().map(|one| one.acknowledged_at.is_some()).collect();
    assert_eq!(ended, [false, true, false]);
}

pub async fn a_sequence_is_never_used_twice(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 2).await;
    place.pass(HOUR);
    assert_eq!(remove(&*store, MINUTE, 9).await, 2);
    let next = completed(&*store, &alice(), 1).await;
    assert!(next[0] > made[1]);
}

/// Several bots commit at the same time, and a reader of each follows with the last sequence as its cursor.
pub async fn bot_cursor_skips_no_concurrent_commit(place: &impl Place) {
    const EACH: usize = 20;
    let store = place.open().await;
    let owners = ["one", "two", "three"].map(|name| owner("a", name, "s"));
    let commits = owners.iter().flat_map(|owner| (0..EACH).map(|_| complete(&*store, owner)));
    let read = async |owner: &Owner| {
        let (mut after, mut read) = (0, Vec::new());
        while read.len() < EACH {
            let query = NotificationQuery { after, limit: 3, ..all_notifications(&scope(owner)) };
            let found = store.notifications(query).await.unwrap();
            assert!(found.iter().all(|told| told.sequence > after && told.body.owner.bot == owner.bot));
            after = found.last().map_or(after, |told| told.sequence);
            read.extend(about(&found));
        }
        read
    };
    let follow = join_all(owners.iter().map(read));
    let reading = tokio::time::timeout(Duration::from_secs(60), follow);
    let (committed, followed) = tokio::join!(join_all(commits), reading);
    let followed = followed.expect("no cursor skips a notification");
    for (committed, mut followed) in committed.chunks(EACH).zip(followed) {
        let mut committed: Vec<_> = committed.iter().map(|task| task.id).collect();
        committed.sort_unstable();
        followed.sort_unstable();
        assert_eq!(followed, committed);
    }
}

pub async fn commits_and_releases_wake_subscribers(place: &impl Place) {
    let store = place.open().await;
    let mut woken = store.wake_ups(&scope(&alice()));
    let other = store.wake_ups(&Scope { session: Some("another".parse().unwrap()), ..scope(&alice()) });
    woken.mark_unchanged();
    let quiet = create(&*store, task(&alice())).await;
    store.update_task(quiet.clone(), None).await.unwrap();
    let told = notice(NotificationKind::Stalled, &quiet);
    assert!(store.update_task(quiet, Some(told)).await.is_err());
    assert!(!woken.has_changed().unwrap());
    complete(&*store, &alice()).await;
    assert!(woken.has_changed().unwrap());
    let name = LeaseId::new();
    store.lease(&scope(&alice()), request(name, 1)).await.unwrap();
    woken.mark_unchanged();
    store.release(&scope(&alice()), Selection::Lease(name)).await.unwrap();
    assert!(woken.has_changed().unwrap());
    woken.mark_unchanged();
    store.release(&scope(&alice()), Selection::Lease(name)).await.unwrap();
    assert!(!woken.has_changed().unwrap());
    assert!(!other.has_changed().unwrap(), "another session is not disturbed");
}

pub async fn acknowledged_notification_is_delivered_to_nobody(place: &impl Place) {
    let store = place.open().await;
    let mut woken = store.wake_ups(&scope(&alice()));
    let task = exited(create(&*store, task(&alice())).await, 0, at(10));
    let told = NewNotification { acknowledged: true, ..notice(NotificationKind::Completed, &task) };
    woken.borrow_and_update();
    let task = store.update_task(task, Some(told.clone())).await.unwrap();
    assert!(!woken.has_changed().unwrap());
    assert!(lease(&*store, &alice(), request(LeaseId::new(), 9)).await.is_empty());
    let pending = NotificationQuery { acknowledged: false, ..all_notifications(&scope(&alice())) };
    assert!(store.notifications(pending).await.unwrap().is_empty());
    let listed = all(&*store, &alice()).await;
    assert!(listed.len() == 1 && listed[0].body == told && listed[0].acknowledged_at.is_some(), "{listed:?}");
    assert_eq!(store.acknowledge_completion(&task.owner.tenant, task.id).await.unwrap(), 0);
    place.pass(HOUR);
    let retention = Retention { acknowledged: MINUTE, unacknowledged: HOUR * 9 };
    let removed = store.remove_finished_tasks(retention, 9).await.unwrap();
    assert_eq!((removed.tasks, removed.unacknowledged), (1, 0), "it counts as acknowledged since its end");
}
