//! Undecodable records affect no other record.

use crate::{LeaseRequest, StoreError, TaskQuery};
use errand_task::{LeaseId, Status, Task};

use super::Place;
use crate::conformance::fixtures::{
    HOUR, MINUTE, all_notifications, all_tasks, bot, complete, create, ids, owner, remove, requested, sandbox, scope,
    sequences, task, tenant,
};

/// Not JSON, an unknown state, half a record, missing fields.
const UNDECODABLE: [&str; 4] =
    ["hunter2", r#"{"state": "hunter2"}"#, r#"{"id": "hunter2", "ow"#, r#"{"id": "hunter2"}"#];

pub async fn lists_leave_out_undecodable_tasks(place: &impl Place) {
    let store = place.open().await;
    let mut made = Vec::new();
    for _ in 0..6 {
        made.push(create(&*store, task(&owner("a", "bot", "s"))).await.id);
    }
    for (id, record) in made[1..5].iter().zip(UNDECODABLE) {
        place.spoil("task", &id.to_string(), record);
    }
    assert_eq!(ids(&store.tasks(all_tasks("a")).await.unwrap()), [made[5], made[0]]);
    // A page with only undecodable records is not the last page.
    assert_eq!(ids(&store.tasks(TaskQuery { limit: 2, ..all_tasks("a") }).await.unwrap()), [made[5], made[0]]);
    let labels = [("no".to_owned(), "such".to_owned())].into();
    assert_eq!(store.tasks(TaskQuery { labels, ..all_tasks("a") }).await.unwrap(), []);
    for id in [made[0], made[5]] {
        assert_eq!(store.task(&tenant("a"), id).await.unwrap().unwrap().id, id);
    }
}

pub async fn error_of_undecodable_task_hides_its_content(place: &impl Place) {
    let store = place.open().await;
    let made = create(&*store, requested(&owner("a", "bot", "s"), "r")).await;
    for record in UNDECODABLE {
        place.spoil("task", &made.id.to_string(), record);
        let whose = tenant("a");
        let again = requested(&owner("a", "bot", "s"), "r");
        let errors = [
            store.task(&whose, made.id).await.unwrap_err(),
            store.task_by_request(&whose, &bot("bot"), "r").await.unwrap_err(),
            store.create_task(again, crate::conformance::fixtures::NO_CAPS).await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(&error, StoreError::Record { what: "task", id, .. } if *id == made.id.to_string()));
            let words = format!("{error} {error:?}");
            assert!(!words.contains("hunter2"), "{words}");
        }
        assert_eq!(store.task(&tenant("b"), made.id).await.unwrap(), None, "other tenants get no error");
    }
}

pub async fn undecodable_unfinished_tasks_stay_stored(place: &impl Place) {
    let store = place.open().await;
    let spoiled = create(&*store, task(&owner("a", "bot", "s"))).await;
    let sound = create(&*store, task(&owner("a", "bot", "s"))).await;
    place.spoil("task", &spoiled.id.to_string(), UNDECODABLE[0]);
    assert_eq!(ids(&store.unfinished_tasks().await.unwrap()), [sound.id]);
    let unfinished = TaskQuery { statuses: vec![Status::Queued], ..all_tasks("a") };
    assert_eq!(ids(&store.tasks(unfinished).await.unwrap()), [sound.id]);
    assert!(store.task(&tenant("a"), spoiled.id).await.is_err(), "it is still there");
}

pub async fn lists_leave_out_undecodable_sandboxes(place: &impl Place) {
    let store = place.open().await;
    let records = ["one", "two", "three"].map(|name| sandbox("a", name));
    for record in &records {
        store.put_sandbox(record.clone()).await.unwrap();
    }
    // The container still belongs to the undecodable sandbox.
    let spoiled = format!(r#"{{"runtime": "docker", "runtime_id": "{}"}}"#, records[1].runtime_id);
    place.spoil("sandbox", &records[1].id.to_string(), &spoiled);
    let sound = [records[0].clone(), records[2].clone()];
    assert_eq!(store.sandboxes(None, None, 2).await.unwrap(), sound);
    assert_eq!(store.sandboxes(Some(&tenant("a")), Some(records[0].id), 1).await.unwrap(), sound[1..]);
    assert_eq!(store.sandbox(&tenant("a"), &bot("three")).await.unwrap().as_ref(), Some(&records[2]));
    let error = store.sandbox(&tenant("a"), &bot("two")).await.unwrap_err();
    assert!(matches!(error, StoreError::Record { what: "sandbox", .. }), "{error:?}");
}

pub async fn an_undecodable_notification_blocks_no_other(place: &impl Place) {
    let store = place.open().await;
    let alice = owner("a", "bot", "s");
    for _ in 0..6 {
        complete(&*store, &alice).await;
    }
    let made = sequences(&store.notifications(all_notifications(&scope(&alice))).await.unwrap());
    for (sequence, record) in made[0..4].iter().zip(UNDECODABLE) {
        place.spoil("notification", &sequence.to_string(), record);
    }
    let listed = store.notifications(all_notifications(&scope(&alice))).await.unwrap();
    assert_eq!(sequences(&listed), made[4..]);
    let request = LeaseRequest { lease: LeaseId::new(), after: 0, limit: 1, duration: HOUR };
    for wanted in &made[4..] {
        let leased = store.lease(&scope(&alice), request).await.unwrap().notifications;
        assert_eq!((sequences(&leased), leased[0].deliveries), (vec![*wanted], 1));
    }
    assert!(store.lease(&scope(&alice), request).await.unwrap().notifications.is_empty());
}

pub async fn retention_removes_undecodable_records(place: &impl Place) {
    let store = place.open().await;
    let alice = owner("a", "bot", "s");
    let done: Task = complete(&*store, &alice).await;
    let made = sequences(&store.notifications(all_notifications(&scope(&alice))).await.unwrap());
    place.spoil("task", &done.id.to_string(), UNDECODABLE[0]);
    place.spoil("notification", &made[0].to_string(), UNDECODABLE[0]);
    place.pass(HOUR);
    assert_eq!(remove(&*store, MINUTE, 9).await, 1);
    assert!(store.notifications(all_notifications(&scope(&alice))).await.unwrap().is_empty());
    assert_eq!(store.task(&tenant("a"), done.id).await.unwrap(), None);
}
