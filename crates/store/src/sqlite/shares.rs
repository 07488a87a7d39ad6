//! Each tenant's share of a common resource, so that a tenant that uses much of it delays only itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Semaphore;

use errand_task::TenantId;

/// The number of known tenants at which unused shares are first removed.
const FIRST_SWEEP: usize = 64;

/// A share for each tenant.
#[derive(Debug)]
pub(super) struct Shares {
    /// The permits of each share.
    size: usize,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    shares: HashMap<TenantId, Arc<Semaphore>>,
    /// The number of known tenants at which unused shares are removed.
    sweep_at: usize,
}

impl Shares {
    pub(super) fn new(size: usize) -> Self {
        Self { size, known: Mutex::new(Known { shares: HashMap::new(), sweep_at: FIRST_SWEEP }) }
    }

    /// A tenant's share.
    pub(super) fn of(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = known.shares.get(tenant) {
            return Arc::clone(share);
        }
        if known.shares.len() >= known.sweep_at {
            // Permits and their waiters hold a reference too.
            known.shares.retain(|_, share| Arc::strong_count(share) > 1);
            known.sweep_at = (known.shares.len() * 2).max(FIRST_SWEEP);
        }
        let share = Arc::new(Semaphore::new(self.size));
        known.shares.insert(tenant.clone(), Arc::clone(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn unused_shares_are_forgotten() {
        let shares = Shares::new(1);
        let tenant = |number: usize| TenantId::new(number.to_string()).unwrap();
        let used = shares.of(&tenant(0)).try_acquire_owned().unwrap();
        for number in 1..1000 {
            drop(shares.of(&tenant(number)));
        }
        assert!(shares.known.lock().unwrap().shares.len() <= 2 * FIRST_SWEEP);
        assert_eq!(shares.of(&tenant(0)).available_permits(), 0, "a used one stays");
        drop(used);
        assert_eq!(shares.of(&tenant(0)).available_permits(), 1);
    }
}
