//! Tests the state machine pair by pair and with random sequences of events.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::{LossReason, StartFailure};

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

fn incarnation() -> Incarnation {
    Incarnation("c1@1".to_owned())
}

fn process() -> ProcessIdentity {
    ProcessIdentity { pid: 7, start_ticks: 99 }
}

fn running() -> TaskState {
    TaskState::Running { incarnation: incarnation(), process: process(), started_at: at(1) }
}

fn request() -> StopCause {
    StopCause::Request { reason: "enough".to_owned(), acknowledge: false }
}

fn ended(ending: Ending) -> Event {
    Event::Ended { ending, started_at: None, signalled: true, at: at(9) }
}

fn apply(state: TaskState, event: Event) -> TaskState {
    match transition(&state, event) {
        Transition::To(next) => next,
        Transition::Unchanged | Transition::Late(_) => state,
    }
}

#[test]
fn command_runs_and_exits() {
    let state = apply(TaskState::Queued, Event::LaunchBegan { incarnation: incarnation() });
    let state = apply(state, Event::Started { process: process(), at: at(1) });
    assert_eq!(state, running());
    let state = apply(state, ended(Ending::Exited(3)));
    assert_eq!(state.status(), Status::Failed);
    assert_eq!(state.outcome(), Some(&Outcome::Exited { code: 3 }));
    assert_eq!(state.started_at(), Some(at(1)));
    assert_eq!(state.finished_at(), Some(at(9)));
}

#[test]
fn retried_launch_belongs_to_the_new_life() {
    let state = apply(TaskState::Queued, Event::LaunchBegan { incarnation: incarnation() });
    assert_eq!(transition(&state, Event::LaunchBegan { incarnation: incarnation() }), Transition::Unchanged);
    let restarted = Incarnation("restarted".to_owned());
    let state = apply(state, Event::LaunchBegan { incarnation: restarted.clone() });
    assert_eq!(state, TaskState::Starting { incarnation: restarted });
}

#[test]
fn stopped_queued_task_is_never_launched() {
    let state = apply(TaskState::Queued, Event::StopRequested { cause: request(), at: at(2) });
    assert_eq!(state.outcome(), Some(&Outcome::Stopped { cause: request(), signal: None }));
    assert_eq!(transition(&state, Event::LaunchBegan { incarnation: incarnation() }), Transition::Unchanged);
}

#[test]
fn task_without_room_is_never_launched() {
    let waiting = TaskState::AwaitingRoom;
    for early in [Event::LaunchBegan { incarnation: incarnation() }, Event::Started { process: process(), at: at(1) }] {
        assert_eq!(transition(&waiting, early), Transition::Unchanged);
    }
    assert_eq!(waiting.status(), Status::Queued);
    assert_eq!(apply(waiting.clone(), Event::Admitted), TaskState::Queued);
    assert_eq!(transition(&TaskState::Queued, Event::Admitted), Transition::Unchanged);
    let stopped = apply(waiting.clone(), Event::StopRequested { cause: request(), at: at(2) });
    assert_eq!(stopped.outcome(), Some(&Outcome::Stopped { cause: request(), signal: None }));
    let failure = StartFailure::QueueDeadline;
    let over = apply(waiting, ended(Ending::FailedToStart { failure, errno: None, message: "full".to_owned() }));
    assert_eq!(over.status(), Status::FailedToStart);
    for finished in [stopped, over] {
        assert_eq!(transition(&finished, Event::Admitted), Transition::Unchanged);
    }
}

#[test]
fn exit_while_stopping_takes_the_stop_cause() {
    let after = Duration::from_secs(5);
    for (cause, ending, expected) in [
        (request(), Ending::Exited(0), Outcome::Stopped { cause: request(), signal: Some(Signal::TERM) }),
        (request(), Ending::Signaled(Signal::KILL), Outcome::Stopped { cause: request(), signal: Some(Signal::KILL) }),
        (StopCause::Timeout { after }, Ending::Signaled(Signal::TERM), Outcome::TimedOut { after }),
    ] {
        let state = apply(running(), Event::StopRequested { cause, at: at(2) });
        assert_eq!(state.status(), Status::Stopping);
        assert_eq!(apply(state, ended(ending)).outcome(), Some(&expected));
    }
}

#[test]
fn exit_before_any_signal_keeps_its_code() {
    let state = apply(running(), Event::StopRequested { cause: request(), at: at(2) });
    for (ending, expected) in [
        (Ending::Exited(3), Outcome::Exited { code: 3 }),
        (Ending::Signaled(Signal::KILL), Outcome::Signaled { signal: Signal::KILL }),
    ] {
        let event = Event::Ended { ending, started_at: None, signalled: false, at: at(9) };
        assert_eq!(apply(state.clone(), event).outcome(), Some(&expected));
    }
}

