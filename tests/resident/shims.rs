//! Shims that supervise one task after the other: nothing of one task may reach the next.

use errand_task::{Ending, Signal, TaskId, TaskSpec};

use super::place::{EVERYWHERE, Launched, Place, ROOT, Ran, text};
use crate::support::wait::eventually;

/// The process that supervises or supervised the task.
async fn shim(place: &Place, task: TaskId) -> String {
    place.sh(&format!("head -n 1 {ROOT}/{task}/processes")).await
}

/// Runs one command to its end and launches another, and repeats that until the same shim supervises both: a free shim does not wait for
/// long.
async fn one_after_the_other(place: &Place, first: &TaskSpec, second: &TaskSpec) -> (TaskId, Ran, Launched) {
    eventually("one shim for two tasks", async || {
        let launched = place.launch(first).await;
        let id = launched.id;
        let ran = launched.ran().await;
        let next = place.launch(second).await;
        (shim(place, id).await == shim(place, next.id).await).then_some((id, ran, next))
    })
    .await
}

#[tokio::test]
async fn reused_shim_counts_each_task_separately() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let much =
            "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/dev/null bs=40M count=1 2>&1";
        let (_, first, second) = one_after_the_other(&place, &text(much), &text("echo second; exit 5")).await;
        let second = second.ran().await;
        assert_eq!(second.text(), "second\n");
        assert_eq!((first.ending, second.ending), (Some(Ending::Exited(0)), Some(Ending::Exited(5))));
        let (first, second) = (first.usage.unwrap(), second.usage.unwrap());
        assert!(first.peak_memory_bytes > 40_000_000, "{first:?}");
        assert!(second.peak_memory_bytes < 40_000_000, "{second:?}");
        assert!(second.user_cpu < first.user_cpu, "{first:?} {second:?}");
    }
}

#[tokio::test]
async fn spare_directory_is_ready_before_each_task() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        place.bridge.prepare().await.unwrap();
        for command in ["true", "exec sleep 60", "exec sleep 61"] {
            let spare = eventually("a directory waits", async || {
                let found = place.sh(&format!("stat -c %i {ROOT}/.spare 2>&1")).await;
                found.trim().parse::<u64>().ok()
            })
            .await;
            let launched = place.launch(&text(command)).await;
            let taken = place.sh(&format!("stat -c %i {ROOT}/{}", launched.id)).await;
            assert_eq!(taken.trim().parse(), Ok(spare), "{command}");
        }
    }
}

#[tokio::test]
async fn late_signal_misses_the_next_task() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let (over, _, next) = one_after_the_other(&place, &text("true"), &text("exec sleep 60")).await;
        let found = place.find_until(&next, "the command runs", |finding| finding.alive).await;
        let signalled = place.bridge.signal(over, None, Some(Signal::KILL)).await.unwrap();
        assert_eq!(signalled, 0);
        let process = found.process.map(|(process, _)| process);
        assert_eq!(place.bridge.signal(next.id, process, None).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn shim_with_leftover_processes_is_not_reused() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let launched = place.launch(&text("sleep 70 >/dev/null 2>&1 & exit 0")).await;
        let id = launched.id;
        assert_eq!(launched.ran().await.ending, Some(Ending::Exited(0)));
        let next = place.launch(&text("exec sleep 60")).await;
        place.find_until(&next, "the command runs", |finding| finding.alive).await;
        assert_ne!(shim(&place, id).await, shim(&place, next.id).await);
        assert_eq!(place.bridge.signal(id, None, None).await.unwrap(), 1, "the process that was left");
        place.bridge.signal(id, None, Some(Signal::KILL)).await.unwrap();
        assert_eq!((place.running("sleep 70").await, place.running("sleep 60").await), (0, 1));
    }
}

#[tokio::test]
async fn killed_free_shim_is_replaced_and_surplus_ends() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        assert_eq!(place.run(&text("true")).await.ending, Some(Ending::Exited(0)));
        place.sh("kill -9 $(grep -lx errand-shim /proc/[0-9]*/comm | cut -d/ -f3)").await;
        let none_is_left = async || place.named("errand-shim").await.is_empty().then_some(());
        eventually("the killed shim is gone", none_is_left).await;
        assert_eq!(place.run(&text("exit 6")).await.ending, Some(Ending::Exited(6)));
        eventually("no shim is left without a task", none_is_left).await;
    }
}

#[tokio::test]
async fn command_that_ran_never_reports_failed_start() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        // Within the time for which the report of a start may be delayed.
        for _ in 0..5 {
            let ran = place.run(&text(&format!("rm -rf {ROOT}/*; kill -9 $PPID"))).await;
            assert_eq!(ran.ending, None);
        }
    }
}

#[tokio::test]
async fn shim_reuse_is_bounded_and_loses_nothing() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        for number in 0..250 {
            let ran = place.run(&text("exit 7")).await;
            assert_eq!(ran.ending, Some(Ending::Exited(7)), "{number}");
        }
        let counted = place.sh(&format!("for f in {ROOT}/*/processes; do head -n 1 $f; done | sort | uniq -c")).await;
        let counts: Vec<u32> =
            counted.lines().map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
        assert_eq!(counts.iter().sum::<u32>(), 250);
        assert!(counts.iter().all(|count| *count <= 100), "{counts:?}");
        assert!(counts.iter().any(|count| *count > 1), "{counts:?}");
    }
}
