//! The server is killed while a task is at a given stage.

use std::time::Duration;

use errand_proto::v1::{stream_output_response::Event, *};

use super::invariants::Tasks;
use crate::{
    on_both_images,
    support::{
        client::{Session, bytes, duration, ended, kind},
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(
    accepted_unlaunched_tasks_are_launched_once,
    running_command_is_followed_again_without_gap,
    end_without_a_server_is_reported_once,
    interrupted_stop_continues_after_a_restart,
);

/// A command that waits for [`pass`].
fn gate(name: &str) -> String {
    format!("until [ -e /workspace/{name} ]; do sleep 0.1; done")
}

/// Lets commands pass a gate. Also works while no server runs.
async fn pass(server: &Server, container: &str, name: &str) {
    server.ground.exec(container, &format!("touch /workspace/{name}")).await;
}

/// Like [`gate`], for a command that must be idle while it waits: polling would count as work.
fn silent_gate(name: &str) -> String {
    format!("[ -e /workspace/{name} ] || mkfifo /workspace/{name}; read -r passed </workspace/{name}")
}

async fn pass_silent(server: &Server, container: &str, name: &str) {
    server.ground.exec(container, &format!("echo go >/workspace/{name}")).await;
}

async fn statuses(session: &Session) -> Vec<TaskStatus> {
    let request = ListTasksRequest { bot_id: session.bot.clone(), ..Default::default() };
    session.listed(request).await.iter().map(Task::status).collect()
}

async fn accepted_unlaunched_tasks_are_launched_once(image: Image) {
    let Some(mut server) = Server::on(image, &["--launch-concurrency", "1"]).await else { return };
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    let requests = (0..24).map(|number| {
        let request = Tasks::request(&session, &format!("mark-{number}"), &format!("exit {number}"));
        session.start_as(request)
    });
    let started = futures_util::future::join_all(requests).await;
    let before = statuses(&session).await;
    server.kill();
    assert!(before.contains(&TaskStatus::Queued), "the kill came before the launches: {before:?}");
    server.launch().await;
    let mut tasks = Tasks::of(&session);
    for (number, task) in started.iter().enumerate() {
        tasks.note(task, &format!("exited {number}"));
    }
    tasks.excuse_cut_launches(1).await;
    tasks.check().await;
}

#[tokio::test]
async fn queued_tasks_survive_kills_in_order() {
    let Some(mut server) = Server::on(Image::Busybox, &["--max-running-per-bot", "1"]).await else { return };
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    let mut tasks = Tasks::of(&session);
    for number in 0..8 {
        let command = if number == 0 { gate("go") } else { format!("exit {number}") };
        let request = Tasks::request(&session, &format!("mark-{number}"), &command);
        let request = StartTaskRequest { when_full: WhenFull::Queue.into(), ..request };
        tasks.note(&session.start_as(request).await, &format!("exited {number}"));
    }
    let container = session.sandbox().await.unwrap().container_id;
    server.restart().await;
    let before = statuses(&session).await;
    assert_eq!(before.iter().filter(|status| **status == TaskStatus::Queued).count(), 7, "{before:?}");
    server.kill();
    pass(&server, &container, "go").await;
    server.launch().await;
    // Killed again while the queue drains.
    eventually("the queue drains", async || {
        (statuses(&session).await.iter().filter(|status| **status == TaskStatus::Queued).count() < 5).then_some(())
    })
    .await;
    server.restart().await;
    tasks.excuse_cut_launches(1).await;
    tasks.check().await;
    let runs = session.exec("cat /workspace/runs").await;
    let order: Vec<&str> = runs.lines().collect();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(ended(&session.run("exit 3").await), "exited 3", "the queue is empty");
}

#[tokio::test]
async fn kill_during_launches_loses_or_repeats_no_task() {
    let Some(mut server) = Server::on(Image::Busybox, &["--launch-concurrency", "4"]).await else { return };
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    let mut tasks = Tasks::of(&session);
    for round in 0..6 {
        for _ in 0..6 {
            tasks.start(&format!("exit {round}"), &format!("exited {round}")).await;
        }
        // Each time a little later in the launches.
        eventually("launches have begun", async || {
            let queued = statuses(&session).await.into_iter().filter(|status| *status == TaskStatus::Queued).count();
            (queued <= 6 - round).then_some(())
        })
        .await;
        server.restart().await;
    }
    tasks.excuse_cut_launches(4 * 6).await;
    tasks.check().await;
}

async fn running_command_is_followed_again_without_gap(image: Image) {
    let Some(mut server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let mut tasks = Tasks::of(&session);
    // More than is kept in memory, both before the kill and while no server runs.
    let command = format!("seq 1 40000; {}; seq 40001 80000; {}; echo end; exit 7", gate("1"), gate("2"));
    let task = tasks.start(&command, "exited 7").await;
    session.until_output(&task, "\n40000\n").await;
    let container = session.sandbox().await.unwrap().container_id;
    server.kill();
    pass(&server, &container, "1").await;
    let written = format!("until tail -n 1 {} | grep -q 80000; do sleep 0.1; done", task.output_file);
    soon("the output goes on without a server", server.ground.exec(&container, &written)).await;
    server.launch().await;
    assert_eq!(session.get(&task).await.status(), TaskStatus::Running);

    let request = StreamOutputRequest { task_id: task.task_id.clone(), ..Default::default() };
    let mut stream = session.tasks().stream_output(request).await.unwrap().into_inner();
    let (mut seen, mut finished, mut passed) = (Vec::new(), None, false);
    while let Some(event) = soon("more of a stream comes", stream.message()).await.unwrap() {
        match event.event.unwrap() {
            Event::Output(part) => {
                assert_eq!(part.offset, i64::try_from(seen.len()).unwrap());
                seen.extend(bytes(&part));
            }
            Event::Finished(task) => finished = Some(task),
        }
        if !passed && seen.ends_with(b"\n80000\n") {
            pass(&server, &container, "2").await;
            passed = true;
        }
    }
    let expected = (1..=80000).map(|number| format!("{number}\n")).collect::<String>() + "end\n";
    assert!(seen == expected.as_bytes(), "all of it, once, in order");
    assert_eq!(ended(&finished.unwrap()), "exited 7");
    tasks.check().await;
}

async fn end_without_a_server_is_reported_once(image: Image) {
    let Some(mut server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let mut tasks = Tasks::of(&session);
    let mut started = Vec::new();
    for (last, end) in [("exit 0", "exited 0"), ("exit 137", "exited 137"), ("kill -9 $$", "signaled 9")] {
        started.push(tasks.start(&format!("{}; echo words; {last}", gate("go")), end).await);
    }
    for task in &started {
        session.until(task, TaskStatus::Running).await;
    }
    let container = session.sandbox().await.unwrap().container_id;
    server.kill();
    pass(&server, &container, "go").await;
    for task in &started {
        let over = format!("until [ -e /tmp/errand/{}/exit ]; do sleep 0.1; done", task.task_id);
        soon("it ends without a server", server.ground.exec(&container, &over)).await;
    }
    server.launch().await;
    // The tasks' states are known as soon as the server serves.
    for task in tasks.now().await {
        assert!(task.outcome.is_some(), "{task:?}");
        assert_eq!((task.output_bytes, task.output_preview.as_str()), (6, "words"));
    }
    // A second restart: no notification is sent twice.
    server.restart().await;
    tasks.check().await;
}

#[tokio::test]
async fn unacknowledged_notification_returns_after_a_crash() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let mut tasks = Tasks::of(&session);
    for code in 1..=3 {
        let task = tasks.start(&format!("exit {code}"), &format!("exited {code}")).await;
        session.finished(&task).await;
    }
    let mut live = session.subscribe(Default::default()).await;
    let told = [live.next().await, live.next().await, live.next().await];
    assert_eq!(session.ack(&[told[1].sequence]).await, 1);
    server.restart().await;
    let mut live = session.subscribe(Default::default()).await;
    assert_eq!([live.next().await, live.next().await], [told[0].clone(), told[2].clone()]);
    assert_eq!(live.within(Duration::from_millis(500)).await, None);
    tasks.check().await;
}

async fn interrupted_stop_continues_after_a_restart(image: Image) {
    let Some(mut server) = Server::on(image, &["--stop-grace", "1s"]).await else { return };
    let session = server.session("bot", "session");
    let mut tasks = Tasks::of(&session);
    let deaf = "trap '' TERM; echo ready; setsid sleep 7500 & while :; do sleep 0.75; done";
    let task = tasks.start(deaf, "stopped request 9").await;
    session.until_output(&task, "ready\n").await;
    let stopping = tokio::spawn({
        let (session, task_id) = (session.clone(), task.task_id.clone());
        async move {
            let (grace, reason) = (duration(60.0), "why".to_owned());
            let request = StopTaskRequest { task_id, grace, reason, ..Default::default() };
            session.tasks().stop_task(request).await
        }
    });
    session.until(&task, TaskStatus::Stopping).await;
    server.restart().await;
    assert!(stopping.await.unwrap().is_err(), "the caller hears of the crash");
    let stopped = session.finished(&task).await;
    let Some(outcome::Kind::Stopped(how)) = stopped.outcome.clone().unwrap().kind else { panic!("{stopped:?}") };
    assert_eq!((how.by.as_str(), how.reason.as_str()), ("request", "why"), "the first cause stands");
    assert_eq!(session.processes("sleep 7500").await + session.processes("sleep 0.75").await, 0);
    tasks.check().await;
}

#[tokio::test]
async fn stall_is_announced_once_across_a_crash() {
    let flags = ["--stall-after", "2s", "--stall-check-interval", "500ms"];
    let Some(mut server) = Server::on(Image::Busybox, &flags).await else { return };
    let session = server.session("bot", "session");
    let mut tasks = Tasks::of(&session);
    let command = format!("printf 'Password: '; {}; echo thanks; {}", silent_gate("1"), silent_gate("2"));
    let task = tasks.start(&command, "exited 0").await;
    let container = session.sandbox().await.unwrap().container_id;
    let kinds = async || session.told().await.iter().map(|told| kind(told.kind())).collect::<Vec<_>>();
    eventually("the stall is told", async || (kinds().await == ["stalled"]).then_some(())).await;
    server.restart().await;
    assert!(session.get(&task).await.stall.is_some());
    // Long enough for a second notification, if there were one.
    let wait = WaitTaskRequest { task_id: task.task_id.clone(), timeout: duration(4.0), ..Default::default() };
    session.tasks().wait_task(wait).await.unwrap();
    assert_eq!(kinds().await, ["stalled"]);
    pass_silent(&server, &container, "1").await;
    eventually("the resumption is told", async || (kinds().await == ["stalled", "resumed"]).then_some(())).await;
    server.kill();
    pass_silent(&server, &container, "2").await;
    server.launch().await;
    tasks.check().await;
    assert_eq!(kinds().await, ["stalled", "resumed", "completed"]);
}

#[tokio::test]
async fn repeated_kills_during_startup_lose_nothing() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    let mut tasks = Tasks::of(&session);
    for number in 0..10 {
        tasks.start(&format!("{}; exit {number}", gate("go")), &format!("exited {number}")).await;
    }
    eventually("all run", async || {
        statuses(&session).await.into_iter().all(|status| status == TaskStatus::Running).then_some(())
    })
    .await;
    let container = session.sandbox().await.unwrap().container_id;
    server.kill();
    for round in 0..5 {
        server.spawn().await;
        if round == 2 {
            pass(&server, &container, "go").await;
        }
        server.kill();
    }
    server.launch().await;
    tasks.check().await;
}
