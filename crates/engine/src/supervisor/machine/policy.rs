//! Changes of what is announced. A change waits until the record can be stored without disturbing anything else; every commit takes it along.

use super::{Action, Machine, Moment, Phase, commit::Then};
use errand_task::{NotifyPolicy, Task};

/// A change that a caller asked for. A later one takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PolicyOrder {
    /// Counts the changes of one task.
    pub(crate) number: u64,
    pub(crate) policy: NotifyPolicy,
}

impl Machine {
    /// A caller changed what is announced. It is committed as soon as possible.
    pub(crate) fn want_policy(&mut self, order: PolicyOrder) {
        self.policy = Some(order);
    }

    /// The record with everything that goes along with its next change: the policy that is wanted, and the end of a silence.
    pub(super) fn draft(&self, now: Moment) -> Task {
        let mut task = self.task.clone();
        if let Some(order) = self.policy {
            if order.policy.heartbeat_every != task.notify.heartbeat_every {
                task.heartbeat_from = self.age(now);
            }
            task.notify = order.policy;
        }
        if self.has_new_output() {
            task.idle_since = None;
        }
        task
    }

    /// Commits a policy that is wanted, unless something is under way that the commit would disturb. Then it comes along later.
    pub(super) fn keep_policy(&mut self, now: Moment) {
        if self.policy.is_none() || self.storing.is_some() || self.unsaved.is_some() {
            return;
        }
        let then = match &self.phase {
            Phase::Launching(launching) if launching.is_placing() => Then::Place,
            Phase::Launching(launching) if launching.is_waiting() => Then::Proceed,
            Phase::Looking(looking) if looking.is_waiting() => Then::Proceed,
            Phase::Attaching(attaching) if attaching.due().is_some() => Then::Proceed,
            Phase::Following(following) if !following.reads_tail => Then::Proceed,
            Phase::Idle
            | Phase::Launching(_)
            | Phase::Looking(_)
            | Phase::Attaching(_)
            | Phase::Following(_)
            | Phase::Closing(_)
            | Phase::Over => return,
        };
        let task = self.draft(now);
        self.try_commit(task, None, then, now);
    }

    /// A record with the policy of this number was stored.
    pub(super) fn policy_stored(&mut self, number: u64) {
        self.policy = self.policy.filter(|order| order.number != number);
        self.actions.push(Action::PolicyStored(number));
    }
}
