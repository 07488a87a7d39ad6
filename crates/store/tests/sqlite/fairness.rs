//! Tenants share the store: none delays another, and no page examines everything.

use std::{sync::Arc, time::Duration};

use errand_store::{LeaseRequest, Selection, TaskQuery, TaskStore as _};
use errand_task::{LeaseId, TaskId};

use crate::SqlitePlace;
use errand_store::conformance::{
    Place as _,
    fixtures::{
        NO_CAPS, all_notifications, all_tasks, at, complete, create, exited, ids, owner, scope, sequences, task, tenant,
    },
};

/// Fills the database with copies of a finished task of a tenant, past the store. Each has a label of its own.
async fn fill(place: &SqlitePlace, whose: &str, count: u32) {
    let store = place.store().await;
    let model = create(&store, task(&owner(whose, "bot", "s"))).await;
    store.update_task(exited(model.clone(), 0, at(1)), None).await.unwrap();
    store.close().await;
    let connection = rusqlite::Connection::open(place.file()).unwrap();
    let insert = "INSERT INTO tasks (id, tenant, bot, session, sandbox, status, created_at, finished_at, revision, record, progress) \
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1), \
        made (i, new) AS (SELECT i, printf('00000000-0000-7000-8000-%012x', i) FROM n) \
        SELECT new, tenant, bot, session, sandbox, status, created_at, finished_at, revision, \
        replace(replace(record, id, new), '\"labels\":{}', '\"labels\":{\"n\":\"' || i || '\"}'), progress FROM tasks, made WHERE id = ?2";
    assert_eq!(connection.execute(insert, (count, model.id.to_string())).unwrap(), count as usize);
    assert_eq!(connection.execute("DELETE FROM tasks WHERE id = ?", [model.id.to_string()]).unwrap(), 1);
}

fn labelled(whose: &str, number: u32) -> TaskQuery {
    TaskQuery { labels: [("n".to_owned(), number.to_string())].into(), ..all_tasks(whose) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_of_one_tenant_delay_no_other() {
    let place = SqlitePlace::new();
    fill(&place, "greedy", 100_000).await;
    let store = Arc::new(place.store().await);
    let stranger = create(&*store, task(&owner("stranger", "bot", "s"))).await;
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
    // Their callers are dropped, so these scans stop and make room for a caller that still waits.
    scans.shutdown().await;
    assert_eq!(store.tasks(labelled("greedy", 50_000)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_page_examines_few_tasks_and_continues() {
    let place = SqlitePlace::new();
    fill(&place, "a", 10_000).await;
    let store = place.store().await;
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
async fn leased_notifications_hide_no_later_ones() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let alice = owner("a", "bot", "s");
    let done = complete(&store, &alice).await;
    let copy = "INSERT INTO notifications (tenant, bot, session, task, kind, created_at, record, lease, lease_until) \
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
        SELECT tenant, bot, session, task, kind, created_at, record, 'held', 9000000000000000 FROM notifications, n";
    place.execute(copy).unwrap();
    let first = sequences(&store.notifications(all_notifications(&scope(&alice))).await.unwrap())[0];
    store.acknowledge(&scope(&alice), Selection::Sequences(vec![first])).await.unwrap();
    complete(&store, &alice).await;
    let request = LeaseRequest { lease: LeaseId::new(), after: 0, limit: 9, duration: Duration::from_secs(10) };
    let leased = store.lease(&scope(&alice), request).await.unwrap().notifications;
    assert_eq!(leased.len(), 1);
    assert_ne!(leased[0].body.task, done.id);
}

#[tokio::test]
async fn undecodable_records_are_counted_once() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    let spoiled = create(&store, task(&owner("a", "bot", "s"))).await;
    place.spoil("task", &spoiled.id.to_string(), "{}");
    for _ in 0..3 {
        assert!(store.unfinished_tasks().await.unwrap().is_empty());
        assert!(store.tasks(all_tasks("a")).await.unwrap().is_empty());
    }
    assert_eq!(store.undecodable(), 1);
}
