//! Group commit: what changes share, and what a failure does to its neighbours.

use errand_store::{Caps, SqliteStore, StoreError, TaskStore as _};
use errand_task::{NotificationKind, Status};
use futures_util::future::join_all;

use crate::SqlitePlace;
use errand_store::conformance::fixtures::{
    NO_CAPS, all_notifications, all_tasks, at, create, exited, ids, notice, owner, scope, task, tenant,
};

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
async fn close_waits_for_accepted_changes() {
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
async fn database_triggers_protect_a_terminal_status() {
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
async fn a_failed_commit_fails_all_its_changes() {
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
async fn a_group_ends_when_sqlite_rolls_back() {
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

#[tokio::test]
async fn a_refused_change_repeats_no_group() {
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
