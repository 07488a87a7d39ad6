//! The phase of a task whose end is recorded: it lasts until the last process that the command left behind has ended.

use super::Children;
use crate::shim::{link::Link, reuse::Budget};
use errand_proto::bridge::{Ended, Over};

/// The phase.
pub(super) struct Recorded {
    ended: Ended,
    over: Over,
    /// True when no process of the task is left.
    drained: bool,
    /// What the shim has left for later tasks, if it may take one.
    budget: Option<Budget>,
}

impl Recorded {
    pub(super) fn new(ended: Ended, over: Over, drained: bool, budget: Option<Budget>) -> Self {
        Self { ended, over, drained, budget }
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    pub(super) fn into_budget(self) -> Option<Budget> {
        self.budget
    }

    /// Reports the end on a connection that was made after it.
    pub(super) fn report_on(&self, link: &mut Link) {
        link.say_end(self.ended.clone(), self.over, false);
    }

    /// Reaps processes. What they have used counts for nothing: the usage is recorded.
    pub(super) fn reap(self, first: u32) -> Self {
        let drained = self.drained || Children::default().reap_all(first).drained;
        Self { drained, ..self }
    }
}
