//! Closing a store and opening it again.

use crate::StoreError;
use errand_task::LeaseId;

use super::Place;
use crate::conformance::fixtures::{
    HOUR, NO_CAPS, alice, all, all_tasks, complete, create, lease, request, sandbox, scope, task,
};

pub async fn everything_survives_a_reopen(place: &impl Place) {
    let store = place.open().await;
    let finished = complete(&*store, &alice()).await;
    let queued = create(&*store, task(&alice())).await;
    let kept = sandbox("a", "bot");
    store.put_sandbox(kept.clone()).await.unwrap();
    store.lease(&scope(&alice()), request(LeaseId::new(), 1)).await.unwrap();
    let told = all(&*store, &alice()).await;
    store.close().await;
    drop(store);

    let store = place.open().await;
    assert_eq!(store.tasks(all_tasks("a")).await.unwrap(), [queued, finished]);
    assert_eq!(store.sandboxes(None, None, 9).await.unwrap(), [kept]);
    assert_eq!(all(&*store, &alice()).await, told);
    assert!(lease(&*store, &alice(), request(LeaseId::new(), 9)).await.is_empty());
    assert!(store.next_lease_end(&scope(&alice()), 0).await.unwrap().is_some_and(|left| left > HOUR / 2));
}

pub async fn closed_store_refuses_every_call(place: &impl Place) {
    let store = place.open().await;
    store.close().await;
    store.close().await;
    assert!(matches!(store.create_task(task(&alice()), NO_CAPS).await, Err(StoreError::Closed)));
    assert!(matches!(store.tasks(all_tasks("a")).await, Err(StoreError::Closed)));
}
