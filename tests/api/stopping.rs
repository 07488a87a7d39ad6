//! Stopping a task: all its processes end, and the task does not end before them.

use std::time::{Duration, Instant};

use errand_proto::v1::{StartTaskRequest, StopTaskRequest, StopTasksRequest, TaskStatus, outcome::Kind};

use crate::{
    on_both_images,
    support::{
        client::{Session, duration, ended},
        docker::Image,
        server::Server,
        wait::eventually,
    },
};

on_both_images!(
    stop_returns_after_the_whole_tree_ended,
    command_that_obeys_sigterm_is_not_killed,
    processes_left_after_sigterm_are_killed,
    ignored_sigterm_leads_to_kill_after_grace,
    a_stopped_process_handles_sigterm_at_once,
    a_stopped_process_handles_its_timeout,
    a_command_gets_one_sigterm_in_its_grace,
);

async fn stop_returns_after_the_whole_tree_ended(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let bystander = session.running("sleep 7000").await;
    let task = session
        .start(
            "sleep 7001 &
             sh -c 'trap \"\" TERM; sleep 7002; sleep 7002' &
             setsid sleep 7003 &
             (setsid sh -c 'trap \"\" TERM HUP; sleep 7004; sleep 7004' &) &
             (sh -c '(sleep 7005 &) &' &) &
             env -i setsid sleep 7006 &
             sleep 7007; wait",
        )
        .await;
    for number in 7001..=7007 {
        let child = format!("sleep {number}");
        // One match is the command's text, which its shell and its supervisor have in their arguments.
        eventually(&format!("{child} runs"), async || {
            let script = format!(
                "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$p; echo; done 2>/dev/null | grep -cx '{child} '"
            );
            (session.exec(&script).await.trim() == "1").then_some(())
        })
        .await;
    }

    let stopped = session.stop(&task, Some(0.5)).await;
    let left = session.processes("sleep 70").await;
    assert_eq!(session.processes("sleep 7000").await, left, "only the bystander's processes are left");
    // SIGTERM was enough for the command itself.
    assert_eq!(ended(&stopped), "stopped request 15");
    assert_eq!(stopped.status(), TaskStatus::Stopped);
    assert_eq!(session.get(&task).await, stopped);
    assert_eq!(session.told_of(&task).await, ["completed"]);
    assert_eq!(session.get(&bystander).await.status(), TaskStatus::Running);
    session.stop(&bystander, Some(0.0)).await;
}

async fn command_that_obeys_sigterm_is_not_killed(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.start("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done").await;
    session.until_output(&task, "ready\n").await;
    let begun = Instant::now();
    let request = StopTaskRequest {
        task_id: task.task_id.clone(),
        grace: duration(50.0),
        reason: "changed my mind".to_owned(),
        ..Default::default()
    };
    let stopped = session.tasks().stop_task(request).await.unwrap().into_inner().task.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "it did not wait for the grace");
    // A stopped task that exits with code 0 is still not a success.
    assert_eq!((ended(&stopped).as_str(), stopped.status()), ("stopped request 15", TaskStatus::Stopped));
    let Some(Kind::Stopped(how)) = stopped.outcome.clone().unwrap().kind else { unreachable!("it was described so") };
    assert_eq!(how.reason, "changed my mind");
    // The shell may print a message about its killed child in between.
    let output = session.text(&task).await;
    assert!(output.starts_with("ready\n") && output.ends_with("bye\n"), "{output}");
}

async fn processes_left_after_sigterm_are_killed(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session
        .start("setsid sh -c 'trap \"\" TERM; echo child; while :; do sleep 0.2; done' & trap 'exit 0' TERM; while :; do sleep 0.1; done")
        .await;
    session.until_output(&task, "child\n").await;
    let stopped = session.stop(&task, Some(0.5)).await;
    assert_eq!(session.processes("sleep 0.").await, 0);
    assert!(ended(&stopped).starts_with("stopped request"), "{stopped:?}");
}

async fn ignored_sigterm_leads_to_kill_after_grace(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let task = session.start(deaf).await;
    session.until_output(&task, "ready\n").await;
    let begun = Instant::now();
    let stopped = session.stop(&task, Some(1.0)).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "the grace was kept");
    assert_eq!(ended(&stopped), "stopped request 9");

    let task = session.start(deaf).await;
    session.until_output(&task, "ready\n").await;
    let stopped = session.stop(&task, Some(0.0)).await;
    assert_eq!(ended(&stopped), "stopped request 9");
}

#[tokio::test]
async fn second_stop_shortens_the_grace() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.start("trap '' TERM; echo ready; while :; do sleep 0.1; done").await;
    session.until_output(&task, "ready\n").await;
    let patient = tokio::spawn({
        let (session, task) = (session.clone(), task.clone());
        async move { session.stop(&task, Some(60.0)).await }
    });
    session.until(&task, TaskStatus::Stopping).await;
    let begun = Instant::now();
    let stopped = session.stop(&task, Some(0.0)).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(ended(&stopped), "stopped request 9");
    assert_eq!(patient.await.unwrap(), stopped);
    assert_eq!(session.told_of(&task).await, ["completed"]);
}

