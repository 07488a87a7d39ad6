//! Leases: a notification is leased to one subscriber at a time, until it is acknowledged or released, or the lease ends.

use std::time::{Duration, SystemTime};

use crate::{BotFilter, LeaseRequest, NotificationQuery, Scope, Selection};
use errand_task::{LeaseId, Owner, Task, TenantId};

use super::Place;
use crate::conformance::fixtures::{
    HOUR, MINUTE, about, alice, all, all_notifications, bot, complete, completed, lease, owner, request, scope,
    sequences,
};

pub async fn concurrent_drainers_never_lease_the_same_notification(place: &impl Place) {
    let store = place.open().await;
    let expected = completed(&*store, &alice(), 30).await;
    let drain = async || {
        let mut held = Vec::new();
        loop {
            let leased = lease(&*store, &alice(), request(LeaseId::new(), 4)).await;
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

pub async fn notifications_of_an_ended_lease_return(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 3).await;
    let lease = async |limit| lease(&*store, &alice(), request(LeaseId::new(), limit)).await;
    assert_eq!(sequences(&lease(2).await), made[..2]);
    place.pass(HOUR / 2);
    assert_eq!(sequences(&lease(9).await), made[2..]);
    place.pass(HOUR / 2);
    let again = lease(9).await;
    assert_eq!(sequences(&again), made[..2]);
    assert_eq!(again[0].deliveries, 2);
    place.pass(HOUR);
    let after = LeaseRequest { after: made[1], ..request(LeaseId::new(), 9) };
    assert_eq!(sequences(&store.lease(&scope(&alice()), after).await.unwrap().notifications), made[2..]);
}

pub async fn next_lease_end_ignores_other_scopes(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 2).await;
    let end = async |of: &Owner, after| store.next_lease_end(&scope(of), after).await.unwrap();
    let is_about = |time: Option<Duration>, wanted: Duration| {
        time.is_some_and(|time| time <= wanted && time + 10 * MINUTE > wanted)
    };
    assert_eq!(end(&alice(), 0).await, None);
    let leased = store.lease(&scope(&alice()), request(LeaseId::new(), 1)).await.unwrap();
    assert!(leased.ends_at.duration_since(SystemTime::now()).is_ok_and(|left| is_about(Some(left), HOUR)));
    place.pass(HOUR / 2);
    lease(&*store, &alice(), request(LeaseId::new(), 1)).await;
    assert!(is_about(end(&alice(), 0).await, HOUR / 2));
    assert!(is_about(end(&alice(), made[0]).await, HOUR));
    assert_eq!(end(&owner("a", "bot", "other"), 0).await, None);
    place.pass(HOUR * 3 / 4);
    assert_eq!(end(&alice(), 0).await, Some(Duration::ZERO), "an ended lease");
    store.acknowledge(&scope(&alice()), Selection::Sequences(vec![made[0]])).await.unwrap();
    assert!(is_about(end(&alice(), 0).await, HOUR / 4));
}

pub async fn released_notification_can_be_leased_at_once(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 3).await;
    let whose = scope(&alice());
    let (first, second) = (LeaseId::new(), LeaseId::new());
    lease(&*store, &alice(), request(first, 2)).await;
    lease(&*store, &alice(), request(second, 1)).await;
    assert_eq!(store.release(&whose, Selection::Lease(first)).await.unwrap(), 2);
    assert_eq!(store.release(&whose, Selection::Lease(first)).await.unwrap(), 0);
    assert_eq!(sequences(&lease(&*store, &alice(), request(first, 9)).await), made[..2]);
    assert_eq!(store.release(&whose, Selection::Sequences(vec![made[2], 999])).await.unwrap(), 1);
    assert_eq!(sequences(&lease(&*store, &alice(), request(first, 9)).await), made[2..]);
}

