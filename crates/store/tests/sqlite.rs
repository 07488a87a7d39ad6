//! The store: the conformance suite on SQLite, and what is SQLite's alone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{path::PathBuf, sync::Arc, time::Duration};

use errand_store::{Caps, LeaseRequest, Selection, SqliteStore, StoreError, TaskQuery, TaskStore};
use errand_task::{LeaseId, NotificationKind, Status, TaskId};
use futures_util::future::join_all;
use tempfile::TempDir;

use errand_store::conformance::fixtures::{
    NO_CAPS, all_notifications, all_tasks, at, complete, create, exited, ids, notice, owner, scope, sequences, task,
    tenant,
};

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

impl errand_store::conformance::Place for SqlitePlace {
    async fn empty() -> Self {
        Self::new()
    }

    async fn open(&self) -> Arc<dyn TaskStore> {
        Arc::new(self.store().await)
    }

    fn spoil(&self, what: &str, id: &str, record: &str) {
        let key = if what == "notification" { "sequence" } else { "id" };
        let connection = rusqlite::Connection::open(self.file()).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        // A JSON index of sandboxes refuses what is no JSON at all; damage does not ask.
        let sql = format!("UPDATE {what}{} SET record = ? WHERE {key} = ?", if what == "sandbox" { "es" } else { "s" });
        assert_eq!(connection.execute(&sql, (record, id)).unwrap(), 1);
    }
}

errand_store::store_conformance!(SqlitePlace);

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_was() {
    let place = SqlitePlace::new();
    place.store().await.close().await;
    place.execute("PRAGMA user_version = 99").unwrap();
    let before = std::fs::read(place.file()).unwrap();
    let error = SqliteStore::open(&place.file()).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 99, known: 2 }), "{error:?}");
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
async fn failed_change_is_undone_without_harming_neighbours() {
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

/// The database as the first version of the schema made it, with a task.
fn first_schema(place: &SqlitePlace) -> errand_task::Task {
    let old = task(&owner("a", "bot", "s"));
    let schema = include_str!("../src/sqlite/migrations/0001_initial.sql");
    place.execute(&format!("{schema} PRAGMA application_id = {}; PRAGMA user_version = 1;", 0x4572_7264)).unwrap();
    let connection = rusqlite::Connection::open(place.file()).unwrap();
    let insert = "INSERT INTO tasks (id, tenant, bot, session, sandbox, status, created_at, revision, record) \
                  VALUES (?, 'a', 'bot', 's', ?, 'queued', 0, 0, ?)";
    let record = serde_json::to_string(&old).unwrap();
    connection.execute(insert, (old.id.to_string(), old.sandbox.to_string(), record)).unwrap();
    old
}

#[tokio::test]
async fn a_database_of_the_first_schema_goes_on() {
    let place = SqlitePlace::new();
    let old = first_schema(&place);
    let store = place.store().await;
    assert_eq!(store.unfinished_tasks().await.unwrap(), std::slice::from_ref(&old));
    let caps = Caps { stored_tasks: 1, ..NO_CAPS };
    let refused = store.create_task(task(&owner("a", "bot", "s")), caps).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooManyStored { stored: 1, limit: 1 }), "{refused:?}");
    store.update_task(exited(old, 0, at(1)), None).await.unwrap();
    complete(&store, &owner("a", "bot", "s")).await;
    assert_eq!(store.remove_finished_tasks(at(1000), 9).await.unwrap(), 2);
    let none = Caps { stored_bytes: 0, ..NO_CAPS };
    assert_eq!(store.remove_notifications(at(0), at(1000), 9).await.unwrap(), 1);
    let refused = store.create_task(task(&owner("a", "bot", "s")), none).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooMuchStored { stored: 0, .. }), "nothing is taken off twice: {refused:?}");
}