#[tokio::test]
async fn stopping_a_finished_task_changes_nothing() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    for command in ["exit 3", "kill -9 $$"] {
        let task = session.run(command).await;
        assert_eq!(session.stop(&task, None).await, task);
    }
    let stopped = session.running("sleep 300").await;
    let stopped = session.stop(&stopped, None).await;
    assert_eq!(session.stop(&stopped, Some(0.0)).await, stopped);
    assert_eq!(session.told().await.len(), 3);
}

#[tokio::test]
async fn stopped_queued_task_never_launches() {
    let Some(server) = Server::on(Image::Busybox, &["--launch-concurrency", "1"]).await else { return };
    let session = server.session("bot", "session");
    session.run("true").await;
    let mut tasks = Vec::new();
    for number in 0..30 {
        tasks.push(session.start(&format!("echo {number} >>/workspace/ran; sleep 300")).await);
    }
    let last = tasks.last().unwrap();
    let stopped = session.stop(last, Some(0.0)).await;
    // Either the task was still waiting and never ran, or it was launched and then killed.
    let ran = session.exec("cat /workspace/ran").await.lines().any(|line| line == "29");
    let expected = if ran { "stopped request 9" } else { "stopped request 0" };
    assert!([expected, "stopped request 9"].contains(&ended(&stopped).as_str()), "{stopped:?}");
    assert_eq!(session.told_of(last).await, ["completed"]);
    let request = StopTasksRequest { bot_id: session.bot.clone(), grace: duration(0.0), ..Default::default() };
    session.tasks().stop_tasks(request).await.unwrap();
}

#[tokio::test]
async fn stopping_a_session_stops_only_its_tasks() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let (ours, theirs) = (server.session("bot", "ours"), server.session("bot", "theirs"));
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(ours.running("sleep 300").await.task_id);
    }
    let finished = ours.run("exit 1").await;
    let other = theirs.running("sleep 300").await;
    let stop = async |session_id: &str| {
        let request = StopTasksRequest {
            bot_id: ours.bot.clone(),
            session_id: session_id.to_owned(),
            grace: duration(0.0),
            reason: "session closed".to_owned(),
            acknowledge: false,
        };
        ours.tasks().stop_tasks(request).await.unwrap().into_inner().tasks
    };
    let mut stopped = stop("ours").await;
    stopped.sort_by_key(|task| task.task_id.clone());
    assert!(stopped.iter().all(|task| ended(task) == "stopped request 9"), "{stopped:?}");
    assert_eq!(stopped.into_iter().map(|task| task.task_id).collect::<Vec<_>>(), tasks);
    assert_eq!(ours.get(&finished).await, finished);
    assert_eq!(theirs.get(&other).await.status(), TaskStatus::Running);
    assert_eq!(stop("").await.len(), 1);
    assert_eq!(stop("").await.len(), 0);
}

/// Prints `bye` on SIGTERM, and sends itself SIGSTOP.
const STOPPED: &str = "trap 'echo bye; exit 0' TERM; kill -STOP $$; sleep 100";

/// Waits until a process of the sandbox is stopped.
async fn stands_still(session: &Session) {
    eventually("the command is stopped", async || {
        let states = session.exec("cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | cut -c 1").await;
        states.contains('T').then_some(())
    })
    .await;
}

async fn a_stopped_process_handles_sigterm_at_once(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.start(STOPPED).await;
    stands_still(&session).await;
    let begun = Instant::now();
    let stopped = session.stop(&task, Some(50.0)).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "it did not wait for the grace");
    assert_eq!(ended(&stopped), "stopped request 15");
    assert_eq!(session.text(&task).await, "bye\n");
}

async fn a_stopped_process_handles_its_timeout(image: Image) {
    let Some(server) = Server::on(image, &["--stop-grace", "40s"]).await else { return };
    let session = server.session("bot", "session");
    let request = StartTaskRequest { timeout: duration(3.0), ..session.request(STOPPED) };
    let task = session.start_as(request).await;
    stands_still(&session).await;
    let begun = Instant::now();
    let task = session.finished(&task).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "it did not wait for the grace");
    assert_eq!(ended(&task), "timed_out");
    assert_eq!(session.text(&task).await, "bye\n");
}

async fn a_command_gets_one_sigterm_in_its_grace(image: Image) {
    let Some(server) = Server::on(image, &["--stop-grace", "9s"]).await else { return };
    let session = server.session("bot", "session");
    let counts = "trap 'echo term' TERM; echo ready; while :; do sleep 0.1; done";
    let request = StartTaskRequest { timeout: duration(1.0), ..session.request(counts) };
    let (timed_out, stopped) = (session.start_as(request).await, session.running(counts).await);
    session.until_output(&stopped, "ready\n").await;
    session.stop(&stopped, None).await;
    let timed_out = session.finished(&timed_out).await;
    assert_eq!(ended(&timed_out), "timed_out");
    for task in [timed_out, stopped] {
        let output = session.text(&task).await;
        // The shell may print a message about its killed child in between.
        assert_eq!(output.matches("term\n").count(), 1, "{output}");
    }
}
