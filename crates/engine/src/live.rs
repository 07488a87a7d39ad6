//! The shared handle of one unfinished task: callers read the task's state here, and ask here for the task to be stopped.

use std::time::{Duration, SystemTime};

use tokio::{sync::watch, time::Instant};

use super::{feed::Growth, input::InputState, masking::TaskMasks, output::LiveOutput, supervisor::PolicyOrder};
use errand_task::{BotId, NotifyPolicy, StopCause, Task, TaskState, TenantId, Watch};

/// An order to stop the command.
#[derive(Debug, Clone)]
pub(super) struct StopOrder {
    pub(super) cause: StopCause,
    pub(super) grace: Duration,
}

/// An order to replace the watches.
#[derive(Debug, Clone)]
pub(super) struct WatchOrder {
    /// The number of the new set.
    pub(super) set: u32,
    pub(super) watches: Vec<Watch>,
    /// The first byte that a match may begin with; none: the end of the output.
    pub(super) from: Option<u64>,
}

/// An unfinished task. Its supervisor publishes to it; everyone else reads from it.
pub(super) struct LiveTask {
    pub(super) output: LiveOutput,
    pub(super) input: tokio::sync::Mutex<InputState>,
    /// Hides the task's secrets.
    pub(super) masks: TaskMasks,
    /// Tells screens that there is more output.
    pub(super) growth: Growth,
    /// Since when this server supervises it.
    pub(super) since: Instant,
    task: watch::Sender<Task>,
    stop: watch::Sender<Option<StopOrder>>,
    policy: watch::Sender<Option<PolicyOrder>>,
    /// The number of the last policy order that was stored.
    policy_stored: watch::Sender<u64>,
    watches: watch::Sender<Option<WatchOrder>>,
}

impl LiveTask {
    /// Makes the handle of a task whose output is known from byte `output_start` on.
    pub(super) fn new(task: Task, output_start: u64, growth: Growth, masks: TaskMasks) -> Self {
        Self {
            output: LiveOutput::masked(output_start, masks.clone()),
            masks,
            input: tokio::sync::Mutex::default(),
            growth,
            since: Instant::now(),
            task: watch::Sender::new(task),
            stop: watch::Sender::new(None),
            policy: watch::Sender::new(None),
            policy_stored: watch::Sender::new(0),
            watches: watch::Sender::new(None),
        }
    }

    /// The record as last committed, with the current output.
    pub(super) fn snapshot(&self) -> Task {
        let mut task = self.task.borrow().clone();
        if !task.status().is_terminal() {
            task.output = self.output.summary(task.output.incomplete, task.output.gap);
        }
        task
    }

    /// Whose task it is.
    pub(super) fn owner(&self) -> (TenantId, BotId) {
        let task = self.task.borrow();
        (task.owner.tenant.clone(), task.owner.bot.clone())
    }

    /// The bot, and when the task was accepted; none for another tenant's task.
    pub(super) fn owned_by(&self, tenant: &TenantId) -> Option<(BotId, SystemTime)> {
        let task = self.task.borrow();
        (task.owner.tenant == *tenant).then(|| (task.owner.bot.clone(), task.created_at))
    }

    /// Publishes a committed record to all readers.
    pub(super) fn publish(&self, task: Task) {
        self.task.send_replace(task);
    }

    /// Asks for a stop. If several stops are asked for, the first cause and the shortest grace apply.
    pub(super) fn stop(&self, cause: StopCause, grace: Duration) {
        let cause = self.masks.cause(cause);
        self.stop.send_modify(|order| match order {
            Some(order) => order.grace = order.grace.min(grace),
            None => *order = Some(StopOrder { cause, grace }),
        });
    }

    /// The stop orders, for the supervisor to watch.
    pub(super) fn orders(&self) -> watch::Receiver<Option<StopOrder>> {
        self.stop.subscribe()
    }

    /// Asks for another policy. Returns the number of this order.
    pub(super) fn want_policy(&self, policy: NotifyPolicy) -> u64 {
        let mut number = 0;
        self.policy.send_modify(|order| {
            number = order.as_ref().map_or(0, |order| order.number) + 1;
            *order = Some(PolicyOrder { number, policy });
        });
        number
    }

    /// The policy orders, for the supervisor to watch.
    pub(super) fn policies(&self) -> watch::Receiver<Option<PolicyOrder>> {
        self.policy.subscribe()
    }

    /// The policy of this order was stored.
    pub(super) fn policy_stored(&self, number: u64) {
        self.policy_stored.send_replace(number);
    }

    /// Waits until the policy of this order, or of a later one, is stored. Cancel safe.
    pub(super) async fn until_policy_stored(&self, number: u64) {
        // The sender lives in `self`: this cannot fail.
        let _ = self.policy_stored.subscribe().wait_for(|stored| *stored >= number).await;
    }

    /// Asks for other watches. Of several orders that were not carried out yet, the last one counts. Returns the number of the new set.
    pub(super) fn watch(&self, watches: Vec<Watch>, from: Option<u64>) -> u32 {
        let stored = self.task.borrow().watches.set;
        let mut set = 0;
        self.watches.send_modify(|order| {
            set = order.as_ref().map_or(stored, |order| order.set.max(stored)).saturating_add(1);
            *order = Some(WatchOrder { set, watches, from });
        });
        set
    }

    /// The orders to replace the watches, for the supervisor.
    pub(super) fn watch_orders(&self) -> watch::Receiver<Option<WatchOrder>> {
        self.watches.subscribe()
    }

    /// Waits until the command has started, or it is certain that it never will. Cancel safe.
    pub(super) async fn launched(&self) {
        let launched = |task: &Task| match task.state {
            TaskState::AwaitingRoom | TaskState::Queued | TaskState::Starting { .. } => false,
            TaskState::Running { .. } | TaskState::Stopping { .. } | TaskState::Finished { .. } => true,
        };
        // The sender lives in `self`: this cannot fail.
        let _ = self.task.subscribe().wait_for(launched).await;
    }

    /// Waits for the task's end. Cancel safe.
    pub(super) async fn finished(&self) -> Task {
        let mut changes = self.task.subscribe();
        // The sender lives in `self`: this cannot fail.
        match changes.wait_for(|task| task.status().is_terminal()).await {
            Ok(task) => task.clone(),
            Err(_) => self.snapshot(),
        }
    }

    /// The record as it changes. Every change of it is seen, or a later one.
    pub(super) fn changes(&self) -> watch::Receiver<Task> {
        self.task.subscribe()
    }

    /// Whether the task is stalled.
    pub(super) fn is_stalled(&self) -> bool {
        self.task.borrow().stall.is_some()
    }
}
