//! Encrypted secrets of tasks.

use std::sync::Arc;

use super::Place;
use crate::{
    Caps, Created, End, SealedSecrets, TaskStore,
    conformance::fixtures::{HOUR, NO_CAPS, alice, at, exited, remove, requested, task},
};
use errand_task::{Event, Incarnation, ProcessIdentity, Task, TaskState};

fn sealed(keep_values: bool) -> SealedSecrets {
    SealedSecrets { launch: Some(b"launch".to_vec()), values: Some(b"values".to_vec()), keep_values }
}

async fn create(store: &dyn TaskStore, secrets: SealedSecrets) -> Task {
    let mut task = task(&alice());
    Arc::make_mut(&mut task.spec).secret_env = vec!["KEY".to_owned()];
    match store.create_task_with_secrets(task, secrets, NO_CAPS).await.unwrap() {
        Created::New(task) => task,
        Created::Existing(task) => panic!("there is {}", task.id),
    }
}

fn launching(mut task: Task) -> Task {
    assert!(task.apply(Event::LaunchBegan { incarnation: Incarnation("one".to_owned()) }));
    task
}

fn running(task: Task) -> Task {
    let mut task = launching(task);
    assert!(task.apply(Event::Started { process: ProcessIdentity { pid: 7, start_ticks: 70 }, at: at(1) }));
    task
}

pub async fn secrets_are_kept_only_as_long_as_needed(place: &impl Place) {
    let store = place.open().await;
    for keep in [false, true] {
        let created = create(&*store, sealed(keep)).await;
        let read = async || store.secrets(created.id).await.unwrap();
        assert_eq!(read().await, sealed(keep));
        let starting = store.update_task(launching(created.clone()), None).await.unwrap();
        assert_eq!(read().await, sealed(keep), "the launch may be repeated");
        let mut started = running(created.clone());
        started.revision = starting.revision;
        let started = store.update_task(started, None).await.unwrap();
        assert_eq!(read().await, SealedSecrets { launch: None, ..sealed(keep) });
        store.update_task(exited(started, 0, at(2)), None).await.unwrap();
        let left = if keep { SealedSecrets { launch: None, ..sealed(true) } } else { SealedSecrets::default() };
        assert_eq!(read().await, left);
        place.pass(HOUR);
        assert_eq!(remove(&*store, HOUR / 2, 9).await, 1);
        assert_eq!(read().await, SealedSecrets::default());
    }
}

pub async fn values_stay_until_output_is_retained(place: &impl Place) {
    let store = place.open().await;
    for keep in [false, true] {
        let started = store.update_task(running(create(&*store, sealed(keep)).await), None).await.unwrap();
        let (tenant, id) = (started.owner.tenant.clone(), started.id);
        let end = End { output: None, more: true, stored_bytes: u64::MAX };
        let finished = store.finish_task(exited(started, 0, at(2)), None, end).await.unwrap();
        store.update_task(exited(finished, 3, at(3)), None).await.expect("a late outcome is accepted");
        let read = async || store.secrets(id).await.unwrap();
        assert_eq!(read().await, SealedSecrets { launch: None, ..sealed(keep) });
        store.retain_output(&tenant, id, None, u64::MAX).await.unwrap();
        let left = if keep { SealedSecrets { launch: None, ..sealed(true) } } else { SealedSecrets::default() };
        assert_eq!(read().await, left);
    }
}

pub async fn secrets_of_waiting_tasks_stay(place: &impl Place) {
    let store = place.open().await;
    let mut waiting = task(&alice());
    waiting.state = TaskState::AwaitingRoom;
    Arc::make_mut(&mut waiting.spec).secret_env = vec!["KEY".to_owned()];
    let Created::New(waiting) = store.create_task_with_secrets(waiting, sealed(false), NO_CAPS).await.unwrap() else {
        panic!("there is one")
    };
    assert_eq!(store.secrets(waiting.id).await.unwrap(), sealed(false));
    let mut admitted = waiting.clone();
    assert!(admitted.apply(Event::Admitted));
    let admitted = store.admit_task(admitted, NO_CAPS).await.unwrap();
    assert_eq!(store.secrets(waiting.id).await.unwrap(), sealed(false));
    store.update_task(exited(admitted, 0, at(2)), None).await.unwrap();
    assert_eq!(store.secrets(waiting.id).await.unwrap(), SealedSecrets::default());
}

pub async fn secrets_of_unstarted_tasks_end_with_them(place: &impl Place) {
    let store = place.open().await;
    for secrets in [sealed(false), SealedSecrets { values: None, ..sealed(true) }] {
        let created = create(&*store, secrets).await;
        store.update_task(exited(created.clone(), 0, at(2)), None).await.unwrap();
        assert_eq!(store.secrets(created.id).await.unwrap(), SealedSecrets::default());
    }
}

pub async fn secrets_survive_a_reopen(place: &impl Place) {
    let store = place.open().await;
    let created = create(&*store, sealed(true)).await;
    store.close().await;
    drop(store);
    let store = place.open().await;
    assert_eq!(store.secrets(created.id).await.unwrap(), sealed(true));
    assert_eq!(store.task(&created.owner.tenant, created.id).await.unwrap().unwrap().spec.secret_env, ["KEY"]);
}

pub async fn repeated_request_adds_no_secrets(place: &impl Place) {
    let store = place.open().await;
    let first = store.create_task(requested(&alice(), "r"), NO_CAPS).await.unwrap();
    let Created::New(first) = first else { panic!("{first:?}") };
    let again = store.create_task_with_secrets(requested(&alice(), "r"), sealed(true), NO_CAPS).await.unwrap();
    assert_eq!(again, Created::Existing(first.clone()));
    assert_eq!(store.secrets(first.id).await.unwrap(), SealedSecrets::default());
}

pub async fn secrets_count_as_stored_bytes(place: &impl Place) {
    let store = place.open().await;
    let caps = Caps { stored_bytes: 100_000, ..NO_CAPS };
    let large = SealedSecrets { launch: Some(vec![0; 100_000]), ..SealedSecrets::default() };
    assert!(store.create_task_with_secrets(task(&alice()), large, caps).await.is_err());
    assert!(store.create_task_with_secrets(task(&alice()), sealed(true), caps).await.is_ok());
}
