//! Limits how many sandboxes are made, started, stopped and removed at the same time.
//!
//! Such an operation keeps the container engine or this machine busy for seconds, and blocks threads. One tenant that asks for hundreds at
//! once must leave room for the others. So each tenant has a few permits, and all tenants share a larger number. A caller waits for a
//! permit, for a bounded time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::EngineError;
use errand_task::TenantId;

/// The smallest number of permits that a tenant gets.
const PER_TENANT: usize = 4;
/// How many tenants can use all of their permits at the same time.
const TENANTS: usize = 4;
/// How long a caller waits for a permit.
const WAIT: Duration = Duration::from_secs(30);

/// The permits of all tenants.
pub(super) struct Making {
    per_tenant: usize,
    all: Arc<Semaphore>,
    tenants: Mutex<HashMap<TenantId, Arc<OfTenant>>>,
}

struct OfTenant {
    permits: Arc<Semaphore>,
    counting: Arc<tokio::sync::Mutex<()>>,
}

/// Permission for one operation on one sandbox. Dropping it gives the permits back.
pub(super) struct Room {
    _tenant: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Making {
    pub(super) fn new() -> Self {
        let per_tenant = thread::available_parallelism().map_or(PER_TENANT, |cores| cores.get().max(PER_TENANT));
        Self { per_tenant, all: Arc::new(Semaphore::new(per_tenant * TENANTS)), tenants: Mutex::default() }
    }

    /// Entries are never removed: the tenants come from the tokens file, so there are few.
    fn of(&self, tenant: &TenantId) -> Arc<OfTenant> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || OfTenant { permits: Arc::new(Semaphore::new(self.per_tenant)), counting: Arc::default() };
        Arc::clone(tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(made())))
    }

    /// Waits for the permits. The tenant's own permit comes first: a call that waits for its own tenant holds none of the shared permits.
    ///
    /// # Errors
    /// [`EngineError::TooManyAtOnce`] when there is no permit within [`WAIT`].
    pub(super) async fn room(&self, tenant: &TenantId) -> Result<Room, EngineError> {
        let full = || EngineError::TooManyAtOnce { limit: self.per_tenant };
        let of_tenant = self.of(tenant);
        let waiting = async {
            let tenant = Arc::clone(&of_tenant.permits).acquire_owned().await.map_err(|_| full())?;
            let all = Arc::clone(&self.all).acquire_owned().await.map_err(|_| full())?;
            Ok(Room { _tenant: tenant, _all: all })
        };
        tokio::time::timeout(WAIT, waiting).await.unwrap_or_else(|_| Err(full()))
    }

    /// Locks the count of the tenant's sandboxes until the guard is dropped, so that two calls cannot take the last place.
    pub(super) async fn counting(&self, tenant: &TenantId) -> OwnedMutexGuard<()> {
        Arc::clone(&self.of(tenant).counting).lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn greedy_tenant_leaves_permits_for_others() {
        let (greedy, quiet) = (TenantId::new("greedy").unwrap(), TenantId::new("quiet").unwrap());
        let making = Making::new();
        let mut taken = Vec::new();
        for _ in 0..making.per_tenant {
            taken.push(making.room(&greedy).await.unwrap());
        }
        let refused = making.room(&greedy).await.err().unwrap();
        assert!(matches!(refused, EngineError::TooManyAtOnce { limit } if limit == making.per_tenant), "{refused}");
        making.room(&quiet).await.unwrap();
        taken.pop();
        making.room(&greedy).await.unwrap();
    }
}
