//! Databases of earlier versions open, and their tasks continue.

use std::time::Duration;

use errand_store::{Caps, SqliteStore, StoreError, TaskStore as _};
use errand_task::{Incarnation, Outcome, Status};

use crate::SqlitePlace;
use errand_store::conformance::{
    Place as _,
    fixtures::{NO_CAPS, all_tasks, at, complete, exited, owner, remove, task, tenant},
};

/// The database of version 0.1.0: two finished tasks and a running one.
const RELEASED: &[u8] = include_bytes!("../../../../tests/fixtures/errand-0.1.0.db");
/// A task as version 0.1.0 stored it, queued.
const RECORD: &str = include_str!("../../src/stored/golden/0.1.0/tasks.jsonl");

#[tokio::test]
async fn a_database_of_a_release_is_migrated() {
    let place = SqlitePlace::new();
    std::fs::write(place.file(), RELEASED).unwrap();
    // As if the running task had a large command.
    place
        .execute(
            "UPDATE tasks SET record = json_set(record, '$.spec.program.shell.text', hex(zeroblob(500000))) \
             WHERE status = 'running'",
        )
        .unwrap();
    let store = place.store().await;
    let tasks = store.tasks(all_tasks("local")).await.unwrap();
    let statuses: Vec<Status> = tasks.iter().map(errand_task::Task::status).collect();
    assert_eq!(statuses, [Status::Running, Status::Succeeded, Status::Failed]);
    assert_eq!(tasks[2].state.outcome(), Some(&Outcome::Exited { code: 3 }));
    assert_eq!((tasks[2].output.preview.as_str(), tasks[2].revision), ("said", 1));
    assert!(tasks[0].state.incarnation().is_some_and(|Incarnation(name)| name.starts_with("b4ea54")));
    assert_eq!(tasks[0].spec.program.len(), 1_000_000);
    assert_eq!(store.sandboxes(None, None, 9).await.unwrap().len(), 1);
    let finished = store.update_task(exited(tasks[0].clone(), 0, at(1)), None).await.unwrap();
    let large =
        "SELECT count(*) FROM tasks JOIN large_records AS large ON large.task = tasks.id WHERE tasks.record = ''";
    let connection = rusqlite::Connection::open(place.file()).unwrap();
    assert_eq!(connection.query_row(large, [], |row| row.get::<_, i64>(0)).unwrap(), 1, "its changes are small now");
    store.close().await;
    let store: SqliteStore = place.store().await;
    assert_eq!(store.task(&tenant("local"), finished.id).await.unwrap(), Some(finished));
}

/// Notifications of earlier versions outlived their tasks. Those of a kind that leads to no task any more go with the migration.
#[tokio::test]
async fn notices_of_removed_tasks_are_migrated() {
    let place = SqlitePlace::new();
    std::fs::write(place.file(), RELEASED).unwrap();
    let insert = |task: &str, kind: &str| {
        let columns = "tenant, bot, session, task, kind, created_at, record";
        format!("INSERT INTO notifications ({columns}) VALUES ('local', 'b', 's', '{task}', '{kind}', 1, '{{}}');")
    };
    place
        .execute(&[insert("gone", "completed"), insert("gone", "stalled"), insert("lost", "stalled")].concat())
        .unwrap();
    let store = place.store().await;
    let of = |task: &str| {
        let connection = rusqlite::Connection::open(place.file()).unwrap();
        let count = "SELECT count(*) FROM notifications WHERE task = ?";
        connection.query_row(count, [task], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!((of("gone"), of("lost")), (2, 0));
    assert_eq!(
        store.unretained_tasks(store.tasks(all_tasks("local")).await.unwrap()[1].sandbox, 9).await.unwrap().len(),
        2
    );
    place.pass(Duration::from_secs(3600));
    assert!(remove(&store, Duration::from_secs(60), 9).await >= 2);
    assert_eq!(of("gone"), 0);
}

/// A database as the first schema made it, with a task.
fn first_schema(place: &SqlitePlace) {
    let schema = include_str!("../../src/sqlite/migrations/0001_initial.sql");
    place.execute(&format!("{schema} PRAGMA application_id = {}; PRAGMA user_version = 1;", 0x4572_7264)).unwrap();
    let connection = rusqlite::Connection::open(place.file()).unwrap();
    let insert = "INSERT INTO tasks (id, tenant, bot, session, sandbox, status, created_at, revision, record) \
                  VALUES ('018bcfe5-6800-7000-8000-000000000001', 'a', 'bot', 's', 'none', 'queued', 0, 0, ?)";
    connection.execute(insert, [RECORD.lines().next().unwrap()]).unwrap();
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_migrated() {
    let place = SqlitePlace::new();
    first_schema(&place);
    let store = place.store().await;
    let old = store.unfinished_tasks().await.unwrap().remove(0);
    assert_eq!(old.id.to_string(), "018bcfe5-6800-7000-8000-000000000001");
    let caps = Caps { stored_tasks: 1, ..NO_CAPS };
    let refused = store.create_task(task(&owner("a", "bot", "s")), caps).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooManyStored { stored: 1, limit: 1 }), "{refused:?}");
    store.update_task(exited(old, 0, at(1)), None).await.unwrap();
    complete(&store, &owner("a", "bot", "s")).await;
    place.pass(Duration::from_secs(3600));
    let minute = Duration::from_secs(60);
    assert_eq!(remove(&store, minute, 9).await, 2);
    let none = Caps { stored_bytes: 0, ..NO_CAPS };
    let refused = store.create_task(task(&owner("a", "bot", "s")), none).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooMuchStored { stored: 0, .. }), "nothing is taken off twice: {refused:?}");
}
