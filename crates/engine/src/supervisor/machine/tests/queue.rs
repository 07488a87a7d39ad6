//! A task that waits for room: admitted, stopped, too late.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{samples, world::RULES};
use crate::{
    WatchSettings,
    alerts::Budgets,
    live::StopOrder,
    supervisor::machine::{Action, Admission, Entry, Input, Machine, Moment, Operation},
};
use errand_task::{Event, Outcome, StartFailure, Status, StopCause, Task, TaskState, WhenFull};

const DEADLINE: Duration = Duration::from_secs(60);

fn waiting() -> Task {
    let mut task = Task { state: TaskState::AwaitingRoom, ..samples::task() };
    Arc::make_mut(&mut task.spec).when_full = WhenFull::Queue { deadline: DEADLINE };
    task
}

/// A machine, and the time.
struct Run {
    machine: Machine,
    now: Moment,
}

impl Run {
    fn begin(waited: Duration, order: Option<StopOrder>) -> Self {
        let mut machine = Machine::new(waiting(), RULES, Arc::new(Budgets::new(WatchSettings::default())), 0, order);
        let now = Moment { at: Instant::now(), wall: samples::wall() };
        machine.waited(waited);
        machine.enter(Entry::Queue, now);
        Self { machine, now }
    }

    fn handle(&mut self, input: Input) {
        self.machine.handle(input, self.now);
    }

    fn order(&mut self) {
        self.handle(Input::Ordered(order()));
    }

    /// Lets time pass. Returns whether a deadline has passed by then.
    fn pass(&mut self, time: Duration) -> bool {
        self.now.at += time;
        self.now.wall += time;
        let due = self.machine.due().is_some_and(|at| at <= self.now.at);
        if due {
            self.machine.tick(self.now);
        }
        due
    }

    /// The actions, as words.
    fn actions(&mut self) -> Vec<String> {
        let mut actions = Vec::new();
        self.machine.take_actions(&mut actions);
        let word = |action: &Action| match action {
            Action::Do(operation) => format!("{operation:?}"),
            other => format!("{other:?}"),
        };
        actions.iter().map(|action| word(action).split([' ', '(', '{']).next().unwrap_or_default().to_owned()).collect()
    }

    /// The record that is to be stored or admitted, as if the store had done so.
    fn stored(&mut self) -> Task {
        let mut actions = Vec::new();
        self.machine.take_actions(&mut actions);
        let task = actions.into_iter().find_map(|action| match action {
            Action::Do(Operation::Store { task, .. } | Operation::Admit { task }) => Some(*task),
            _ => None,
        });
        let task = task.expect("a record is stored");
        Task { revision: task.revision + 1, ..task }
    }
}

fn order() -> StopOrder {
    StopOrder { cause: StopCause::Request { reason: "enough".to_owned(), acknowledge: false }, grace: Duration::ZERO }
}

#[test]
fn admitted_task_is_launched() {
    let mut run = Run::begin(Duration::ZERO, None);
    assert_eq!(run.actions(), ["AwaitTurn"]);
    run.handle(Input::TurnHasCome);
    assert_eq!(run.actions(), ["Admit"]);
    run.handle(Input::Admission(Admission::NoRoom));
    assert_eq!(run.actions(), ["AwaitTurn"]);
    run.handle(Input::TurnHasCome);
    let task = run.stored();
    assert_eq!(task.state, TaskState::Queued);
    run.handle(Input::Admission(Admission::Admitted(Box::new(task.clone()))));
    assert_eq!((run.actions().as_slice(), run.machine.task()), (&["Place".to_owned()][..], &task));
    assert!(!run.pass(DEADLINE * 2), "the queue deadline is over");
}

#[test]
fn deadline_counts_what_was_waited_before() {
    let mut run = Run::begin(DEADLINE / 2, None);
    assert!(!run.pass(DEADLINE / 2 - Duration::from_millis(1)));
    assert!(run.pass(Duration::from_millis(1)));
    let over = run.stored();
    assert_eq!(over.status(), Status::FailedToStart);
    let Some(Outcome::FailedToStart { failure, message, .. }) = over.state.outcome() else { panic!("{over:?}") };
    assert_eq!(*failure, StartFailure::QueueDeadline);
    assert!(message.contains("waited in the queue for 1m"), "{message}");
    run.handle(Input::TurnHasCome);
    assert!(run.actions().is_empty(), "it is never launched afterwards");
    run.handle(Input::Stored(Ok(Box::new(over))));
    assert!(run.machine.is_over());
    // A server that was away for long finds it over at once.
    assert!(Run::begin(DEADLINE * 9, None).pass(Duration::ZERO));
}

#[test]
fn stopped_waiting_task_leaves_the_queue() {
    for ordered_before in [true, false] {
        let mut run = Run::begin(Duration::ZERO, ordered_before.then(order));
        if !ordered_before {
            assert_eq!(run.actions(), ["AwaitTurn"]);
            run.order();
        }
        let mut machine = run;
        let stopped = machine.stored();
        assert_eq!(stopped.status(), Status::Stopped);
        machine.handle(Input::Stored(Ok(Box::new(stopped))));
        assert!(machine.machine.is_over());
    }
}

#[test]
fn stop_during_admission_waits_for_its_answer() {
    for admitted in [true, false] {
        let mut run = Run::begin(Duration::ZERO, None);
        run.handle(Input::TurnHasCome);
        let task = run.stored();
        run.order();
        assert!(run.actions().is_empty() && !run.pass(DEADLINE * 2));
        run.handle(Input::Admission(if admitted { Admission::Admitted(Box::new(task)) } else { Admission::NoRoom }));
        let stopped = run.stored();
        assert_eq!(stopped.state.outcome(), Some(&Outcome::Stopped { cause: order().cause, signal: None }));
        assert_eq!(stopped.revision, if admitted { 2 } else { 1 });
    }
}

#[test]
fn failing_store_delays_the_admission() {
    let mut run = Run::begin(Duration::ZERO, None);
    run.handle(Input::TurnHasCome);
    let _ = run.actions();
    run.handle(Input::Admission(Admission::Failed));
    assert!(run.actions().is_empty() && !run.pass(Duration::from_millis(999)));
    assert!(run.pass(Duration::from_millis(1)));
    assert_eq!(run.actions(), ["Admit"]);
    run.handle(Input::Admission(Admission::Failed));
    assert!(run.pass(DEADLINE));
    assert_eq!(run.stored().status(), Status::FailedToStart);
}

#[test]
fn waiting_task_is_never_launched_by_itself() {
    let mut task = waiting();
    assert!(!task.apply(Event::LaunchBegan { incarnation: errand_task::Incarnation("1".to_owned()) }));
    assert_eq!(task.state, TaskState::AwaitingRoom);
}
