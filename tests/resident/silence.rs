//! What is seen of silent commands.

use errand::{
    bridge::{Activity, Report},
    task::{Reads, Stdin, TaskSpec, TerminalSize},
};

use super::place::{EVERYWHERE, Launched, Place, Where, text};
use crate::support::{docker::Image, embedded::Root};

async fn activity(launched: &mut Launched, what: &str, wanted: impl Fn(&Activity) -> bool) -> Activity {
    launched
        .until(what, |report| match report {
            Report::Activity(activity) if wanted(&activity) => Some(activity),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_process_that_reads_its_input_is_named() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let spec = TaskSpec { stdin: Stdin::Open, ..text("printf 'go on? '; read -r answer; sleep 600") };
        let mut launched = place.launch(&spec).await;
        let seen = activity(&mut launched, "a reader", |activity| activity.waiting.is_some()).await;
        let waiting = seen.waiting.unwrap();
        assert!(!seen.busy && waiting.reads == Reads::Stdin && !waiting.command.is_empty(), "{waiting:?}");
        // Once it is answered nothing waits any more.
        place.write(&launched, "yes\n", false).await.unwrap();
        let seen = activity(&mut launched, "a sleeper", |activity| !activity.busy).await;
        assert_eq!(seen.waiting, None);
    }
}

#[tokio::test]
async fn a_process_that_reads_its_terminal_is_named() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let terminal = Some(TerminalSize { rows: 24, columns: 80 });
        for command in ["cat", "head -n 1 </dev/tty"] {
            let mut launched = place.launch(&TaskSpec { terminal, ..text(command) }).await;
            let seen = activity(&mut launched, command, |activity| activity.waiting.is_some()).await;
            assert_eq!(seen.waiting.map(|waiting| waiting.reads), Some(Reads::Terminal), "{command}");
            place.write(&launched, "\x04", false).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_silent_worker_is_busy_and_a_sleeper_is_not() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let mut worker = place.launch(&TaskSpec { stdin: Stdin::Open, ..text("while :; do :; done") }).await;
        let seen = activity(&mut worker, "a worker", |_| true).await;
        assert!(seen.busy && seen.waiting.is_none(), "{seen:?}");
        let mut sleeper = place.launch(&TaskSpec { stdin: Stdin::Open, ..text("exec sleep 600") }).await;
        let seen = activity(&mut sleeper, "a sleeper", |_| true).await;
        assert!(!seen.busy && seen.waiting.is_none(), "{seen:?}");
    }
}
