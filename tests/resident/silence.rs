//! What a shim observes of silent commands.

use errand_bridge::{Activity, Report};
use errand_task::{Reads, Stdin, TaskSpec, TerminalSize};

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
async fn process_reading_its_input_is_named() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let spec = TaskSpec { stdin: Stdin::Open, ..text("printf 'go on? '; read -r answer; sleep 600") };
        let mut launched = place.launch(&spec).await;
        let seen = activity(&mut launched, "a reader", |activity| activity.waiting.is_some()).await;
        let waiting = seen.waiting.unwrap();
        assert!(!seen.busy && waiting.reads == Reads::Stdin && !waiting.command.is_empty(), "{waiting:?}");
        // Once the input is answered, no process waits any more.
        place.write(&launched, "yes\n", false).await.unwrap();
        let seen = activity(&mut launched, "a sleeper", |activity| !activity.busy).await;
        assert_eq!(seen.waiting, None);
    }
}

#[tokio::test]
async fn process_reading_its_terminal_is_named() {
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

/// A Python command that runs `waits`: statements that wait for standard input or for something else.
fn python(waits: &str) -> String {
    format!("python3 -c 'import os, select, selectors, socket, sys\n{waits}'")
}

/// Event loops that wait for input and also for other things: timers, and their own wake-up descriptors.
const LOOPS: [&str; 6] = [
    "e = select.epoll(); e.register(0, select.EPOLLIN); e.poll(600)",
    "e = select.epoll(); a, b = socket.socketpair(); e.register(a, 1); e.register(0, 1); e.poll()",
    "a, b = socket.socketpair(); select.select([0, a], [], [], 600)",
    "r, w = os.pipe(); select.select([r, 0], [], [])",
    "p = select.poll(); r, w = os.pipe(); p.register(r, 1); p.register(0, 1); p.poll(600000)",
    "s = selectors.DefaultSelector(); s.register(0, 1)\nwhile True: s.select(1)",
];

/// Programs that have their input open and wait for something else, or also for the network.
const NO_READERS: [&str; 5] = [
    "e = select.epoll(); s = socket.socket(); s.bind((\"127.0.0.1\", 0)); s.listen(); e.register(s, 1); e.poll()",
    "e = select.epoll(); s = socket.socket(); s.bind((\"127.0.0.1\", 0)); s.listen(); e.register(s, 1); e.register(0, 1); e.poll()",
    "r, w = os.pipe(); select.select([r], [], [])",
    "e = select.epoll(); e.register(0, select.EPOLLPRI); e.poll(600)",
    "select.select([], [], [], 600)",
];

/// The ways in which a command gets its input.
fn inputs() -> [(TaskSpec, Reads); 2] {
    let terminal = Some(TerminalSize { rows: 24, columns: 80 });
    [(TaskSpec { stdin: Stdin::Open, ..text("") }, Reads::Stdin), (TaskSpec { terminal, ..text("") }, Reads::Terminal)]
}

#[tokio::test]
async fn event_loops_waiting_for_input_are_named() {
    let Some(place) = Place::on(Image::Debian).await else { return };
    for (spec, reads) in inputs() {
        for waits in LOOPS {
            let mut launched = place.launch(&TaskSpec { program: text(&python(waits)).program, ..spec.clone() }).await;
            let seen = activity(&mut launched, waits, |activity| activity.waiting.is_some()).await;
            let waiting = seen.waiting.unwrap();
            assert_eq!((waiting.command.as_str(), waiting.reads), ("python3", reads), "{waits}");
            assert!(!seen.busy, "{waits}");
        }
    }
}

#[tokio::test]
async fn event_loops_waiting_elsewhere_are_not_named() {
    let Some(place) = Place::on(Image::Debian).await else { return };
    for (spec, _) in inputs() {
        for waits in NO_READERS {
            let mut launched = place.launch(&TaskSpec { program: text(&python(waits)).program, ..spec.clone() }).await;
            let seen = activity(&mut launched, waits, |activity| !activity.busy).await;
            assert_eq!(seen.waiting, None, "{waits}");
        }
    }
}

#[tokio::test]
async fn node_waiting_for_input_is_named() {
    let Some(place) = Place::on(Where::Embedded(Root::Host)).await else { return };
    if place.sh("command -v node").await.trim().is_empty() {
        println!("SKIPPED: no node in the sandbox");
        return;
    }
    let asks =
        "node -e 'require(\"readline\").createInterface({ input: process.stdin }).question(\"go on? \", () => {})'";
    for (spec, reads) in inputs() {
        let mut launched = place.launch(&TaskSpec { program: text(asks).program, ..spec }).await;
        let seen = activity(&mut launched, asks, |activity| activity.waiting.is_some()).await;
        assert_eq!(seen.waiting.map(|waiting| waiting.reads), Some(reads));
    }
    let serves = "node -e 'process.stdin.resume(); require(\"net\").createServer().listen(0)'";
    for (spec, _) in inputs() {
        let mut launched = place.launch(&TaskSpec { program: text(serves).program, ..spec }).await;
        let seen = activity(&mut launched, serves, |activity| !activity.busy).await;
        assert_eq!(seen.waiting, None, "{serves}");
    }
}

#[tokio::test]
async fn silent_worker_is_busy_but_sleeper_is_not() {
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
