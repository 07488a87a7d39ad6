//! From committed notifications to those who wait for them.
//!
//! Owns nothing but the way of waiting: what is pending, leased or acknowledged stands in the store, and only committed rows are read. A
//! subscription is a stream that reads when it is polled: no task, no queue, and a subscriber that does not read costs no memory.
//! Acknowledging, draining and listing are the store's own business.

mod subscription;

use std::{sync::Arc, time::Duration};

use futures_util::Stream;
use tokio_util::sync::CancellationToken;

use errand_store::{Scope, StoreError, TaskStore};
use errand_task::Notification;
use subscription::Subscription;

/// How subscribers of the same notifications share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Every subscriber gets each one, once.
    Broadcast,
    /// One subscriber at a time gets it, and must acknowledge it while the lease lasts: else it is delivered again, to any of them.
    Exclusive {
        /// From delivery until it is free again. Longer than zero: else it comes back without a pause.
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
    /// A notifier whose streams end when `shutdown` is cancelled.
    pub fn new(store: Arc<dyn TaskStore>, shutdown: CancellationToken) -> Self {
        Self { store, shutdown }
    }

    /// The unacknowledged notifications of `scope` with a sequence above `after`, in order: first what is pending, then what comes.
    ///
    /// The stream ends at shutdown and after an error, such as that of a closed store. Dropping it is safe at any time: at worst one exclusive
    /// notification, being leased in that moment, is delivered only after its lease has ended.
    pub fn subscribe(
        &self,
        scope: Scope,
        after: i64,
        delivery: Delivery,
    ) -> impl Stream<Item = Result<Notification, StoreError>> + Send + use<> {
        Subscription::new(Arc::clone(&self.store), self.shutdown.clone(), scope, after, delivery).into_stream()
    }
}