#[test]
fn sandbox_timeout_counts_unless_stopped_first() {
    let after = Duration::from_secs(7);
    let timed_out = || ended(Ending::TimedOut { after });
    let starting = TaskState::Starting { incarnation: incarnation() };
    for state in [starting, running()] {
        assert_eq!(apply(state, timed_out()).outcome(), Some(&Outcome::TimedOut { after }));
    }
    let stopping = apply(running(), Event::StopRequested { cause: request(), at: at(2) });
    let stopped = apply(stopping, timed_out());
    assert_eq!(stopped.outcome(), Some(&Outcome::Stopped { cause: request(), signal: Some(Signal::TERM) }));
    assert_eq!(transition(&stopped, timed_out()), Transition::Unchanged);
    let exited = apply(running(), ended(Ending::Exited(0)));
    assert_eq!(transition(&exited, timed_out()), Transition::Late(Outcome::TimedOut { after }));
    let never_ran = apply(TaskState::Queued, Event::StopRequested { cause: request(), at: at(2) });
    assert_eq!(transition(&never_ran, timed_out()), Transition::Late(Outcome::TimedOut { after }));
}

#[test]
fn first_stop_cause_stands() {
    let state = apply(running(), Event::StopRequested { cause: request(), at: at(2) });
    let late = Event::StopRequested { cause: StopCause::Timeout { after: Duration::from_secs(1) }, at: at(3) };
    assert_eq!(transition(&state, late), Transition::Unchanged);
}

#[test]
fn late_exit_after_loss_is_recorded_beside_it() {
    let lost = apply(running(), ended(Ending::lost(LossReason::SandboxStopped)));
    assert_eq!(transition(&lost, ended(Ending::Exited(0))), Transition::Late(Outcome::Exited { code: 0 }));
    assert_eq!(transition(&lost, ended(Ending::lost(LossReason::SandboxRemoved))), Transition::Unchanged);
}

#[test]
fn late_exit_after_stop_keeps_stopped() {
    let never_ran = apply(TaskState::Queued, Event::StopRequested { cause: request(), at: at(2) });
    assert_eq!(transition(&never_ran, ended(Ending::Exited(4))), Transition::Late(Outcome::Exited { code: 4 }));
    let stopping = apply(running(), Event::StopRequested { cause: request(), at: at(2) });
    let stopped = apply(stopping, ended(Ending::Signaled(Signal::TERM)));
    assert_eq!(transition(&stopped, ended(Ending::Signaled(Signal::TERM))), Transition::Unchanged);
    assert_eq!(
        transition(&stopped, ended(Ending::Signaled(Signal::KILL))),
        Transition::Late(Outcome::Signaled { signal: Signal::KILL })
    );
}

#[test]
fn statuses_round_trip_through_their_word() {
    for status in Status::ALL {
        assert_eq!(Status::from_word(status.word()), Some(status));
    }
}

fn any_ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        any::<u8>().prop_map(Ending::Exited),
        (1..=64).prop_map(|number| Ending::Signaled(Signal::new(number).unwrap())),
        (1..9u64).prop_map(|second| Ending::TimedOut { after: Duration::from_secs(second) }),
        Just(Ending::FailedToStart { failure: StartFailure::NotFound, errno: Some(2), message: "no".to_owned() }),
        Just(Ending::lost(LossReason::SandboxRemoved)),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Admitted),
        Just(Event::LaunchBegan { incarnation: incarnation() }),
        Just(Event::Started { process: process(), at: at(1) }),
        Just(Event::StopRequested { cause: request(), at: at(2) }),
        Just(Event::StopRequested { cause: StopCause::Timeout { after: Duration::from_secs(1) }, at: at(2) }),
        any_ending().prop_map(ended),
    ]
}

fn rank(state: &TaskState) -> u8 {
    match state {
        TaskState::AwaitingRoom => 0,
        TaskState::Queued => 1,
        TaskState::Starting { .. } => 2,
        TaskState::Running { .. } => 3,
        TaskState::Stopping { .. } => 4,
        TaskState::Finished { .. } => 5,
    }
}

proptest! {
    #[test]
    fn terminal_is_final_and_no_state_goes_back(events in prop::collection::vec(any_event(), 0..24)) {
        let mut state = TaskState::AwaitingRoom;
        for event in events {
            let next = apply(state.clone(), event.clone());
            prop_assert!(rank(&next) >= rank(&state));
            if state.outcome().is_some() {
                prop_assert_eq!(&next, &state);
                if let Transition::Late(late) = transition(&state, event) {
                    prop_assert_ne!(Some(&late), state.outcome());
                }
            }
            state = next;
        }
    }

    #[test]
    fn ending_always_finishes_an_unfinished_task(events in prop::collection::vec(any_event(), 0..8), ending in any_ending()) {
        let state = events.into_iter().fold(TaskState::AwaitingRoom, apply);
        let state = apply(state, ended(ending));
        prop_assert!(state.status().is_terminal());
    }
}
