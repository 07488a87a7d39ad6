//! The rules of supervision, as a state machine without I/O: inputs and the time go in, actions come out.
//!
//! The machine owns a task's record, as far as this server knows it, and every deadline. The carrier ([`super::carrier`]) performs the
//! actions and feeds back what came of them. The machine reads no clock: each input comes with its [`Moment`].
//!
//! The machine is in one [`Phase`]. Three things run beside the phases, because they outlast them: the stop in progress ([`stop`]), the
//! commit in progress ([`commit`]), and what the task holds while it is launched or reconciled ([`holds`]).

mod attach;
mod clear;
mod clock;
mod commit;
mod end;
mod facts;
mod follow;
mod holds;
mod judge;
mod launch;
mod look;
mod memory;
mod messages;
mod not_launched;
mod policy;
mod pulse;
mod queue;
mod report;
mod stall;
mod stop;
#[cfg(test)]
pub(crate) mod tests;
mod unseen;
mod watch;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    alerts::{Alerts, Budgets},
    live::{StopOrder, WatchOrder},
};
use attach::Attaching;
use clock::CommandClock;
use commit::{Storing, Then, Unsaved};
use end::Closing;
use errand_task::{Ending, Incarnation, Task};
use facts::KnownOutput;
use follow::Following;
use holds::Permit;
use launch::Launching;
use look::Looking;
pub(crate) use messages::{Action, Admission, Entry, Input, Moment, Notice, Operation, Placed, Reported, RestRead};
pub(crate) use policy::PolicyOrder;
use queue::Queueing;
use stop::Stopping;
use watch::Armed;

/// How long to wait before the first retry of something that failed. Doubled with each retry.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such wait.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a sandbox may take to answer a question about a task.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The settings that the rules depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Time between SIGTERM and SIGKILL when the request does not say.
    pub(crate) stop_grace: Duration,
    /// How long a command must be silent before it can count as stalled.
    pub(crate) stall_after: Duration,
    /// How often to check for a stall.
    pub(crate) stall_check_interval: Duration,
}

/// Supervises one task.
pub(crate) struct Machine {
    rules: Rules,
    task: Task,
    phase: Phase,
    /// How long the task had waited for room before supervision began.
    waited: Duration,
    /// The sandbox in which to launch, if it was seen running just now and a permit is held.
    reserved: Option<Incarnation>,
    clock: CommandClock,
    output: KnownOutput,
    /// Whether the guest enforces the timeout and reports activity.
    guest_enforces_timeout: bool,
    /// How many processes were killed for lack of memory, as the sandbox reports.
    oom_kills_told: u32,
    orders: Orders,
    /// A change of what is announced that is not stored yet.
    policy: Option<PolicyOrder>,
    /// When this server last announced that the command had become silent.
    idle_told_at: Option<Instant>,
    /// The stop in progress.
    stopping: Option<Stopping>,
    /// The commit in progress.
    storing: Option<Storing>,
    /// Set while the store fails: the record may be newer than what is stored.
    unsaved: Option<Unsaved>,
    /// The matches that the session is still to be told of.
    alerts: Alerts,
    /// How often sessions may be told of matches.
    budgets: Arc<Budgets>,
    /// The watches that the attachment searches for.
    armed: Armed,
    /// The watches that a caller wants.
    watch_order: Option<WatchOrder>,
    permit: Permit,
    /// Whether calls about the bot wait for this task.
    holds_calls: bool,
    /// How long the sandbox has not answered although the task has to end.
    deaf_for: Duration,
    actions: Vec<Action>,
}

/// What is being done about the task.
enum Phase {
    /// Supervision has not begun.
    Idle,
    /// The task waits until the bot and the tenant have room for it.
    Queueing(Queueing),
    /// The command is being launched.
    Launching(Launching),
    /// Nothing reports about the command: its sandbox is asked.
    Looking(Looking),
    /// A running command is being attached to.
    Attaching(Attaching),
    /// An attachment reports about the command.
    Following(Following),
    /// The command has ended, and the record of its end is being completed.
    Closing(Closing),
    /// The end is committed.
    Over,
}

