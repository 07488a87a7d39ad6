//! How much a change writes.

use std::{fs, sync::Arc};

use errand_store::TaskStore as _;
use errand_task::{Event, Incarnation, ProcessIdentity, Program};

use crate::SqlitePlace;
use errand_store::conformance::fixtures::{at, create, exited, owner, task};

/// The bytes that a change of one row may add to the WAL: a few pages.
const FEW: u64 = 64 * 1024;

/// The bytes in the WAL since the last call.
fn written(place: &SqlitePlace) -> u64 {
    let size = fs::metadata(place.path().join("errand.sqlite-wal")).unwrap().len();
    let connection = rusqlite::Connection::open(place.file()).unwrap();
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0);
    size
}

#[tokio::test]
async fn changes_do_not_rewrite_a_large_command() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let mut large = task(&owner("a", "bot", "s"));
    Arc::make_mut(&mut large.spec).program = Program::Argv(vec!["x".repeat(1 << 20)]);
    written(&place);
    let mut large = create(&store, large).await;
    let created = written(&place);
    assert!((1 << 20..1 << 21).contains(&created), "{created}");
    large.apply(Event::LaunchBegan { incarnation: Incarnation("one".to_owned()) });
    let mut large = store.update_task(large, None).await.unwrap();
    let starting = written(&place);
    large.apply(Event::Started { process: ProcessIdentity { pid: 7, start_ticks: 8 }, at: at(1) });
    let large = store.update_task(large, None).await.unwrap();
    let running = written(&place);
    store.update_task(exited(large, 0, at(2)), None).await.unwrap();
    let finished = written(&place);
    println!("created {created}, starting {starting}, running {running}, finished {finished} bytes");
    assert!([starting, running, finished].iter().all(|bytes| *bytes < FEW), "{starting}, {running}, {finished} bytes");
}
