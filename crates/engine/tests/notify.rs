//! Subscriptions on a real store.
#![allow(clippy::unwrap_used)]

use std::{pin::pin, sync::Arc, time::Duration};

use errand_engine::notify::{Delivery, Notifier};
use errand_store::{LeaseRequest, Selection, SqliteStore, StoreError, TaskStore};
use errand_task::{LeaseId, Notification, Owner, TaskId};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use errand_store::conformance::fixtures::{about, all_notifications, complete, owner, scope};

/// Long enough for every wait in these tests, on any machine.
const DEADLINE: Duration = Duration::from_secs(20);
/// Longer than any test takes.
const LONG: Delivery = Delivery::Exclusive { lease: Duration::from_secs(3600) };
/// Short enough for a test to wait until it ends.
const SHORT: Delivery = Delivery::Exclusive { lease: Duration::from_millis(50) };

struct Bench {
    store: Arc<dyn TaskStore>,
    notifier: Notifier,
    shutdown: CancellationToken,
    _directory: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let store: Arc<dyn TaskStore> =
            Arc::new(SqliteStore::open(&directory.path().join("errand.sqlite")).await.unwrap());
        let shutdown = CancellationToken::new();
        let notifier = Notifier::new(Arc::clone(&store), shutdown.clone());
        Self { store, notifier, shutdown, _directory: directory }
    }

    async fn complete(&self, owner: Owner, count: usize) -> Vec<TaskId> {
        let mut made = Vec::new();
        for _ in 0..count {
            made.push(complete(&*self.store, &owner).await.id);
        }
        made
    }
}

fn alice() -> Owner {
    owner("a", "bot", "s")
}

async fn next(stream: &mut (impl Stream<Item = Result<Notification, StoreError>> + Unpin)) -> Notification {
    tokio::time::timeout(DEADLINE, stream.next()).await.expect("nothing came").expect("the stream ended").unwrap()
}

async fn take(
    stream: &mut (impl Stream<Item = Result<Notification, StoreError>> + Unpin),
    count: usize,
) -> Vec<Notification> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(next(stream).await);
    }
    taken
}

#[tokio::test]
async fn pending_come_first_then_live_in_order() {
    let bench = Bench::new().await;
    let pending = bench.complete(alice(), 3).await;
    bench.complete(owner("a", "bot", "other"), 1).await;
    let mut stream = pin!(bench.notifier.subscribe(scope(&alice()), 0, Delivery::Broadcast));
    let first = take(&mut stream, 3).await;
    assert_eq!(about(&first), pending);
    // The subscriber waits now; the commit must wake it.
    let (live, made) = tokio::join!(take(&mut stream, 2), bench.complete(alice(), 2));
    assert_eq!(about(&live), made);

    let mut resumed = pin!(bench.notifier.subscribe(scope(&alice()), first[1].sequence, Delivery::Broadcast));
    assert_eq!(about(&take(&mut resumed, 3).await), [vec![pending[2]], made].concat());
}

#[tokio::test]
async fn broadcast_reaches_every_subscriber() {
    let bench = Bench::new().await;
    let mut one = pin!(bench.notifier.subscribe(scope(&alice()), 0, Delivery::Broadcast));
    let mut two = pin!(bench.notifier.subscribe(scope(&alice()), 0, Delivery::Broadcast));
    let (to_one, to_two, made) = tokio::join!(take(&mut one, 5), take(&mut two, 5), bench.complete(alice(), 5));
    assert_eq!(about(&to_one), made);
    assert_eq!(about(&to_two), made);
}

#[tokio::test]
async fn acknowledged_notifications_are_not_delivered() {
    let bench = Bench::new().await;
    let made = bench.complete(alice(), 3).await;
    for (task, delivery) in [(made[0], Delivery::Broadcast), (made[1], LONG)] {
        bench.store.acknowledge_completion(&alice().tenant, task).await.unwrap();
        let mut stream = pin!(bench.notifier.subscribe(scope(&alice()), 0, delivery));
        assert_ne!(next(&mut stream).await.body.task, task);
    }
}

#[tokio::test]
async fn lagging_subscriber_loses_nothing() {
    let bench = Bench::new().await;
    let mut stream = pin!(bench.notifier.subscribe(scope(&alice()), 0, Delivery::Broadcast));
    let mut made = bench.complete(alice(), 1).await;
    assert_eq!(next(&mut stream).await.body.task, made[0]);
    // More than one batch, and more commits than there are polls.
    made.extend(bench.complete(alice(), 150).await);
    assert_eq!(about(&take(&mut stream, 150).await), made[1..]);
}

/// Commits again and again while the subscriber is about to wait: if a commit were missed, the stream would hang.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_between_read_and_wait_is_seen() {
    let bench = Bench::new().await;
    for delivery in [Delivery::Broadcast, LONG] {
        let (took, mut taken) = tokio::sync::mpsc::channel(1);
        let whose = scope(&alice());
        let known = bench.store.notifications(all_notifications(&whose)).await.unwrap();
        let after = known.last().map_or(0, |last| last.sequence);
        let stream = bench.notifier.subscribe(whose, after, delivery);
        let subscriber = tokio::spawn(async move {
            let mut stream = pin!(stream);
            for _ in 0..150 {
                took.send(next(&mut stream).await.body.task).await.unwrap();
            }
        });
        for _ in 0..150 {
            let made = bench.complete(alice(), 1).await;
            assert_eq!(taken.recv().await, Some(made[0]));
        }
        subscriber.await.unwrap();
    }
}

