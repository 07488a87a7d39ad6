//! Output that outlives its sandbox.

use crate::{Caps, End, StoreError, TaskStore};
use errand_task::{NotificationKind, Outcome, Retained, RetainedOutput, Stream, Task};

use super::Place;
use crate::conformance::fixtures::{
    HOUR, MINUTE, NO_CAPS, alice, all_tasks, at, create, exited, notice, remove, task, tenant,
};

const MUCH: u64 = 1 << 40;

fn output(text: &str) -> RetainedOutput {
    let mut output = RetainedOutput::of(text.len() as u64 + 9);
    output.push(0, Stream::Stdout, text.as_bytes());
    output
}

/// Bytes that cannot be packed.
fn noise(length: usize, state: &mut u64) -> Vec<u8> {
    let next = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A finished task with this output.
async fn printed(store: &dyn TaskStore, output: RetainedOutput, stored_bytes: u64) -> Task {
    let finished = exited(create(store, task(&alice())).await, 0, at(1));
    let told = notice(NotificationKind::Completed, &finished);
    let end = End { output: Some(output), more: true, stored_bytes };
    store.finish_task(finished, Some(told), end).await.unwrap()
}

/// The bytes that are counted for the tenant.
async fn stored(store: &dyn TaskStore) -> u64 {
    match store.create_task(task(&alice()), Caps { stored_bytes: 0, ..NO_CAPS }).await.unwrap_err() {
        StoreError::TooMuchStored { stored, .. } => stored,
        other => panic!("{other:?}"),
    }
}

pub async fn retained_output_reads_back(place: &impl Place) {
    let store = place.open().await;
    let kept = output("some words");
    let done = printed(&*store, kept.clone(), MUCH).await;
    assert_eq!(done.retained, Some(kept.summary()));
    let mut long = RetainedOutput::of(5_000_000);
    for number in 0..100_000_u64 {
        let stream = if number.is_multiple_of(100) { Stream::Stderr } else { Stream::Stdout };
        long.push(number * 8, stream, format!("{number:07}\n").as_bytes());
    }
    let other = printed(&*store, long.clone(), MUCH).await;
    let silent = exited(create(&*store, task(&alice())).await, 0, at(1));
    let silent = store.finish_task(silent, None, End::default()).await.unwrap();
    store.close().await;
    drop(store);
    let store = place.open().await;
    assert_eq!(store.task(&tenant("a"), done.id).await.unwrap(), Some(done.clone()));
    assert_eq!(store.retained_output(&tenant("a"), done.id).await.unwrap(), Some(kept));
    assert_eq!(store.retained_output(&tenant("a"), other.id).await.unwrap(), Some(long));
    assert_eq!(store.retained_output(&tenant("a"), silent.id).await.unwrap(), None);
    assert_eq!(store.retained_output(&tenant("b"), done.id).await.unwrap(), None);
    assert_eq!(store.tasks(all_tasks("a")).await.unwrap(), [silent, other, done]);
}

pub async fn retained_output_is_replaced_and_counted(place: &impl Place) {
    let store = place.open().await;
    let done = printed(&*store, output("x"), MUCH).await;
    let before = stored(&*store).await;
    let noise: String = noise(20_000, &mut 1).into_iter().map(|byte| char::from(33 + byte % 90)).collect();
    store.retain_output(&tenant("a"), done.id, Some(output(&noise)), MUCH).await.unwrap();
    assert!((10_000..30_000).contains(&(stored(&*store).await - before)));
    let now = store.task(&tenant("a"), done.id).await.unwrap().unwrap();
    assert_eq!((now.retained.map(|kept| kept.bytes), now.revision), (Some(20_000), done.revision));
    store.retain_output(&tenant("a"), done.id, Some(output("y")), MUCH).await.unwrap();
    assert_eq!(stored(&*store).await, before);
    // Neither an unfinished task nor another tenant's.
    let running = create(&*store, task(&alice())).await;
    store.retain_output(&tenant("a"), running.id, Some(output("z")), MUCH).await.unwrap();
    store.retain_output(&tenant("b"), done.id, Some(output("z")), MUCH).await.unwrap();
    assert_eq!(store.retained_output(&tenant("a"), running.id).await.unwrap(), None);
    assert_eq!(store.retained_output(&tenant("a"), done.id).await.unwrap(), Some(output("y")));
    store.update_task(exited(running, 0, at(1)), None).await.unwrap();
    place.pass(HOUR);
    assert_eq!(remove(&*store, MINUTE, 9).await, 2);
    assert_eq!(store.retained_output(&tenant("a"), done.id).await.unwrap(), None);
    assert_eq!(stored(&*store).await, 0, "removals are subtracted");
}

pub async fn output_without_room_fails_no_end(place: &impl Place) {
    let store = place.open().await;
    let done = printed(&*store, output("some words"), 0).await;
    assert_eq!((done.retained.clone(), done.state.outcome()), (None, Some(&Outcome::Exited { code: 0 })));
    assert_eq!(store.task(&tenant("a"), done.id).await.unwrap(), Some(done.clone()));
    store.retain_output(&tenant("a"), done.id, Some(output("some words")), 0).await.unwrap();
    assert_eq!(store.retained_output(&tenant("a"), done.id).await.unwrap(), None);
}

pub async fn outputs_leave_room_for_tasks(place: &impl Place) {
    let store = place.open().await;
    let limit = 200_000;
    let mut state = 1;
    for _ in 0..20 {
        let mut output = RetainedOutput::of(20_000);
        output.push(0, Stream::Both, &noise(20_000, &mut state));
        printed(&*store, output, limit).await;
    }
    let kept = store.tasks(all_tasks("a")).await.unwrap().iter().filter(|task| task.retained.is_some()).count();
    assert!((2..5).contains(&kept), "{kept} outputs");
    store.create_task(task(&alice()), Caps { stored_bytes: limit, ..NO_CAPS }).await.unwrap();
}

pub async fn unretained_tasks_are_listed_by_sandbox(place: &impl Place) {
    let store = place.open().await;
    let [first, other] = [printed(&*store, output("x"), MUCH).await, printed(&*store, output("x"), MUCH).await];
    let second = exited(Task { sandbox: first.sandbox, ..task(&alice()) }, 0, at(1));
    let second = create(&*store, Task { state: task(&alice()).state, ..second }).await;
    let end = End { output: None, more: true, stored_bytes: MUCH };
    let second = store.finish_task(exited(second, 0, at(1)), None, end).await.unwrap();
    let whole = create(&*store, Task { sandbox: first.sandbox, ..task(&alice()) }).await;
    store.finish_task(exited(whole, 0, at(1)), None, End::default()).await.unwrap();
    let listed = async |limit| store.unretained_tasks(first.sandbox, limit).await.unwrap();
    assert_eq!(listed(9).await, [first.clone(), second.clone()]);
    assert_eq!(listed(1).await, std::slice::from_ref(&first));
    store.retain_output(&tenant("a"), first.id, None, MUCH).await.unwrap();
    assert_eq!(store.retained_output(&tenant("a"), first.id).await.unwrap(), Some(output("x")), "it stays");
    store.retain_output(&tenant("a"), second.id, Some(output("y")), 0).await.unwrap();
    assert_eq!(listed(9).await, [], "also without room");
    assert_eq!(store.unretained_tasks(other.sandbox, 9).await.unwrap(), [other]);
}

pub async fn late_outcome_keeps_the_retained_output(place: &impl Place) {
    let store = place.open().await;
    let done = printed(&*store, output("x"), MUCH).await;
    store.retain_output(&tenant("a"), done.id, Some(output("xyz")), MUCH).await.unwrap();
    // Made from a record of before.
    store.update_task(exited(done.clone(), 3, at(2)), None).await.unwrap();
    let now = store.task(&tenant("a"), done.id).await.unwrap().unwrap();
    assert_eq!(now.late_outcome, Some(Outcome::Exited { code: 3 }));
    let gaps = vec![errand_task::Gap { start: 3, end: 12 }];
    assert_eq!(now.retained, Some(Retained { bytes: 3, gaps }));
}
