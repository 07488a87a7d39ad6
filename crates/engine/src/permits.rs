//! Launch permits, counted per sandbox and per tenant: a stuck sandbox delays only its own launches.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use errand_task::{SandboxId, TenantId};

/// Below this number of semaphores, a [`Pool`] does not look for unused ones.
const SMALL: usize = 64;

/// How many commands may be launched at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchLimits {
    /// In one sandbox.
    pub per_sandbox: usize,
    /// In all sandboxes of one tenant.
    pub per_tenant: usize,
}

/// One semaphore per key: made on first use, and dropped once no permit of it is held or awaited.
pub(super) struct Pool<K> {
    permits: usize,
    semaphores: Mutex<Semaphores<K>>,
}

struct Semaphores<K> {
    by_key: HashMap<K, Arc<Semaphore>>,
    /// The number of semaphores at which the unused ones are dropped.
    sweep_at: usize,
}

impl<K: Eq + Hash + Clone> Pool<K> {
    /// Gives each key `permits` permits, but at least one.
    pub(super) fn new(permits: usize) -> Self {
        let semaphores = Semaphores { by_key: HashMap::new(), sweep_at: SMALL };
        Self { permits: permits.clamp(1, Semaphore::MAX_PERMITS), semaphores: Mutex::new(semaphores) }
    }

    fn semaphore(&self, key: &K) -> Arc<Semaphore> {
        let mut semaphores = self.semaphores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = semaphores.by_key.get(key) {
            return Arc::clone(semaphore);
        }
        if semaphores.by_key.len() >= semaphores.sweep_at {
            semaphores.by_key.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
            semaphores.sweep_at = SMALL.max(2 * semaphores.by_key.len());
        }
        let semaphore = Arc::new(Semaphore::new(self.permits));
        semaphores.by_key.insert(key.clone(), Arc::clone(&semaphore));
        semaphore
    }

    /// Waits for a permit. None only if the pool was closed, which never happens. Cancel safe.
    pub(super) async fn acquire(&self, key: &K) -> Option<OwnedSemaphorePermit> {
        self.semaphore(key).acquire_owned().await.ok()
    }

    /// A permit, if one is free now.
    pub(super) fn try_acquire(&self, key: &K) -> Option<OwnedSemaphorePermit> {
        self.semaphore(key).try_acquire_owned().ok()
    }
}

/// The launch permits of all sandboxes and tenants.
pub(super) struct LaunchPermits {
    sandboxes: Pool<SandboxId>,
    tenants: Pool<TenantId>,
}

/// Permission to launch one command. Dropping it gives the permits back.
pub(super) struct LaunchPermit {
    _sandbox: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
}

impl LaunchPermits {
    pub(super) fn new(limits: LaunchLimits) -> Self {
        Self { sandboxes: Pool::new(limits.per_sandbox), tenants: Pool::new(limits.per_tenant) }
    }

    /// Waits for both permits. The sandbox's permit comes first: a launch that waits for its own sandbox holds no permit of its tenant.
    /// Cancel safe.
    pub(super) async fn acquire(&self, tenant: &TenantId, sandbox: SandboxId) -> Option<LaunchPermit> {
        let of_sandbox = self.sandboxes.acquire(&sandbox).await?;
        let of_tenant = self.tenants.acquire(tenant).await?;
        Some(LaunchPermit { _sandbox: of_sandbox, _tenant: of_tenant })
    }

    /// Both permits, if they are free now.
    pub(super) fn try_acquire(&self, tenant: &TenantId, sandbox: SandboxId) -> Option<LaunchPermit> {
        let of_sandbox = self.sandboxes.try_acquire(&sandbox)?;
        let of_tenant = self.tenants.try_acquire(tenant)?;
        Some(LaunchPermit { _sandbox: of_sandbox, _tenant: of_tenant })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn stuck_sandbox_takes_no_permit_of_another() {
        let permits = LaunchPermits::new(LaunchLimits { per_sandbox: 2, per_tenant: 3 });
        let (tenant, other) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let (stuck, sound) = (SandboxId::new(), SandboxId::new());
        let held: Vec<_> = (0..2).map(|_| permits.try_acquire(&tenant, stuck).unwrap()).collect();
        assert!(permits.try_acquire(&tenant, stuck).is_none());
        let one_more = permits.try_acquire(&tenant, sound).unwrap();
        assert!(permits.try_acquire(&tenant, sound).is_none(), "the tenant has three");
        assert!(permits.try_acquire(&other, SandboxId::new()).is_some());
        // A launch that waits for the stuck sandbox holds none of the tenant's permits.
        let mut waiting = Box::pin(permits.acquire(&tenant, stuck));
        assert!((&mut waiting).now_or_never().is_none());
        drop(one_more);
        assert!(permits.try_acquire(&tenant, sound).is_some());
        drop(held);
        assert!(waiting.now_or_never().flatten().is_some());
    }

    #[test]
    fn unused_semaphores_are_dropped() {
        let pool = Pool::new(1);
        let held = pool.try_acquire(&0).unwrap();
        for key in 1..10_000 {
            assert!(pool.try_acquire(&key).is_some());
        }
        assert!(pool.semaphores.lock().unwrap().by_key.len() <= 2 * SMALL);
        assert!(pool.try_acquire(&0).is_none(), "a held permit still counts");
        drop(held);
    }
}