/// The stop order of the task's callers.
struct Orders {
    order: Option<StopOrder>,
    /// Whether it has changed since it was last handled.
    fresh: bool,
}

impl Machine {
    /// Makes the machine of a task. Its output is known up to byte `output_end`, and `order` has been given so far.
    pub(crate) fn new(
        task: Task,
        rules: Rules,
        budgets: Arc<Budgets>,
        output_end: u64,
        order: Option<StopOrder>,
    ) -> Self {
        Self {
            rules,
            task,
            phase: Phase::Idle,
            waited: Duration::ZERO,
            reserved: None,
            clock: CommandClock::default(),
            output: KnownOutput::up_to(output_end),
            guest_enforces_timeout: false,
            oom_kills_told: 0,
            orders: Orders { order, fresh: false },
            policy: None,
            idle_told_at: None,
            stopping: None,
            storing: None,
            unsaved: None,
            alerts: Alerts::default(),
            budgets,
            armed: Armed::default(),
            watch_order: None,
            permit: Permit::None,
            holds_calls: false,
            deaf_for: Duration::ZERO,
            actions: Vec::new(),
        }
    }

    /// The carrier holds a permit to launch the command in this incarnation of its sandbox.
    pub(crate) fn reserve(&mut self, incarnation: Incarnation) {
        self.reserved = Some(incarnation);
        self.permit = Permit::Held;
    }

    /// The carrier keeps calls about the bot waiting.
    pub(crate) fn hold_calls(&mut self) {
        self.holds_calls = true;
    }

    /// Whether the guest enforces the timeout and reports activity.
    pub(crate) fn guest_enforces_timeout(&mut self, guest_enforces_timeout: bool) {
        self.guest_enforces_timeout = guest_enforces_timeout;
    }

    /// The record as this server knows it.
    pub(crate) fn task(&self) -> &Task {
        &self.task
    }

    /// True once the end of the task is committed.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Moves the actions that are due into `actions`.
    pub(crate) fn take_actions(&mut self, actions: &mut Vec<Action>) {
        actions.append(&mut self.actions);
    }

    /// Begins supervision.
    pub(crate) fn enter(&mut self, entry: Entry, now: Moment) {
        match entry {
            Entry::Queue => self.queue(now),
            Entry::Launch => self.launch(now),
            Entry::Look => self.look(now),
            Entry::Judge(found, finding) => self.judge_first(&found, &finding, now),
            Entry::Lost(reason) => self.close(Ending::lost(reason), None, now),
        }
        self.keep_policy(now);
    }

    /// Takes in what has happened.
    pub(crate) fn handle(&mut self, input: Input, now: Moment) {
        match input {
            Input::Ordered(order) => self.ordered(order, now),
            Input::Watch(order) => self.watch_ordered(order, now),
            Input::Stored(result) => self.stored(result, now),
            Input::TurnHasCome => self.turn_has_come(),
            Input::Admission(admission) => self.admission(admission, now),
            Input::Placed(placed) => self.placed(placed, now),
            Input::MemoryKills(count) => self.memory_kills(count, now),
            Input::Launched(answer) => self.launched(answer, now),
            Input::Attached(answer) => self.attached(answer, now),
            Input::Reported(report) => self.reported(report, now),
            Input::Tail(tail) => self.tail_read(&tail, now),
            Input::Inspected(answer) => self.inspected(answer, now),
            Input::Probed(answer) => self.probed(answer, now),
            Input::AtRest(answer) => self.at_rest(answer, now),
            Input::Signalled(sent) => self.signalled(sent, now),
            Input::Cleared(sent) => self.cleared(sent, now),
            Input::RestRead(read) => self.rest_read(&read, now),
            Input::MemoryLimit(limit) => self.memory_limit(limit, now),
            Input::PolicyWanted(order) => self.want_policy(order),
        }
        self.keep_policy(now);
    }

