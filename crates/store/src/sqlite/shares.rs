//! What each tenant may have of something that all tenants share, so that one that wants much of it waits for itself alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Semaphore;

use errand_task::TenantId;

/// How many tenants are known before those are looked for that use nothing.
const FIRST_SWEEP: usize = 64;

/// A share for each tenant.
#[derive(Debug)]
pub(super) struct Shares {
    /// How much each may have at a time.
    size: usize,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    shares: HashMap<TenantId, Arc<Semaphore>>,
    /// At how many tenants to look for those that use nothing.
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
            // Permits and those who wait for them hold the share too.
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
    fn shares_that_are_not_used_are_forgotten() {
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
