//! Receipts: a caller says with its next call which answers have arrived, and the notifications that they told of are acknowledged.

use std::sync::Arc;

use futures_util::future;
use tonic::codegen::http::HeaderMap;

use super::auth::Caller;
use errand_store::TaskStore;
use errand_task::{LeaseId, error_chain};

/// The metadata that names the leases of answers that have arrived.
const METADATA: &str = "errand-receipt";
/// The most leases that one call may name: as many tasks as one answer can tell of.
const LIMIT: usize = 64;

/// Acknowledges what receipts name. Cheap to clone.
#[derive(Clone)]
pub(super) struct Receipts {
    store: Arc<dyn TaskStore>,
}

impl Receipts {
    pub(super) fn new(store: Arc<dyn TaskStore>) -> Self {
        Self { store }
    }

    /// The work that the receipts of a call ask for; none if it has none. A failure is logged and not told: the notifications are delivered
    /// again, as if the call had named none.
    pub(super) fn of(&self, headers: &HeaderMap, caller: &Caller) -> Option<impl Future<Output = ()> + Send + use<>> {
        let leases = leases(headers);
        if leases.is_empty() {
            return None;
        }
        let (store, Caller { tenant, bots, .. }) = (Arc::clone(&self.store), caller.clone());
        Some(async move {
            let acknowledged = leases.into_iter().map(|lease| store.acknowledge_held(&tenant, &bots, lease));
            for result in future::join_all(acknowledged).await {
                if let Err(error) = result {
                    tracing::warn!(error = %error_chain(&error), "a receipt could not be stored");
                }
            }
        })
    }
}

/// The leases that a call names. What is no id is left out.
fn leases(headers: &HeaderMap) -> Vec<LeaseId> {
    let texts = headers.get_all(METADATA).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).filter_map(|id| id.trim().parse().ok()).take(LIMIT).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn receipts_are_read_from_every_value() {
        let ids: Vec<LeaseId> = (0..3).map(|_| LeaseId::new()).collect();
        let mut headers = HeaderMap::new();
        assert!(leases(&headers).is_empty());
        headers.append(METADATA, format!("{}, nonsense,{}", ids[0], ids[1]).parse().unwrap());
        headers.append(METADATA, ids[2].to_string().parse().unwrap());
        assert_eq!(leases(&headers), ids);
        headers.append(METADATA, vec![ids[0].to_string(); 100].join(",").parse().unwrap());
        assert_eq!(leases(&headers).len(), LIMIT);
    }
}
