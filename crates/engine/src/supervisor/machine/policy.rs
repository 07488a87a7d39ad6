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
            Phase::Queueing(queueing) if queueing.awaits_turn() => Then::Proceed,
            Phase::Idle
            | Phase::Queueing(_)
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use errand_bridge::Activity;
    use errand_task::{Incarnation, NotificationKind, ProcessIdentity, Reads, TaskState, Waiting};

    use super::*;
    use crate::supervisor::machine::{
        Entry, Input, Operation, Reported, Rules,
        tests::samples::{task, wall},
    };

    /// Drives a machine by hand.
    struct Driven {
        machine: Machine,
        now: Moment,
    }

    impl Driven {
        fn pass(&mut self, time: Duration) {
            self.now = Moment { at: self.now.at + time, wall: self.now.wall + time };
            while self.machine.due().is_some_and(|due| due <= self.now.at) {
                self.machine.tick(self.now);
            }
        }

        fn tell(&mut self, input: Input) {
            self.machine.handle(input, self.now);
        }

        /// The operations that were begun since the last call.
        fn operations(&mut self) -> Vec<Operation> {
            let mut actions = Vec::new();
            self.machine.take_actions(&mut actions);
            let operation = |action| match action {
                Action::Do(operation) => Some(operation),
                _ => None,
            };
            actions.into_iter().filter_map(operation).collect()
        }

        /// Stores what is to be stored, and says of what a notification came along.
        fn store(&mut self) -> Option<NotificationKind> {
            let operations = self.operations();
            let [Operation::Store { task, notice, .. }] = &operations[..] else { panic!("{operations:?}") };
            self.tell(Input::Stored(Ok(task.clone())));
            notice.as_ref().map(|notice| notice.kind)
        }
    }

    /// The machine of a running command.
    fn running() -> Driven {
        let (second, incarnation) = (Duration::from_secs(1), Incarnation("1".to_owned()));
        let rules = Rules { stop_grace: second, stall_after: second * 45, stall_check_interval: second * 5 };
        let mut task = Task { state: TaskState::Starting { incarnation: incarnation.clone() }, ..task() };
        std::sync::Arc::make_mut(&mut task.spec).timeout = second * 3600;
        let machine =
            Machine::new(task, rules, std::sync::Arc::new(crate::alerts::Budgets::new(Default::default())), 0, None);
        let mut driven = Driven { machine, now: Moment { at: Instant::now(), wall: wall() } };
        driven.machine.guest_enforces_timeout(true);
        driven.machine.reserve(incarnation);
        driven.machine.enter(Entry::Launch, driven.now);
        driven.tell(Input::MemoryKills(None));
        driven.tell(Input::Launched(Ok(())));
        let process = ProcessIdentity { pid: 7, start_ticks: 70 };
        driven.tell(Input::Reported(Reported::Started { process, age: Duration::ZERO }));
        driven.operations();
        driven.pass(second);
        assert_eq!(driven.store(), None);
        driven
    }

    #[test]
    fn policy_waits_for_a_check_for_a_stall() {
        let mut driven = running();
        let waiting = Some(Waiting { pid: 8, command: "x".to_owned(), reads: Reads::Stdin });
        let activity = Activity { silent_for: Duration::ZERO, busy: false, waiting };
        driven.tell(Input::Reported(Reported::Activity(activity)));
        driven.pass(Duration::from_secs(50));
        assert!(matches!(driven.operations()[..], [Operation::ReadTail { .. }]));
        // A commit now would take the place of the check, which the guest does not ask for again.
        let policy = NotifyPolicy { tail_bytes: 0, ..NotifyPolicy::default() };
        driven.tell(Input::PolicyWanted(PolicyOrder { number: 1, policy }));
        assert!(driven.operations().is_empty());
        driven.tell(Input::Tail(b"? ".to_vec()));
        assert_eq!(driven.store(), Some(NotificationKind::Stalled), "it takes the policy along");
        assert_eq!(driven.machine.task().notify, policy);
    }

    #[test]
    fn policy_is_stored_at_once_while_nothing_else_happens() {
        let mut driven = running();
        let policy = NotifyPolicy { heartbeat_every: Some(Duration::from_secs(60)), ..NotifyPolicy::default() };
        driven.pass(Duration::from_secs(100));
        driven.tell(Input::PolicyWanted(PolicyOrder { number: 1, policy }));
        assert_eq!(driven.store(), None);
        assert_eq!(driven.machine.task().notify, policy);
        // The time to the first heartbeat counts from the change.
        driven.pass(Duration::from_secs(59));
        assert!(driven.operations().is_empty());
        driven.pass(Duration::from_secs(1));
        assert_eq!(driven.store(), Some(NotificationKind::Heartbeat));
    }
}
