//! One subscription: reads notifications, yields them, waits for a wake-up, reads again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Delivery;
use errand_store::{LeaseRequest, NotificationQuery, Scope, StoreError, TaskStore};
use errand_task::{LeaseId, Notification};

/// The most notifications that a subscription holds. A notification takes at most 64 KiB, so this is 3 MiB.
const BATCH_LIMIT: u32 = 48;

/// The state of one subscription between two polls.
pub(super) struct Subscription {
    store: Arc<dyn TaskStore>,
    shutdown: CancellationToken,
    notified: watch::Receiver<u64>,
    scope: Scope,
    /// Broadcast: advances with each read. Exclusive: fixed, because a lower sequence may be delivered again when its lease ends.
    after: i64,
    delivery: Delivery,
    lease: LeaseId,
    read: VecDeque<Notification>,
}

impl Subscription {
    pub(super) fn new(
        store: Arc<dyn TaskStore>,
        shutdown: CancellationToken,
        scope: Scope,
        after: i64,
        delivery: Delivery,
    ) -> Self {
        let notified = store.wake_ups(&scope);
        Self { store, shutdown, notified, scope, after, delivery, lease: LeaseId::new(), read: VecDeque::new() }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Notification, StoreError>> + Send {
        stream::unfold(Some(self), |subscription| async {
            let mut subscription = subscription?;
            match subscription.next().await {
                Ok(Some(notification)) => Some((Ok(notification), Some(subscription))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// The next notification; none when the stream has ended.
    async fn next(&mut self) -> Result<Option<Notification>, StoreError> {
        loop {
            if self.shutdown.is_cancelled() {
                return Ok(None);
            }
            if let Some(notification) = self.read.pop_front() {
                return Ok(Some(notification));
            }
            // Marks the current state as seen before reading: a commit from here on counts as a change, so none is missed between the read
            // and the wait.
            self.notified.borrow_and_update();
            // `fill` must run to completion: a lease that was made and then dropped would hold its notification back until the lease ends.
            if self.fill().await? {
                continue;
            }
            let lease_end = self.lease_end().await?;
            if !self.wait(lease_end).await {
                return Ok(None);
            }
        }
    }

    /// Reads what is available. False when there is nothing.
    async fn fill(&mut self) -> Result<bool, StoreError> {
        let read = match self.delivery {
            Delivery::Broadcast => self.read_pending().await?,
            Delivery::Exclusive { lease } => self.lease_one(lease).await?,
        };
        self.read.extend(read);
        Ok(!self.read.is_empty())
    }

    async fn read_pending(&mut self) -> Result<Vec<Notification>, StoreError> {
        let query = NotificationQuery {
            scope: self.scope.clone(),
            task: None,
            acknowledged: false,
            after: self.after,
            limit: BATCH_LIMIT,
        };
        let read = self.store.notifications(query).await?;
        if let Some(last) = read.last() {
            self.after = last.sequence;
        }
        Ok(read)
    }

    /// Leases one notification at a time: its lease begins when it is handed over, and a stream that is dropped leaves no leased
    /// notification behind that no subscriber received.
    async fn lease_one(&self, lease: Duration) -> Result<Vec<Notification>, StoreError> {
        let request = LeaseRequest { lease: self.lease, after: self.after, limit: 1, duration: lease };
        Ok(self.store.lease(&self.scope, request).await?.notifications)
    }

    async fn lease_end(&self) -> Result<Option<Duration>, StoreError> {
        match self.delivery {
            Delivery::Broadcast => Ok(None),
            Delivery::Exclusive { .. } => self.store.next_lease_end(&self.scope, self.after).await,
        }
    }

    /// Waits for a wake-up. False when the stream has ended.
    async fn wait(&mut self, lease_end: Option<Duration>) -> bool {
        tokio::select! {
            () = self.shutdown.cancelled() => false,
            changed = self.notified.changed() => changed.is_ok(),
            () = pass(lease_end) => true,
        }
    }
}

/// Returns after a time; never returns without one.
async fn pass(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
