//! The store: the conformance suite on SQLite, and what is SQLite's alone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{path::PathBuf, sync::Arc, time::Duration};

use errand::{
    store::{SqliteStore, StoreError, TaskStore},
    task::{NotificationKind, Status},
};
use futures_util::future::join_all;
use tempfile::TempDir;

#[path = "conformance/store.rs"]
mod conformance;
mod fixtures;

use fixtures::{NO_CAPS, all_notifications, all_tasks, at, create, exited, ids, notice, owner, scope, task, tenant};

struct SqlitePlace(TempDir);

impl SqlitePlace {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("errand.sqlite")
    }

    async fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.file()).await.unwrap()
    }

    /// Runs SQL past the store.
    fn execute(&self, sql: &str) -> Result<(), rusqlite::Error> {
        rusqlite::Connection::open(self.file())?.execute_batch(sql)
    }

    /// Makes `count` changes while the writer is held up with another one, so that it finds them all at once. Returns what came of them, and
    /// how many commits there were for them.
    async fn in_one_group<T>(&self, store: &SqliteStore, count: usize, changes: impl Future<Output = T>) -> (T, u64) {
        let before = store.commits();
        let lock = rusqlite::Connection::open(self.file()).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        let whose = owner("another", "bot", "s");
        let mut first = Box::pin(store.create_task(task(&whose), NO_CAPS));
        assert!(futures_util::poll!(&mut first).is_pending());
        waiting(store, 0).await;
        let mut changes = Box::pin(changes);
        assert!(futures_util::poll!(&mut changes).is_pending());
        waiting(store, count).await;
        lock.execute_batch("ROLLBACK").unwrap();
        first.await.unwrap();
        let made = changes.await;
        (made, store.commits() - before - 1)
    }
}

/// Waits until so many changes wait.
async fn waiting(store: &SqliteStore, count: usize) {
    let all_there = async {
        while store.waiting() != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(4), all_there).await.expect("they wait");
}

impl conformance::Place for SqlitePlace {
    async fn empty() -> Self {
        Self::new()
    }

    async fn open(&self) -> Arc<dyn TaskStore> {
        Arc::new(self.store().await)
    }
}

store_conformance!(SqlitePlace);

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_was() {
    let place = SqlitePlace::new();
    place.store().await.close().await;
    place.execute("PRAGMA user_version = 99").unwrap();
    let before = std::fs::read(place.file()).unwrap();
    let error = SqliteStore::open(&place.file()).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 99, known: 1 }), "{error:?}");
    assert_eq!(std::fs::read(place.file()).unwrap(), before);
}

#[tokio::test]
async fn a_text_file_is_refused_and_left_as_it_was() {
    for text in ["a", "notes of somebody\n"] {
        let place = SqlitePlace::new();
        std::fs::write(place.file(), text).unwrap();
        let error = SqliteStore::open(&place.file()).await.unwrap_err();
        assert!(matches!(error, StoreError::NotADatabase { .. }), "{error:?}");
        assert_eq!(std::fs::read_to_string(place.file()).unwrap(), text);
    }
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_left_as_it_was() {
    let place = SqlitePlace::new();
    let bytes = [b"SQLite format 3\0".as_slice(), &[0xff; 5000]].concat();
    std::fs::write(place.file(), &bytes).unwrap();
    let error = SqliteStore::open(&place.file()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error:?}");
    assert_eq!(std::fs::read(place.file()).unwrap(), bytes);
}

#[tokio::test]
async fn the_database_of_another_program_is_refused_and_left_as_it_was() {
    let place = SqlitePlace::new();
    place.execute("CREATE TABLE bookmarks (url TEXT)").unwrap();
    let before = std::fs::read(place.file()).unwrap();
    let error = SqliteStore::open(&place.file()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error:?}");
    assert_eq!(std::fs::read(place.file()).unwrap(), before);
}

#[tokio::test]
async fn a_missing_directory_is_named_in_the_error() {
    let place = SqlitePlace::new();
    let error = SqliteStore::open(&place.0.path().join("none/errand.sqlite")).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unwritable { path, .. } if path.contains("none/errand.sqlite")), "{error:?}");
}

