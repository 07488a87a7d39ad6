//! Supervises one unfinished task, from its acceptance or its recovery to its end.
//!
//! Only a task's supervisor changes the task's record. Its rules are in [`machine`], a state machine without I/O. The rest carries the
//! machine's actions out: [`carrier`] waits for what happens next, [`operations`] asks the store, the runtime and the bridge, and
//! [`revival`] replaces a supervisor that breaks down. Every change of the record goes through [`Task::apply`] and is committed, together
//! with its notification, before any caller sees it.

mod carrier;
pub(super) mod machine;
mod operations;
mod revival;
mod shown;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::Instant};

use super::{
    Inner,
    live::{LiveTask, StopOrder, WatchOrder},
    masking::TaskMasks,
    permits::LaunchPermit,
    queue::Spot,
    reconciling::Hold,
    sandbox::Sandbox,
    sandboxes::Place,
    scanning::Scan,
};
use errand_bridge::Attachment;
use errand_runtime::RuntimeError;
use errand_task::{Task, TaskState};
use machine::{Action, Machine, Rules};
pub(super) use machine::{Entry, PolicyOrder};
use operations::Running;

/// Why a supervisor ends before its task does.
#[derive(Debug)]
enum Left {
    /// The server is shutting down. The command keeps running and its record stays as it is.
    Ending,
    /// Another writer changed the record. This is a defect: only the supervisor may write it.
    Conflict,
}

/// Supervises one task.
pub(super) struct Supervisor {
    inner: Arc<Inner>,
    live: Arc<LiveTask>,
    machine: Machine,
    sandbox: Sandbox,
    orders: watch::Receiver<Option<StopOrder>>,
    policies: watch::Receiver<Option<PolicyOrder>>,
    watch_orders: watch::Receiver<Option<WatchOrder>>,
    /// The task's place among those that wait for room.
    spot: Option<Spot>,
    /// Held until the launched command has shown a sign of life.
    permit: Option<LaunchPermit>,
    /// Keeps calls about the bot waiting until this task is reconciled.
    hold: Option<Arc<Hold>>,
    attachment: Option<Attachment>,
    /// When to search the output for watches here, unless the attachment says that the sandbox does.
    scan_at: Option<Instant>,
    /// The search of the output for watches.
    scan: Option<Scan>,
    /// The operation that runs.
    operation: Option<Running>,
    /// The signal that is being sent, and the future count of processes that received it.
    signal: Option<BoxFuture<'static, Result<u32, RuntimeError>>>,
    /// The machine's actions that are still to be carried out. Kept here so that its memory is used again.
    actions: Vec<Action>,
    /// Set when the task's end could not be stored: what is retained of its output must not be the reason again.
    without_output: bool,
}

impl Supervisor {
    /// Registers a task as unfinished. Its output is known from byte `output_start` on.
    pub(super) fn new(inner: &Arc<Inner>, task: Task, sandbox: Sandbox, output_start: u64, masks: TaskMasks) -> Self {
        let live = Arc::new(LiveTask::new(task.clone(), output_start, inner.feed.growth(&task), masks));
        inner.enter(task.id, &live);
        Self::of(inner, live, task, sandbox)
    }

    /// Makes the supervisor of a task that is about to be accepted, with its launch permit if there is one. It must be made before the task
    /// is committed, so that a caller that learns of the task finds the supervisor.
    pub(super) fn of_new(
        inner: &Arc<Inner>,
        task: Task,
        place: Place,
        permit: Option<LaunchPermit>,
        masks: TaskMasks,
    ) -> Self {
        let mut supervisor = Self::new(inner, task, place.sandbox, 0, masks);
        if permit.is_some() {
            supervisor.machine.reserve(place.incarnation);
            supervisor.permit = permit;
        }
        supervisor
    }

    /// Unregisters a task that was not accepted.
    pub(super) fn withdraw(self) {
        self.inner.remove_live(self.machine.task().id);
    }

    /// Keeps calls about the bot waiting until this task is reconciled.
    pub(super) fn holding(mut self, hold: &Arc<Hold>) -> Self {
        self.hold = Some(Arc::clone(hold));
        self.machine.hold_calls();
        self
    }

    /// Takes its place in the queue if the task waits for room, and has waited for so long already.
    pub(super) fn in_the_queue(mut self, waited: Duration) -> Self {
        let task = self.machine.task();
        if task.state == TaskState::AwaitingRoom {
            self.spot = Some(self.inner.queue.join(&task.owner, task.id));
            self.machine.waited(waited);
        }
        self
    }

    /// Makes the supervisor of a task that is already registered.
    fn of(inner: &Arc<Inner>, live: Arc<LiveTask>, task: Task, sandbox: Sandbox) -> Self {
        let settings = &inner.settings;
        let rules = Rules {
            stop_grace: settings.stop_grace,
            stall_after: settings.stall_after,
            stall_check_interval: settings.stall_check_interval,
        };
        let orders = live.orders();
        let order = orders.borrow().clone();
        live.output.keep_head(task.notify.head_bytes);
        let mut machine = Machine::new(task, rules, Arc::clone(&inner.budgets), live.output.end(), order);
        let mut policies = live.policies();
        // An order that the supervisor before this one did not store, or stored already: then storing it again changes nothing.
        if let Some(order) = *policies.borrow_and_update() {
            machine.want_policy(order);
        }
        let mut watch_orders = live.watch_orders();
        // One that an earlier supervisor did not carry out is handled like a new one.
        watch_orders.mark_changed();
        Self {
            inner: Arc::clone(inner),
            live,
            machine,
            sandbox,
            orders,
            policies,
            watch_orders,
            spot: None,
            permit: None,
            hold: None,
            attachment: None,
            scan_at: None,
            scan: None,
            operation: None,
            signal: None,
            actions: Vec::new(),
            without_output: false,
        }
    }
}
