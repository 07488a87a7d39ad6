//! Drives the machine with generated schedules: answers that come late, twice and out of order, connections that break, a store that
//! refuses, sandboxes that are deaf, restarted or removed, servers that end, at any time. Whatever happens, the invariants of [`rules`] hold.
//!
//! `ERRAND_TEST_SCHEDULE=SEED` runs one schedule alone and prints what happens in it.

mod announced;
mod answers;
mod carrier;
mod disturb;
mod operations;
mod queue;
mod rules;
pub(crate) mod samples;
mod sandbox;
mod schedule;
mod watching;
mod world;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use errand_task::{LossReason, Status};
use rules::Observed;
use schedule::Schedule;
use world::{Reached, World};

/// How many schedules are run.
const SCHEDULES: u64 = 100_000;

/// How the tasks of the schedules end: each of these must be reached, or the schedules say nothing about it.
const ENDS: [Reached; 13] = [
    (Status::Succeeded, None),
    (Status::Failed, None),
    (Status::Stopped, None),
    (Status::TimedOut, None),
    (Status::FailedToStart, None),
    (Status::Lost, Some(LossReason::SandboxRestarted)),
    (Status::Lost, Some(LossReason::SandboxRemoved)),
    (Status::Lost, Some(LossReason::SandboxStopped)),
    (Status::Lost, Some(LossReason::SupervisorKilled)),
    (Status::Lost, Some(LossReason::SandboxUnresponsive)),
    (Status::Lost, Some(LossReason::ExitFileUnreadable)),
    (Status::Lost, Some(LossReason::LogDirectoryGone)),
    (Status::Lost, Some(LossReason::LaunchInterrupted)),
];

#[test]
fn every_schedule_keeps_the_invariants() {
    if let Some(seed) = std::env::var("ERRAND_TEST_SCHEDULE").ok().and_then(|seed| seed.parse().ok()) {
        let schedule = Schedule::generate(seed);
        println!("{schedule}{}", told(&schedule));
        run(&schedule).expect("the invariants hold");
        return;
    }
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let (failed, stop, reached) = (Mutex::new(None), AtomicBool::new(false), Mutex::new(Vec::new()));
    let ran = AtomicU64::new(0);
    let announced = [const { AtomicU64::new(0) }; 3];
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (failed, stop, reached, ran, announced) = (&failed, &stop, &reached, &ran, &announced);
            scope.spawn(move || {
                let mut ends = Vec::new();
                for seed in (thread..SCHEDULES).step_by(threads as usize) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let schedule = Schedule::generate(seed);
                    ran.fetch_add(1, Ordering::Relaxed);
                    match run(&schedule) {
                        Ok((end, counts)) => {
                            for (announced, count) in announced.iter().zip(counts) {
                                announced.fetch_add(count.into(), Ordering::Relaxed);
                            }
                            if !ends.contains(&end) {
                                ends.push(end);
                            }
                        }
                        Err(_) => {
                            stop.store(true, Ordering::Relaxed);
                            *failed.lock().expect("not poisoned") = Some(schedule);
                        }
                    }
                }
                reached.lock().expect("not poisoned").extend(ends);
            });
        }
    });
    if let Some(schedule) = failed.into_inner().expect("not poisoned") {
        let small = shrunk(schedule);
        let ran = ran.into_inner();
        panic!("after {ran} schedules: {:?}\n{small}{}", run(&small), self::told(&small));
    }
    let announced = announced.map(AtomicU64::into_inner);
    assert!(announced.iter().all(|count| *count > 1000), "too few heartbeats, silences or matches: {announced:?}");
    let reached = reached.into_inner().expect("not poisoned");
    for end in ENDS {
        assert!(reached.contains(&end), "no schedule ends in {end:?}");
    }
}

/// Runs a schedule. Returns how its task ended, and how many heartbeats and silences were announced, and notices of matches. An error says
/// which invariant was broken.
fn run(schedule: &Schedule) -> Result<(Reached, [u32; 3]), String> {
    let run = || {
        let mut world = World::new(schedule, Instant::now(), false);
        let end = world.run()?;
        let Observed { announced, matches_told, .. } = &world.observed;
        Ok((end, [announced.heartbeats, announced.silences, *matches_told]))
    };
    std::panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("the machine panicked".to_owned()))
}

/// What happens in a schedule.
fn told(schedule: &Schedule) -> String {
    let mut world = World::new(schedule, Instant::now(), true);
    let _ = std::panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    world.trace.unwrap_or_default().join("\n")
}

/// A schedule that fails like `schedule`, from which nothing can be left out.
fn shrunk(mut schedule: Schedule) -> Schedule {
    'again: loop {
        let simpler = (0..schedule.disturbances.len()).map(|index| {
            let mut simpler = schedule.clone();
            simpler.disturbances.remove(index);
            simpler
        });
        let calmer = [2, 30]
            .into_iter()
            .filter(|lateness| *lateness < schedule.lateness)
            .map(|lateness| Schedule { lateness, ..schedule.clone() });
        let once = (schedule.twice != u64::MAX).then(|| Schedule { twice: u64::MAX, ..schedule.clone() });
        for candidate in simpler.chain(calmer).chain(once) {
            if run(&candidate).is_err() {
                schedule = candidate;
                continue 'again;
            }
        }
        return schedule;
    }
}