#[tokio::test]
async fn a_new_database_is_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = SqlitePlace::new();
    let store = place.store().await;
    create(&store, task(&owner("a", "bot", "s"))).await;
    for entry in std::fs::read_dir(place.0.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
}

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_closes() {
    let place = SqlitePlace::new();
    let first = place.store().await;
    let error = SqliteStore::open(&place.file()).await.unwrap_err();
    assert!(matches!(&error, StoreError::InUse { path } if *path == place.file().display().to_string()), "{error:?}");
    create(&first, task(&owner("a", "bot", "s"))).await;
    first.close().await;
    assert_eq!(place.store().await.tasks(all_tasks("a")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn concurrent_creates_share_commits() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let whose = owner("a", "bot", "s");
    // Fewer than Tokio lets a task do before it must let others have their turn.
    let creates = join_all((0..100).map(|_| store.create_task(task(&whose), NO_CAPS)));
    let (results, commits) = place.in_one_group(&store, 100, creates).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(commits, 1);
}

#[tokio::test]
async fn closing_waits_for_what_was_accepted() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let whose = owner("a", "bot", "s");
    let creates = join_all((0..50).map(|_| store.create_task(task(&whose), NO_CAPS)));
    let (results, ()) = tokio::join!(creates, store.close());
    let made = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(made, 50);
    assert_eq!(place.store().await.tasks(all_tasks("a")).await.unwrap().len(), made);
}

#[tokio::test]
async fn the_database_itself_keeps_a_terminal_status() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let queued = create(&store, task(&owner("a", "bot", "s"))).await;
    place.execute("UPDATE tasks SET status = 'running'").unwrap();
    store.update_task(exited(queued, 0, at(1)), None).await.unwrap();
    for sql in ["UPDATE tasks SET status = 'failed'", "UPDATE tasks SET status = 'running', finished_at = NULL"] {
        let error = place.execute(sql).unwrap_err();
        assert!(error.to_string().contains("a terminal status is final"), "{error}");
    }
    assert_eq!(store.tasks(all_tasks("a")).await.unwrap()[0].status(), Status::Succeeded);
}

#[tokio::test]
async fn a_change_that_fails_midway_is_undone_and_harms_no_neighbour() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    place
        .execute(
            "CREATE TRIGGER sabotage BEFORE INSERT ON notifications WHEN NEW.bot = 'broken' \
         BEGIN SELECT RAISE(ABORT, 'sabotage'); END",
        )
        .unwrap();
    let broken = create(&store, task(&owner("a", "broken", "s"))).await;
    let sound = create(&store, task(&owner("a", "sound", "s"))).await;
    let finish = |task| {
        let task = exited(task, 0, at(1));
        let told = notice(NotificationKind::Completed, &task);
        store.update_task(task, Some(told))
    };
    let both = async { tokio::join!(finish(broken.clone()), finish(sound.clone())) };
    let ((failed, done), commits) = place.in_one_group(&store, 2, both).await;
    assert_eq!(commits, 1, "both were in one commit");
    assert!(matches!(failed, Err(StoreError::Database(_))), "{failed:?}");
    assert_eq!(store.task(&tenant("a"), broken.id).await.unwrap(), Some(broken));
    assert_eq!(store.task(&tenant("a"), sound.id).await.unwrap(), Some(done.unwrap()));
    assert_eq!(store.notifications(all_notifications(&scope(&sound.owner))).await.unwrap().len(), 1);
}

/// Creates a task of a broken bot between two of a sound one, in one group, and expects that none is stored and none is told so.
async fn expect_the_group_to_fail(place: &SqlitePlace, store: &SqliteStore) {
    let owners = [owner("a", "sound", "s"), owner("a", "broken", "s"), owner("a", "sound", "s")];
    let creates = join_all(owners.iter().map(|owner| store.create_task(task(owner), NO_CAPS)));
    let (results, commits) = place.in_one_group(store, 3, creates).await;
    assert!(results.iter().all(|result| matches!(result, Err(StoreError::Database(_)))), "{results:?}");
    assert_eq!(commits, 0);
    assert!(store.tasks(all_tasks("a")).await.unwrap().is_empty());
    // The writer is none the worse for it.
    place.execute("DROP TRIGGER sabotage").unwrap();
    let made = create(store, task(&owners[1])).await;
    assert_eq!(ids(&store.tasks(all_tasks("a")).await.unwrap()), [made.id]);
}

#[tokio::test]
async fn a_commit_that_fails_is_told_to_all_in_it() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    place
        .execute(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY);
         CREATE TABLE child (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER sabotage AFTER INSERT ON tasks WHEN NEW.bot = 'broken' BEGIN INSERT INTO child VALUES (1); END",
        )
        .unwrap();
    expect_the_group_to_fail(&place, &store).await;
}

#[tokio::test]
async fn a_group_that_the_database_rolled_back_by_itself_does_not_go_on() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    place
        .execute(
            "CREATE TRIGGER sabotage BEFORE INSERT ON tasks WHEN NEW.bot = 'broken' \
         BEGIN SELECT RAISE(ROLLBACK, 'sabotage'); END",
        )
        .unwrap();
    expect_the_group_to_fail(&place, &store).await;
}
