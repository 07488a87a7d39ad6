//! What disturbs the supervision of a task, and how servers take it over.

use std::time::Duration;

use super::{
    carrier::{Carrier, Server},
    sandbox::News,
    schedule::Disturbance,
    world::{RULES, World},
};
use crate::{
    live::{StopOrder, WatchOrder},
    recovery::plan::{self, Plan},
    supervisor::machine::{Entry, Input, Operation, PolicyOrder},
};
use errand_task::{NotifyPolicy, StopCause, Task};

impl World<'_> {
    pub(super) fn disturb(&mut self, disturbance: Disturbance) {
        self.tell(|| format!("--- {disturbance:?}"));
        let now = self.now;
        match disturbance {
            Disturbance::Stop(grace) => self.stop(grace),
            Disturbance::Cut => self.report(vec![News::Broken]),
            Disturbance::Mute => {
                if let Server::Here(carrier) = &mut self.server
                    && carrier.attached
                {
                    carrier.attached = false;
                    carrier.inbox.clear();
                    self.observed.muted += 1;
                }
            }
            Disturbance::StoreFails(period) => self.store_fails_until = self.store_fails_until.max(now + period),
            Disturbance::RuntimeDown(period) => {
                self.sandbox.down_until = self.sandbox.down_until.max(now + period);
                self.report(vec![News::Broken]);
            }
            Disturbance::Deaf(period) => {
                self.sandbox.deaf_until = self.sandbox.deaf_until.max(now + period);
                self.report(vec![News::Broken]);
            }
            Disturbance::Paused(period) => self.sandbox.pause(period, now),
            Disturbance::RestartSandbox | Disturbance::StopSandbox => {
                let again = disturbance == Disturbance::RestartSandbox;
                (self.observed.restarted, self.observed.stopped) =
                    (self.observed.restarted | again, self.observed.stopped | !again);
                let news = self.sandbox.stop(again, now);
                self.report(news);
            }
            Disturbance::RemoveSandbox => {
                self.observed.removed = true;
                let news = self.sandbox.stop(false, now);
                self.sandbox.exists = false;
                self.report(news);
            }
            Disturbance::KillShim => {
                let news = self.sandbox.kill_shim();
                self.report(news);
            }
            Disturbance::Activity { busy, waits } if self.sandbox.runs() => {
                self.report(vec![News::Activity { busy, waits }]);
            }
            Disturbance::Activity { .. } => {}
            Disturbance::Chatter => self.sandbox.chatter(now),
            Disturbance::SetWatches => {
                let set = self.stored.watches.set + 1;
                let watches = self.stored.watches.list.iter().map(|state| state.watch.clone()).collect();
                self.handle(Input::Watch(WatchOrder { set, watches, from: None }));
            }
            Disturbance::WipeFiles => self.sandbox.wipe(),
            Disturbance::ForgeExit => self.sandbox.forge_exit(),
            Disturbance::Leave(period) => self.leave(period, true),
            Disturbance::Crash(period) => {
                let committed = self.random.one_in(2);
                self.leave(period, committed);
            }
            Disturbance::Panic => self.break_down(),
            Disturbance::Conflict => {
                if !self.stored.status().is_terminal() {
                    self.stored.revision += 1;
                }
            }
            Disturbance::Policy(policy) => self.want_policy(policy),
            Disturbance::Leap(seconds) => {
                self.observed.leapt = true;
                let leap = Duration::from_secs(seconds.unsigned_abs());
                self.wall = if seconds < 0 { self.wall - leap } else { self.wall + leap };
            }
        }
    }

    fn stop(&mut self, grace: Duration) {
        if !matches!(self.server, Server::Here(_) | Server::Broken(_)) {
            return;
        }
        self.observed.stops += 1;
        self.least_grace = self.least_grace.min(grace);
        let cause = StopCause::Request { reason: String::new(), acknowledge: false };
        let order = match self.order.take() {
            Some(order) => StopOrder { grace: order.grace.min(grace), ..order },
            None => StopOrder { cause, grace },
        };
        self.order = Some(order.clone());
        self.handle(Input::Ordered(order));
    }

    fn want_policy(&mut self, policy: NotifyPolicy) {
        if !matches!(self.server, Server::Here(_) | Server::Broken(_)) {
            return;
        }
        let number = self.policy.map_or(0, |order| order.number) + 1;
        let order = PolicyOrder { number, policy };
        self.policy = Some(order);
        self.observed.announced.policy_wanted(self.now);
        self.handle(Input::PolicyWanted(order));
    }

    /// The server ends. With `committed`, a commit that is under way takes place.
    fn leave(&mut self, period: Duration, committed: bool) {
        let Server::Here(carrier) = &mut self.server else { return };
        if let Some((_, Operation::Store { task, notice, .. })) = carrier.operation.take()
            && committed
            && self.now >= self.store_fails_until
            && task.revision == self.stored.revision
            && self.observed.storing(&self.stored, &task, notice.as_ref(), self.seen()).is_ok()
        {
            self.stored = Task { revision: task.revision + 1, ..*task };
            self.stored.output.bytes = self.stored.output.bytes.max(self.output_end);
        }
        (self.order, self.policy) = (None, None);
        self.least_grace = self.least_grace.min(RULES.stop_grace);
        self.observed.server_changed = true;
        self.observed.forget_server();
        self.server = Server::Away(self.now + period);
    }

    pub(super) fn break_down(&mut self) {
        if let Server::Here(_) = &self.server {
            self.observed.server_changed = true;
            self.observed.forget_server();
            self.server = Server::Broken(self.now + Duration::from_secs(1));
        }
    }

    /// A new server reconciles the task.
    pub(super) fn recover(&mut self) {
        if self.stored.status().is_terminal() {
            self.server = Server::Done;
            return;
        }
        let sorted = plan::sort(vec![self.stored.clone()], self.sandbox.exists || !self.random.one_in(2));
        let entries = if sorted.clear.is_empty() {
            match plan::inspected(self.sandbox.inspect(self.now), sorted.unclear) {
                Plan::AskAgain(_) => {
                    self.server = Server::Away(self.now + Duration::from_secs(1));
                    return;
                }
                Plan::Supervise(entries) => entries,
                Plan::Probe { found, fenced, unfenced } => {
                    let fence = !fenced.is_empty();
                    let tasks = if fence { fenced } else { unfenced };
                    let findings = self.sandbox.probe(fence, self.now, self.wall).ok().map(|finding| vec![finding]);
                    plan::probed(&found, tasks, findings)
                }
            }
        } else {
            sorted.clear
        };
        for (task, entry) in entries {
            self.output_end = plan::output_start(&entry, 20);
            if self.output_end > 0 {
                self.observed.announced.found_output(self.now);
            }
            self.tell(|| format!("recovered: {entry:?}").chars().take(200).collect());
            self.take_over(task, entry, true);
        }
    }

    /// The engine replaces the supervisor.
    pub(super) fn revive(&mut self) {
        if self.stored.status().is_terminal() {
            self.server = Server::Done;
            return;
        }
        let entry = plan::resume(&self.stored, self.sandbox.exists);
        self.take_over(self.stored.clone(), entry, false);
    }

    fn take_over(&mut self, task: Task, entry: Entry, hold: bool) {
        let mut carrier = Carrier::new(task, self.output_end, self.order.clone());
        if let Some(order) = self.policy {
            carrier.machine.want_policy(order);
        }
        if hold {
            carrier.machine.hold_calls();
            carrier.hold = true;
        }
        carrier.machine.enter(entry, self.moment());
        self.server = Server::Here(Box::new(carrier));
    }
}