/// Fills the database with finished tasks of a tenant, past the store. Each has a label of its own.
fn fill(place: &SqlitePlace, whose: &str, count: u32) {
    let model = exited(task(&owner(whose, "bot", "s")), 0, at(1));
    let record = serde_json::to_string(&model).unwrap();
    assert!(record.contains(r#""labels":{}"#), "{record}");
    let record = record.replace(r#""labels":{}"#, r#""labels":{"n":"NUMBER"}"#).replace(&model.id.to_string(), "TASK");
    let connection = rusqlite::Connection::open(place.file()).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    let insert = "INSERT INTO tasks (id, tenant, bot, session, sandbox, status, created_at, finished_at, revision, record) \
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1), \
        made (i, id) AS (SELECT i, printf('00000000-0000-7000-8000-%012x', i) FROM n) \
        SELECT id, ?2, 'bot', 's', ?3, 'succeeded', 0, 1, 0, replace(replace(?4, 'TASK', id), 'NUMBER', i) FROM made";
    let made = connection.execute(insert, (count, whose, model.sandbox.to_string(), record)).unwrap();
    assert_eq!(made, count as usize);
}

fn labelled(whose: &str, number: u32) -> TaskQuery {
    TaskQuery { labels: [("n".to_owned(), number.to_string())].into(), ..all_tasks(whose) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_of_one_tenant_hold_up_no_other() {
    let place = SqlitePlace::new();
    let store = Arc::new(place.store().await);
    let stranger = create(&*store, task(&owner("stranger", "bot", "s"))).await;
    fill(&place, "greedy", 100_000);
    let mut scans = tokio::task::JoinSet::new();
    for number in 1..=24 {
        let store = Arc::clone(&store);
        scans.spawn(async move { store.tasks(labelled("greedy", number)).await.unwrap() });
    }
    // They have all begun.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        assert_eq!(store.task(&tenant("stranger"), stranger.id).await.unwrap().as_ref(), Some(&stranger));
    }
    assert_eq!(ids(&store.tasks(all_tasks("stranger")).await.unwrap()), [stranger.id]);
    let over = std::iter::from_fn(|| scans.try_join_next()).count();
    assert_eq!(over, 0, "a hundred lookups and a list of a stranger take less than one scan of a hundred thousand");
    // Nobody waits for them any more: they make room for one that comes to its end.
    scans.shutdown().await;
    assert_eq!(store.tasks(labelled("greedy", 50_000)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_page_looks_at_few_tasks_and_goes_on() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    fill(&place, "a", 10_000);
    let mut query = labelled("a", 1);
    let (mut pages, mut found) = (0, Vec::new());
    loop {
        let page = store.task_page(query.clone()).await.unwrap();
        pages += 1;
        found.extend(page.tasks);
        assert!(page.next.is_none() || page.next < query.before || query.before.is_none());
        query.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert!(pages >= 3, "{pages}");
    assert_eq!(ids(&found), ["00000000-0000-7000-8000-000000000001".parse::<TaskId>().unwrap()]);
}

#[tokio::test]
async fn flood_of_changes_delays_no_other_tenant() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let lock = rusqlite::Connection::open(place.file()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (greedy, quiet) = (owner("greedy", "bot", "s"), owner("quiet", "bot", "s"));
    let mut flood: Vec<_> = (0..900).map(|_| Box::pin(store.create_task(task(&greedy), NO_CAPS))).collect();
    for change in &mut flood {
        assert!(tokio::task::unconstrained(async { futures_util::poll!(change) }).await.is_pending());
    }
    let mut one = Box::pin(store.create_task(task(&quiet), NO_CAPS));
    assert!(tokio::task::unconstrained(async { futures_util::poll!(&mut one) }).await.is_pending());
    lock.execute_batch("ROLLBACK").unwrap();
    one.await.unwrap();
    let commits = store.commits();
    assert!(commits <= 2, "it is in the first group or the next: {commits}");
    for change in flood {
        change.await.unwrap();
    }
}

#[tokio::test]
async fn a_refused_change_costs_its_neighbours_nothing() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let (sound, full) = (owner("a", "sound", "s"), owner("a", "full", "s"));
    let caps = |owner: &errand_task::Owner| if *owner == full { Caps { per_bot: 0, ..NO_CAPS } } else { NO_CAPS };
    let owners = [sound.clone(), full.clone(), sound.clone()];
    let creates = join_all(owners.iter().map(|owner| store.create_task(task(owner), caps(owner))));
    let (results, commits) = place.in_one_group(&store, 3, creates).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(commits, 1);
}

#[tokio::test]
async fn what_is_leased_hides_nothing_behind_it() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let alice = owner("a", "bot", "s");
    let done = complete(&store, &alice).await;
    let copy = "INSERT INTO notifications (tenant, bot, session, task, kind, created_at, record, lease, lease_until) \
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
        SELECT tenant, bot, session, task, kind, created_at, record, 'held', 9000000000000000 FROM notifications, n";
    place.execute(copy).unwrap();
    let first = sequences(&store.notifications(all_notifications(&scope(&alice))).await.unwrap())[0];
    store.acknowledge(&scope(&alice), Selection::Sequences(vec![first]), at(1)).await.unwrap();
    complete(&store, &alice).await;
    let request = LeaseRequest { lease: LeaseId::new(), after: 0, limit: 9, now: at(0), until: at(10) };
    let leased = store.lease(&scope(&alice), request).await.unwrap();
    assert_eq!(leased.len(), 1);
    assert_ne!(leased[0].body.task, done.id);
}

#[tokio::test]
async fn spoiled_records_are_counted_once() {
    use errand_store::conformance::Place as _;
    let place = SqlitePlace::new();
    let store = place.store().await;
    let spoiled = create(&store, task(&owner("a", "bot", "s"))).await;
    place.spoil("task", &spoiled.id.to_string(), "{}");
    for _ in 0..3 {
        assert!(store.unfinished_tasks().await.unwrap().is_empty());
        assert!(store.tasks(all_tasks("a")).await.unwrap().is_empty());
    }
    assert_eq!(store.spoiled(), 1);
}
