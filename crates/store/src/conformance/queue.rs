//! Tasks that wait for room: counted apart, and admitted only where there is room.

use crate::{Caps, StoreError, TaskStore};
use errand_task::{Event, Status, StopCause, Task, TaskState};

use super::Place;
use crate::conformance::fixtures::{
    NO_CAPS, all_tasks, at, awaiting_room, create, exited, ids, owner, requested, task, tenant,
};

/// One running task per bot and two per tenant.
const CAPS: Caps = Caps { per_bot: 1, per_tenant: 2, queued_per_bot: 2, queued_per_tenant: 3, ..NO_CAPS };

async fn queue(store: &dyn TaskStore, bot: &str) -> Task {
    let waiting = awaiting_room(&owner("a", bot, "s"));
    store.create_task(waiting.clone(), CAPS).await.unwrap();
    waiting
}

async fn admit(store: &dyn TaskStore, task: &Task) -> Result<Task, StoreError> {
    let mut admitted = task.clone();
    assert!(admitted.apply(Event::Admitted));
    store.admit_task(admitted, CAPS).await
}

pub async fn queued_task_counts_apart_until_admitted(place: &impl Place) {
    let store = place.open().await;
    let waiting = queue(&*store, "bot").await;
    assert_eq!(store.task(&tenant("a"), waiting.id).await.unwrap(), Some(waiting.clone()));
    // It leaves its place to others.
    let first = task(&owner("a", "bot", "s"));
    store.create_task(first.clone(), CAPS).await.unwrap();
    assert!(matches!(admit(&*store, &waiting).await, Err(StoreError::TooManyForBot { running: 1, limit: 1 })));
    store.update_task(exited(first, 0, at(1)), None).await.unwrap();
    let admitted = admit(&*store, &waiting).await.unwrap();
    assert_eq!((&admitted.state, admitted.revision), (&TaskState::Queued, 1));
    assert_eq!(store.task(&tenant("a"), waiting.id).await.unwrap(), Some(admitted.clone()));
    let refused = store.create_task(task(&owner("a", "bot", "s")), CAPS).await;
    assert!(matches!(refused, Err(StoreError::TooManyForBot { running: 1, limit: 1 })), "{refused:?}");
    // Once is enough.
    assert!(matches!(admit(&*store, &waiting).await, Err(StoreError::TooManyForBot { .. } | StoreError::Conflict)));
    assert_eq!(store.unfinished_tasks().await.unwrap(), [admitted]);
}

pub async fn admission_is_refused_without_room(place: &impl Place) {
    let store = place.open().await;
    for bot in ["one", "two"] {
        store.create_task(task(&owner("a", bot, "s")), CAPS).await.unwrap();
    }
    let waiting = queue(&*store, "three").await;
    let refused = admit(&*store, &waiting).await;
    assert!(matches!(refused, Err(StoreError::TooManyForTenant { running: 2, limit: 2 })), "{refused:?}");
    assert_eq!(store.task(&tenant("a"), waiting.id).await.unwrap(), Some(waiting.clone()), "nothing has changed");
    let stale = Task { revision: 7, ..waiting };
    store.close().await;
    drop(store);
    let store = place.open().await;
    for running in store.unfinished_tasks().await.unwrap().into_iter().take(2) {
        store.update_task(exited(running, 0, at(1)), None).await.unwrap();
    }
    assert!(matches!(admit(&*store, &stale).await, Err(StoreError::Conflict)));
}

pub async fn queued_tasks_have_caps_of_their_own(place: &impl Place) {
    let store = place.open().await;
    queue(&*store, "one").await;
    let mut second = requested(&owner("a", "one", "s"), "r");
    second.state = TaskState::AwaitingRoom;
    store.create_task(second.clone(), CAPS).await.unwrap();
    let try_queue = async |bot: &str, caps| store.create_task(awaiting_room(&owner("a", bot, "s")), caps).await;
    let refused = try_queue("one", CAPS).await;
    assert!(matches!(refused, Err(StoreError::TooManyQueuedForBot { queued: 2, limit: 2 })), "{refused:?}");
    // A repeated request makes no new task.
    store.create_task(second, CAPS).await.unwrap();
    queue(&*store, "two").await;
    let refused = try_queue("two", CAPS).await;
    assert!(matches!(refused, Err(StoreError::TooManyQueuedForTenant { queued: 3, limit: 3 })), "{refused:?}");
    let narrow = Caps { queued_bytes: 4000, ..NO_CAPS };
    let refused = try_queue("two", narrow).await;
    assert!(matches!(refused, Err(StoreError::TooMuchQueued { limit: 4000, .. })), "{refused:?}");
    store.create_task(awaiting_room(&owner("b", "one", "s")), CAPS).await.unwrap();
    let stored = Caps { stored_tasks: 3, ..NO_CAPS };
    assert!(matches!(try_queue("two", stored).await, Err(StoreError::TooManyStored { stored: 3, limit: 3 })));
}

pub async fn stopped_queued_task_frees_its_place(place: &impl Place) {
    let store = place.open().await;
    let [mut first, second] = [queue(&*store, "bot").await, queue(&*store, "bot").await];
    assert!(first.apply(Event::StopRequested { cause: StopCause::Disconnect, at: at(1) }));
    let stopped = store.update_task(first, None).await.unwrap();
    assert_eq!(stopped.status(), Status::Stopped);
    queue(&*store, "bot").await;
    assert_eq!(ids(&store.tasks(all_tasks("a")).await.unwrap()).len(), 3);
    assert!(store.create_task(awaiting_room(&owner("a", "bot", "s")), CAPS).await.is_err());
    create(&*store, task(&owner("a", "bot", "s"))).await;
    assert!(admit(&*store, &second).await.is_err());
}
