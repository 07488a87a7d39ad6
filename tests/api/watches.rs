//! Watches: the session is told of patterns in the output while the task runs.

use std::time::Duration;

use errand_proto::v1::{output_watch::Kind, *};
use tonic::Code;

use crate::{
    on_both_images,
    support::{
        client::{Session, Subscription, ended, kind, refused},
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(
    matches_are_told_while_the_task_runs,
    matches_come_before_the_end_and_none_after,
    chatty_watch_is_disabled_and_the_end_is_told,
    needle_in_much_output_is_found,
);

pub fn text(text: &str) -> OutputWatch {
    OutputWatch { kind: Some(Kind::Substring(text.to_owned())), once: false }
}

pub fn regex(pattern: &str) -> OutputWatch {
    OutputWatch { kind: Some(Kind::Regex(pattern.to_owned())), once: false }
}

/// A command that waits until this file of its sandbox exists.
pub fn gate(name: &str) -> String {
    format!("until [ -e /workspace/{name} ]; do sleep 0.1; done")
}

async fn start(session: &Session, command: &str, watches: Vec<OutputWatch>) -> Task {
    session.start_as(StartTaskRequest { watches, ..session.request(command) }).await
}

async fn set(session: &Session, task: &Task, watches: Vec<OutputWatch>, from: Option<i64>) -> SetWatchesResponse {
    let request = SetWatchesRequest { task_id: task.task_id.clone(), watches, from_offset: from, ..Default::default() };
    soon("watches are set", session.tasks().set_watches(request)).await.unwrap().into_inner()
}

/// The next notification, which is about a match: the watch's place, the position and the lines.
async fn matched(live: &mut Subscription) -> (i32, i64, String) {
    let told = live.next().await;
    assert_eq!((told.kind(), told.status()), (NotificationKind::WatchMatched, TaskStatus::Running), "{told:?}");
    let found = told.watch.unwrap();
    assert!(told.text.contains(&format!("offset=\"{}\"", found.offset)), "{}", told.text);
    (found.index, found.offset, found.lines)
}

async fn matches_are_told_while_the_task_runs(image: Image) {
    let Some(server) = Server::on(image, &["--watch-interval", "10ms"]).await else { return };
    let session = server.session("bot", "session");
    let mut live = session.subscribe(Default::default()).await;
    let command = format!(
        "printf 'starting\\nserver re'; sleep 0.3; printf 'ady on 80'; sleep 0.3; printf '80\\n'; {}; printf 'na\\303'; sleep 0.2; \
         printf '\\257ve\\n'; {}; printf '10%%\\r100%% done\\r\\n'; {}; printf 'Password: '; {}; exit 4",
        gate("1"),
        gate("2"),
        gate("3"),
        gate("4")
    );
    let watches = vec![text("ready on"), regex("naïve"), regex("^10%.*done"), text("Password:")];
    let task = start(&session, &command, watches).await;
    // Across pieces, as far as the line goes; across the bytes of a character, across carriage returns, and in a line that is not finished.
    assert_eq!(matched(&mut live).await, (0, 16, "server ready on 80".to_owned()));
    session.exec("touch /workspace/1").await;
    assert_eq!(matched(&mut live).await, (1, 30, "naïve".to_owned()));
    session.exec("touch /workspace/2").await;
    let (index, offset, _) = matched(&mut live).await;
    assert_eq!((index, offset), (2, 37));
    session.exec("touch /workspace/3").await;
    assert_eq!(matched(&mut live).await, (3, 52, "Password:".to_owned()));
    let states = session.get(&task).await.watches;
    assert_eq!(states.iter().map(|state| (state.matches, state.held_back)).collect::<Vec<_>>(), [(1, 0); 4]);
    session.exec("touch /workspace/4").await;
    let last = live.next().await;
    assert_eq!((last.kind(), last.held_back), (NotificationKind::Completed, 0));
    assert_eq!(ended(&session.finished(&task).await), "exited 4");
}

async fn matches_come_before_the_end_and_none_after(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    // Short commands: what they print last is searched before their end is told.
    for (command, held_back) in [("echo ready; exit 3", 0), ("echo ready; sleep 1; echo ready; echo ready", 2)] {
        let task = start(&session, command, vec![regex("^ready$")]).await;
        let task = session.finished(&task).await;
        let told: Vec<_> = session.told().await.into_iter().filter(|told| told.task_id == task.task_id).collect();
        assert_eq!(told.iter().map(|told| kind(told.kind())).collect::<Vec<_>>(), ["watch_matched", "completed"]);
        assert_eq!((told[0].held_back, told[1].held_back), (0, held_back), "{command}");
        let state = &task.watches[0];
        assert_eq!((state.matches, state.held_back), (1 + held_back, held_back), "{command}");
    }
    // What a daemon prints after the end is not told.
    let task = start(&session, "(sleep 1; echo late) & echo over", vec![text("late")]).await;
    session.finished(&task).await;
    session.until_output(&task, "late").await;
    assert_eq!(session.told_of(&task).await, ["completed"]);
}

async fn chatty_watch_is_disabled_and_the_end_is_told(image: Image) {
    let Some(server) = Server::on(image, &["--watch-interval", "1s"]).await else { return };
    let session = server.session("bot", "session");
    let command =
        "echo quiet; n=0; until [ -e /workspace/go ]; do n=$((n + 1)); echo error $n; sleep 0.1; done; echo quiet";
    let task = start(&session, command, vec![text("error"), text("quiet")]).await;
    let kinds = async || session.told_of(&task).await;
    eventually("the watch is disabled", async || kinds().await.contains(&"watch_disabled").then_some(())).await;
    let states = session.get(&task).await.watches;
    assert!(states[0].disabled && !states[1].disabled, "{states:?}");
    session.exec("touch /workspace/go").await;
    let task = session.finished(&task).await;
    let told: Vec<_> = session.told().await.into_iter().filter(|told| told.task_id == task.task_id).collect();
    let disabled = told.iter().find(|told| told.kind() == NotificationKind::WatchDisabled).unwrap();
    assert!(disabled.held_back > 0 && disabled.text.contains("turned off"), "{}", disabled.text);
    let kinds: Vec<_> = told.iter().map(|told| kind(told.kind())).collect();
    assert_eq!(kinds[..4], ["watch_matched", "watch_matched", "watch_matched", "watch_disabled"], "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "watch_disabled").count(), 1, "{kinds:?}");
    assert_eq!(kinds.last(), Some(&"completed"));
    // The other watch went on.
    assert_eq!(task.watches[1].matches, 2);
}

async fn needle_in_much_output_is_found(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    // Far more than the log keeps: each needle is found when it is written or never.
    let noise = "yes 'one of many lines, as a build prints them' | head -c 150000000";
    let command = format!("{noise}; echo; echo needle 1; {noise}; echo; echo needle 2; {}", gate("go"));
    let watches = vec![text("needle 1"), regex("^needle [2-9]$"), text("absent")];
    let request = StartTaskRequest { watches, output_limit_bytes: 1 << 20, ..session.request(&command) };
    let task = session.start_as(request).await;
    let mut live = session.subscribe(Default::default()).await;
    let (index, offset, lines) = matched(&mut live).await;
    assert_eq!((index, offset, lines.as_str()), (0, 150_000_001, "needle 1"));
    eventually("all is printed", async || (session.get(&task).await.output_bytes == 300_000_020).then_some(())).await;
    session.exec("touch /workspace/go").await;
    let state = session.finished(&task).await.watches;
    assert_eq!((state[0].matches, state[2].matches), (1, 0), "{state:?}");
    assert!(state[1].matches == 1 || state[1].unsearched_bytes > 0, "{state:?}");
}

#[tokio::test]
async fn session_budget_pauses_matches_and_no_completion() {
    let flags = ["--watch-budget", "3", "--watch-budget-period", "60s", "--watch-pause", "5s"];
    let Some(server) = Server::on(Image::Busybox, &flags).await else { return };
    let session = server.session("bot", "session");
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(start(&session, &format!("echo hit; {}", gate("go")), vec![text("hit")]).await);
    }
    let other = server.session("bot", "other");
    let apart = start(&other, &format!("echo hit; {}", gate("go")), vec![text("hit")]).await;
    let count = async |wanted: &str| session.told().await.iter().filter(|told| kind(told.kind()) == wanted).count();
    eventually("the pause is over", async || (count("watches_restored").await == 1).then_some(())).await;
    eventually("all matches are told", async || (count("watch_matched").await == 6).then_some(())).await;
    let told = session.told().await;
    let kinds: Vec<_> = told.iter().map(|told| kind(told.kind())).collect();
    let (suspended, restored) = (
        kinds.iter().position(|kind| *kind == "watches_suspended"),
        kinds.iter().position(|kind| *kind == "watches_restored"),
    );
    assert_eq!((suspended, restored), (Some(3), Some(4)), "{kinds:?}");
    assert_eq!((told[4].held_back, count("watches_suspended").await), (3, 1));
    session.exec("touch /workspace/go").await;
    for task in &tasks {
        session.finished(task).await;
    }
    assert_eq!(count("completed").await, 6);
    other.finished(&apart).await;
    assert_eq!(other.told_of(&apart).await, ["watch_matched", "completed"]);
}

#[tokio::test]
async fn watches_are_replaced_while_the_task_runs() {
    let Some(server) = Server::on(Image::Busybox, &["--watch-interval", "100ms"]).await else { return };
    let session = server.session("bot", "session");
    let mut live = session.subscribe(Default::default()).await;
    let command = format!("echo one; {}; echo one; echo two; {}; exit 0", gate("1"), gate("2"));
    let task = start(&session, &command, vec![]).await;
    session.until_output(&task, "one\n").await;
    // Only new output, unless the request says otherwise.
    let states = set(&session, &task, vec![text("one")], None).await.watches;
    assert_eq!((states[0].next_offset, states[0].matches), (4, 0));
    session.exec("touch /workspace/1").await;
    assert_eq!(matched(&mut live).await, (0, 4, "one".to_owned()));
    session.until_output(&task, "two\n").await;
    let once = OutputWatch { once: true, ..text("two") };
    set(&session, &task, vec![regex("^two"), text("one"), once], Some(0)).await;
    let (mut seen, mut told) = (Vec::new(), 0);
    while told < 4 {
        let found = live.next().await.watch.unwrap();
        told += found.matches + found.others.iter().map(|other| other.matches).sum::<i64>();
        seen.push(found.index);
    }
    assert_eq!(told, 4, "{seen:?}");
    assert!(set(&session, &task, vec![], None).await.watches.is_empty());

    let request = |task_id: &str, from_offset| SetWatchesRequest {
        task_id: task_id.to_owned(),
        watches: vec![text("x")],
        from_offset,
        ..Default::default()
    };
    let beyond = request(&task.task_id, Some(1 << 40));
    refused(session.tasks().set_watches(beyond).await, Code::OutOfRange);
    let foreign = SetWatchesRequest { session_id: "another".to_owned(), ..request(&task.task_id, None) };
    refused(session.tasks().set_watches(foreign).await, Code::NotFound);
    let wrong = SetWatchesRequest {
        watches: vec![regex("("), OutputWatch::default(), text(&"x".repeat(513)), regex("a*")],
        ..request(&task.task_id, Some(-1))
    };
    let said = refused(session.tasks().set_watches(wrong).await, Code::InvalidArgument);
    assert!(said.starts_with("watches[0].regex must be a regular expression") && said.contains("4 more"), "{said}");
    session.exec("touch /workspace/2").await;
    session.finished(&task).await;
    refused(session.tasks().set_watches(request(&task.task_id, None)).await, Code::FailedPrecondition);
    assert_eq!(live.within(Duration::from_millis(1)).await.map(|told| told.kind()), Some(NotificationKind::Completed));
}