#[tokio::test]
async fn exclusive_subscribers_share_without_duplicates() {
    let bench = Bench::new().await;
    let mut one = pin!(bench.notifier.subscribe(scope(&alice()), 0, LONG));
    let mut two = pin!(bench.notifier.subscribe(scope(&alice()), 0, LONG));
    let share = async {
        let mut taken = Vec::new();
        while taken.len() < 20 {
            tokio::select! {
                notification = next(&mut one) => taken.push(notification),
                notification = next(&mut two) => taken.push(notification),
            }
        }
        taken
    };
    let (mut taken, made) = tokio::join!(share, bench.complete(alice(), 20));
    taken.sort_unstable_by_key(|notification| notification.sequence);
    assert_eq!(about(&taken), made);
}

#[tokio::test]
async fn notifications_of_an_expired_lease_return() {
    let bench = Bench::new().await;
    let made = bench.complete(alice(), 1).await;
    let mut gone = Box::pin(bench.notifier.subscribe(scope(&alice()), 0, SHORT));
    assert_eq!(next(&mut gone).await.deliveries, 1);
    drop(gone);
    let mut stream = pin!(bench.notifier.subscribe(scope(&alice()), 0, SHORT));
    let again = next(&mut stream).await;
    assert_eq!((again.body.task, again.deliveries), (made[0], 2));
    // The same subscriber gets it again, too.
    assert_eq!(next(&mut stream).await.deliveries, 3);
}

#[tokio::test]
async fn released_lease_is_delivered_at_once() {
    let bench = Bench::new().await;
    bench.complete(alice(), 1).await;
    let mut one = pin!(bench.notifier.subscribe(scope(&alice()), 0, LONG));
    let held = next(&mut one).await.sequence;
    let mut two = pin!(bench.notifier.subscribe(scope(&alice()), 0, LONG));
    let whose = scope(&alice());
    let give_up = bench.store.release(&whose, Selection::Sequences(vec![held]));
    let (again, released) = tokio::join!(next(&mut two), give_up);
    assert_eq!((again.sequence, released.unwrap()), (held, 1));
}

#[tokio::test]
async fn drained_notifications_are_not_delivered_exclusively() {
    let bench = Bench::new().await;
    let made = bench.complete(alice(), 2).await;
    let request = LeaseRequest { lease: LeaseId::new(), after: 0, limit: 1, duration: Duration::from_secs(3600) };
    assert_eq!(about(&bench.store.lease(&scope(&alice()), request).await.unwrap().notifications), made[..1]);
    let mut stream = pin!(bench.notifier.subscribe(scope(&alice()), 0, LONG));
    assert_eq!(next(&mut stream).await.body.task, made[1]);
}

#[tokio::test]
async fn dropped_stream_leaves_no_undelivered_lease() {
    let bench = Bench::new().await;
    let made = bench.complete(alice(), 3).await;
    let mut gone = Box::pin(bench.notifier.subscribe(scope(&alice()), 0, LONG));
    assert_eq!(next(&mut gone).await.body.task, made[0]);
    drop(gone);
    let mut stream = pin!(bench.notifier.subscribe(scope(&alice()), 0, LONG));
    assert_eq!(about(&take(&mut stream, 2).await), made[1..]);
}

#[tokio::test]
async fn expired_lease_before_cursor_causes_no_busy_loop() {
    let bench = Bench::new().await;
    bench.complete(alice(), 1).await;
    let mut short =
        Box::pin(bench.notifier.subscribe(scope(&alice()), 0, Delivery::Exclusive { lease: Duration::ZERO }));
    let skipped = next(&mut short).await.sequence;
    drop(short);
    let mut stream = pin!(bench.notifier.subscribe(scope(&alice()), skipped, LONG));
    let (live, made) = tokio::join!(next(&mut stream), bench.complete(alice(), 1));
    assert_eq!(live.body.task, made[0]);
    assert_eq!(bench.store.next_lease_end(&scope(&alice()), live.sequence).await.unwrap(), None);
}

#[tokio::test]
async fn shutdown_ends_every_stream() {
    let bench = Bench::new().await;
    for delivery in [Delivery::Broadcast, LONG] {
        let shutdown = bench.shutdown.child_token();
        let notifier = Notifier::new(Arc::clone(&bench.store), shutdown.clone());
        let mut stream = pin!(notifier.subscribe(scope(&alice()), 0, delivery));
        assert!(stream.next().now_or_never().is_none(), "it waits");
        let cancel = async { shutdown.cancel() };
        let (end, ()) = tokio::join!(tokio::time::timeout(DEADLINE, stream.next()), cancel);
        assert!(end.unwrap().is_none());
    }
}

#[tokio::test]
async fn store_error_is_reported_once() {
    let bench = Bench::new().await;
    bench.store.close().await;
    let mut stream = pin!(bench.notifier.subscribe(scope(&alice()), 0, Delivery::Broadcast));
    assert!(matches!(stream.next().await, Some(Err(StoreError::Closed))));
    assert!(stream.next().await.is_none());
}