    /// The next deadline. Once it has passed, [`Machine::tick`] must be called before anything else is waited for: inputs may never pause.
    pub(crate) fn due(&self) -> Option<Instant> {
        if let Some(storing) = &self.storing {
            return storing.due();
        }
        match &self.phase {
            Phase::Idle | Phase::Over => None,
            Phase::Queueing(queueing) => queueing.due(),
            Phase::Launching(launching) => [launching.due(), self.permit.due()].into_iter().flatten().min(),
            Phase::Looking(looking) => looking.due(),
            Phase::Attaching(attaching) => attaching.due(),
            Phase::Following(following) => self.follow_due(following),
            Phase::Closing(closing) => closing.due(),
        }
    }

    /// Handles one deadline that has passed.
    pub(crate) fn tick(&mut self, now: Moment) {
        if self.storing.is_some() {
            return self.store_again(now);
        }
        match &self.phase {
            Phase::Idle | Phase::Over => {}
            Phase::Queueing(_) => self.queue_tick(now),
            Phase::Launching(_) => self.launch_tick(now),
            Phase::Looking(_) => self.look_tick(now),
            Phase::Attaching(_) => self.attach_tick(now),
            Phase::Following(_) => self.follow_tick(now),
            Phase::Closing(_) => self.close_tick(now),
        }
        self.keep_policy(now);
    }

    /// Notes a stop order. Where it cannot be handled now, it is handled later.
    fn ordered(&mut self, order: StopOrder, now: Moment) {
        self.orders = Orders { order: Some(order), fresh: true };
        if self.storing.is_some() {
            return;
        }
        match &self.phase {
            Phase::Queueing(_) => self.ordered_while_queueing(now),
            Phase::Launching(_) => self.ordered_while_launching(now),
            Phase::Looking(_) => self.ordered_while_looking(now),
            Phase::Following(_) => self.follow_orders(now),
            Phase::Idle | Phase::Attaching(_) | Phase::Closing(_) | Phase::Over => {}
        }
    }

    /// Continues after a commit.
    fn go_on(&mut self, then: Then, now: Moment) {
        match then {
            Then::Launch => self.count_before_launch(),
            Then::Look => self.look(now),
            Then::Place => self.place(now),
            Then::Attach => self.attach(),
            Then::BeginStop { grace, reached } => {
                self.schedule_stop(grace, reached, now);
                self.proceed(now);
            }
            Then::Proceed => self.proceed(now),
            Then::StallTold => self.stall_told(now),
            Then::WatchTold { news, revision } => self.watch_told(news, revision, now),
            Then::WatchesReplaced { set } => self.watches_replaced(set, now),
            Then::Complete => {
                self.proceed(now);
                self.complete(now);
            }
            Then::Finish => self.finish(),
        }
    }

    /// Continues in the phase that a commit interrupted.
    fn proceed(&mut self, now: Moment) {
        match &self.phase {
            Phase::Following(_) => self.follow_on(now),
            Phase::Looking(_) => {
                self.unseen_on(now);
                self.ordered_while_looking(now);
            }
            Phase::Queueing(queueing) if queueing.awaits_turn() => self.await_turn(now),
            Phase::Idle
            | Phase::Queueing(_)
            | Phase::Launching(_)
            | Phase::Attaching(_)
            | Phase::Closing(_)
            | Phase::Over => {}
        }
    }

    fn finish(&mut self) {
        tracing::info!(outcome = ?self.task.state.outcome(), output_bytes = self.task.output.bytes, "finished");
        self.release_permit();
        self.release_hold();
        self.phase = Phase::Over;
    }

    fn begin(&mut self, operation: Operation) {
        self.actions.push(Action::Do(operation));
    }
}

/// The wait after `pause`.
fn doubled(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE)
}
