//! The queue: tasks that were accepted and wait until their bot and their tenant have room.
//!
//! Owns the order in which they are admitted, one [`line::Line`] for each tenant. A waiting task has a supervisor like any other unfinished
//! task, and a [`Spot`] here. The supervisor whose turn it is asks the store for admission. This module neither counts unfinished tasks nor
//! changes records.

mod line;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use errand_task::{Owner, TaskId, TenantId};
use line::Line;
pub(super) use line::Verdict;

/// The waiting tasks of all tenants. Cheap to clone; clones share them.
#[derive(Clone, Default)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Only tenants with waiting tasks.
    tenants: Mutex<HashMap<TenantId, OfTenant>>,
}

#[derive(Default)]
struct OfTenant {
    line: Line,
    /// Tells each waiting task that its turn has come.
    turns: HashMap<TaskId, Arc<Notify>>,
}

impl Shared {
    /// Held for moments only, and never across a wait.
    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, OfTenant>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a tenant's line, then gives the next task its turn.
    fn change(&self, tenant: &TenantId, change: impl FnOnce(&mut OfTenant)) {
        let mut tenants = self.tenants();
        let Some(of_tenant) = tenants.get_mut(tenant) else { return };
        change(of_tenant);
        if let Some(turn) = of_tenant.line.next().and_then(|task| of_tenant.turns.get(&task)) {
            turn.notify_one();
        }
        if of_tenant.line.is_empty() {
            tenants.remove(tenant);
        }
    }
}

impl Queue {
    /// Whose waiting tasks come before a new one of this owner: those of the `bot`, or of the `tenant`; none if no others come first.
    pub(super) fn must_wait(&self, owner: &Owner) -> Option<&'static str> {
        self.shared.tenants().get(&owner.tenant).and_then(|of_tenant| of_tenant.line.must_wait(&owner.bot))
    }

    /// Adds a task that waits.
    pub(super) fn join(&self, owner: &Owner, task: TaskId) -> Spot {
        let turn = Arc::new(Notify::new());
        self.shared.tenants().entry(owner.tenant.clone()).or_default();
        self.shared.change(&owner.tenant, |of_tenant| {
            of_tenant.turns.insert(task, Arc::clone(&turn));
            of_tenant.line.join(&owner.bot, task);
        });
        Spot { shared: Arc::clone(&self.shared), owner: owner.clone(), task, turn }
    }

    /// A task of this owner has ended: others may have room.
    pub(super) fn freed(&self, owner: &Owner) {
        self.shared.change(&owner.tenant, |of_tenant| of_tenant.line.freed(&owner.bot));
    }
}

/// A task's place in the queue. Dropping it lets the others go on without the task.
pub(super) struct Spot {
    shared: Arc<Shared>,
    owner: Owner,
    task: TaskId,
    turn: Arc<Notify>,
}

impl Spot {
    /// What tells the task that its turn has come: it then asks for admission, and [`Spot::settled`] must follow.
    pub(super) fn turn(&self) -> Arc<Notify> {
        Arc::clone(&self.turn)
    }

    /// Takes in what came of asking for admission.
    pub(super) fn settled(&self, verdict: Verdict) {
        self.shared.change(&self.owner.tenant, |of_tenant| of_tenant.line.settled(self.task, verdict));
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        self.shared.change(&self.owner.tenant, |of_tenant| {
            of_tenant.turns.remove(&self.task);
            of_tenant.line.leave(&self.owner.bot, self.task);
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use futures_util::FutureExt as _;

    use super::*;

    fn owner(tenant: &str, bot: &str) -> Owner {
        Owner { tenant: tenant.parse().unwrap(), bot: bot.parse().unwrap(), session: "s".parse().unwrap() }
    }

    fn has_turn(spot: &Spot) -> bool {
        spot.turn().notified().now_or_never().is_some()
    }

    #[test]
    fn dropped_spot_passes_its_turn_on() {
        let queue = Queue::default();
        let (one, two) = (owner("t", "one"), owner("t", "two"));
        let first = queue.join(&one, TaskId::new());
        let second = queue.join(&two, TaskId::new());
        assert!(has_turn(&first) && !has_turn(&second));
        drop(first);
        assert!(has_turn(&second));
        second.settled(Verdict::TenantFull);
        assert!(!has_turn(&second));
        queue.freed(&one);
        assert!(has_turn(&second));
        assert_eq!(queue.must_wait(&one), Some("tenant"));
        second.settled(Verdict::Admitted);
        drop(second);
        assert!(queue.must_wait(&one).is_none() && queue.shared.tenants().is_empty(), "nothing is kept");
    }

    #[test]
    fn tenants_wait_only_for_themselves() {
        let queue = Queue::default();
        let greedy: Vec<_> = (0..100).map(|_| queue.join(&owner("greedy", "bot"), TaskId::new())).collect();
        greedy[0].settled(Verdict::TenantFull);
        assert_eq!(queue.must_wait(&owner("quiet", "bot")), None);
        let quiet = queue.join(&owner("quiet", "bot"), TaskId::new());
        assert!(has_turn(&quiet));
    }
}
