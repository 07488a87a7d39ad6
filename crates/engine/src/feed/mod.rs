//! What happens to tasks, for screens: every tenant's committed events, in order and coalesced.
//!
//! Owns one [`log::Log`] per tenant, in memory. Only commits write to it, and a note that a task printed something. It holds a few numbers per
//! event and no records: a watch reads the newest state of a task when it yields an event. A server that starts has an empty log, so that
//! the cursors of its predecessor are too old for it.

mod log;
mod watch;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch as signal;

use errand_task::{Nonce, Task, TaskId, TenantId};
use log::Log;
pub use log::TaskEvent;
pub use watch::{TaskWatch, WatchCursor, WatchItem, WatchQuery};

/// The events of all tenants.
pub(super) struct Feed {
    /// Tells the cursors of this server from those of earlier ones.
    epoch: Nonce,
    /// Entries are never removed: the tenants come from the tokens file, so there are few.
    tenants: Mutex<HashMap<TenantId, Arc<TenantFeed>>>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { epoch: Nonce::new(), tenants: Mutex::default() }
    }
}

/// The events of one tenant.
#[derive(Default)]
struct TenantFeed {
    log: Mutex<Log>,
    /// Changes with every event, and when output grows for the first time since that was last told.
    changed: signal::Sender<u64>,
}

impl TenantFeed {
    /// Held for moments only, and never across a wait.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Feed {
    fn of(&self, tenant: &TenantId) -> Arc<TenantFeed> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        match tenants.get(tenant) {
            Some(found) => Arc::clone(found),
            None => Arc::clone(tenants.entry(tenant.clone()).or_default()),
        }
    }

    fn change(&self, task: &Task, change: impl FnOnce(&mut Log)) {
        let feed = self.of(&task.owner.tenant);
        change(&mut feed.log());
        feed.wake();
    }

    /// A task was found at the start of the server. That is no event.
    pub(super) fn found(&self, task: &Task) {
        self.of(&task.owner.tenant).log().found(task);
    }

    /// A new task was committed.
    pub(super) fn accepted(&self, task: &Task) {
        self.change(task, |log| log.accepted(task));
    }

    /// A change of a task was committed.
    pub(super) fn committed(&self, task: &Task) {
        self.change(task, |log| log.committed(task));
    }

    /// A late outcome of a finished task was committed.
    pub(super) fn late(&self, task: &Task) {
        self.change(task, |log| log.late(task));
    }

    /// The handle by which a task's supervisor tells that there is more output.
    pub(super) fn growth(&self, task: &Task) -> Growth {
        Growth { feed: self.of(&task.owner.tenant), id: task.id, pending: Arc::default() }
    }
}

/// Tells that a task has more output.
pub(super) struct Growth {
    feed: Arc<TenantFeed>,
    id: TaskId,
    /// Set until the growth is told.
    pending: Arc<AtomicBool>,
}

impl Growth {
    /// There is more output. Costs nothing until the last growth is told.
    pub(super) fn happened(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.feed.log().grew(self.id, Arc::clone(&self.pending));
            self.feed.wake();
        }
    }
}
