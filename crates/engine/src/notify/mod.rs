//! Delivers committed notifications to subscribers.
//!
//! Owns only the waiting. The store holds which notifications are pending, leased or acknowledged, and subscriptions read only committed
//! rows. A subscription is a stream that reads when it is polled: it has no task and no queue, and a subscriber that does not read costs no
//! memory. The store itself acknowledges, drains and lists notifications.

mod subscription;

use std::{sync::Arc, time::Duration};

use futures_util::Stream;
use tokio_util::sync::CancellationToken;

use errand_store::{Scope, StoreError, TaskStore};
use errand_task::Notification;
use subscription::Subscription;

/// How subscribers to the same notifications share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Every subscriber gets each notification once.
    Broadcast,
    /// One subscriber at a time gets a notification and must acknowledge it before the lease ends. Otherwise it is delivered again, to any
    /// subscriber.
    Exclusive {
        /// Time from delivery until the notification may be delivered again. Must be longer than zero: with a zero lease it would be
        /// redelivered in a busy loop.
        lease: Duration,
    },
}

/// Opens subscriptions.
#[derive(Clone)]
pub struct Notifier {
    store: Arc<dyn TaskStore>,
    shutdown: CancellationToken,
}

impl Notifier {
    /// Makes a notifier whose streams end when `shutdown` is cancelled.
    pub fn new(store: Arc<dyn TaskStore>, shutdown: CancellationToken) -> Self {
        Self { store, shutdown }
    }

    /// Streams the unacknowledged notifications of `scope` with a sequence above `after`, in order: first those that are pending, then new
    /// ones as they are committed.
    ///
    /// The stream ends at shutdown and after an error, such as that of a closed store. Dropping the stream is safe at any time. At worst,
    /// one exclusive notification that is being leased at that moment is delivered only after its lease has ended.
    pub fn subscribe(
        &self,
        scope: Scope,
        after: i64,
        delivery: Delivery,
    ) -> impl Stream<Item = Result<Notification, StoreError>> + Send + use<> {
        Subscription::new(Arc::clone(&self.store), self.shutdown.clone(), scope, after, delivery).into_stream()
    }
}