pub async fn acknowledging_a_lease_acknowledges_its_notifications(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 3).await;
    let name = LeaseId::new();
    store.lease(&scope(&alice()), request(name, 2)).await.unwrap();
    assert_eq!(store.acknowledge(&scope(&alice()), Selection::Lease(name)).await.unwrap(), 2);
    assert_eq!(store.acknowledge(&scope(&alice()), Selection::Lease(name)).await.unwrap(), 0);
    let pending = NotificationQuery { acknowledged: false, ..all_notifications(&scope(&alice())) };
    assert_eq!(sequences(&store.notifications(pending).await.unwrap()), made[2..]);
}

pub async fn other_scopes_neither_read_nor_change_notifications(place: &impl Place) {
    let store = place.open().await;
    let made = completed(&*store, &alice(), 1).await;
    let name = LeaseId::new();
    store.lease(&scope(&alice()), request(name, 1)).await.unwrap();
    let before = all(&*store, &alice()).await;
    for foreign in [owner("b", "bot", "s"), owner("a", "bot2", "s"), owner("a", "bot", "s2")] {
        let foreign = scope(&foreign);
        assert!(store.notifications(all_notifications(&foreign)).await.unwrap().is_empty());
        assert!(store.lease(&foreign, request(LeaseId::new(), 9)).await.unwrap().notifications.is_empty());
        for which in [Selection::Sequences(made.clone()), Selection::Lease(name)] {
            assert_eq!(store.release(&foreign, which.clone()).await.unwrap(), 0);
            assert_eq!(store.acknowledge(&foreign, which).await.unwrap(), 0);
        }
    }
    assert_eq!(all(&*store, &alice()).await, before);
    assert!(store.next_lease_end(&scope(&alice()), 0).await.unwrap().is_some_and(|left| left > HOUR / 2));
    // All sessions of the bot, on the other hand, are a scope that holds this one.
    let whole_bot = Scope { session: None, ..scope(&alice()) };
    assert_eq!(store.notifications(all_notifications(&whole_bot)).await.unwrap(), before);
    assert_eq!(store.acknowledge(&whole_bot, Selection::Sequences(made)).await.unwrap(), 1);
}

pub async fn held_completion_returns_unless_acknowledged(place: &impl Place) {
    let store = place.open().await;
    let (first, second) = (complete(&*store, &alice()).await, complete(&*store, &alice()).await);
    let tenant = &first.owner.tenant;
    let (name, other) = (LeaseId::new(), LeaseId::new());
    let hold =
        async |task: &Task, lease, minutes| store.hold_completion(tenant, task.id, lease, MINUTE * minutes).await;
    let free = async || about(&lease(&*store, &alice(), LeaseRequest { duration: MINUTE, ..request(other, 9) }).await);
    assert!(hold(&first, name, 10).await.unwrap());
    assert_eq!(free().await, [second.id], "it is held back from drains");
    assert!(!hold(&second, name, 10).await.unwrap(), "a drain has it");
    place.pass(MINUTE * 9);
    assert!(hold(&first, name, 10).await.unwrap(), "it is told once more, and held anew");
    place.pass(MINUTE * 9);
    assert_eq!(free().await, [second.id]);
    place.pass(MINUTE * 2);
    assert_eq!(free().await, [first.id, second.id], "nobody had it");
    assert_eq!(all(&*store, &alice()).await[0].deliveries, 3);
    place.pass(MINUTE * 2);
    assert!(hold(&first, name, 10).await.unwrap());
    let foreign = owner("b", "bot", "s");
    let acknowledge = async |tenant: &TenantId, bots| store.acknowledge_held(tenant, &bots, name).await.unwrap();
    assert_eq!(acknowledge(&foreign.tenant, BotFilter::All).await, 0);
    assert_eq!(acknowledge(tenant, BotFilter::One(bot("other"))).await, 0);
    assert_eq!(acknowledge(tenant, BotFilter::Matching(vec!["x*".to_owned()])).await, 0);
    place.pass(MINUTE * 20);
    assert_eq!(acknowledge(tenant, BotFilter::Matching(vec!["bo*".to_owned()])).await, 1, "late, and not too late");
    assert_eq!(acknowledge(tenant, BotFilter::All).await, 0);
    assert_eq!(free().await, [second.id]);
    assert!(!hold(&first, name, 10).await.unwrap(), "nothing is left to hold");
}
