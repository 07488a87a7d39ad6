//! The limits on the number of tasks, and what happens to tasks beyond them.

use errand_proto::v1::*;
use futures_util::{StreamExt as _, stream};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    client::{duration, ended, refused},
    docker::Image,
    server::Server,
    wait::soon,
};

const GATED: &str = "until [ -e /workspace/go ]; do sleep 1; done; echo run >>/workspace/runs";

#[tokio::test]
async fn unfinished_tasks_of_a_bot_are_capped() {
    let Some(server) = Server::on(Image::Busybox, &["--max-running-per-bot", "3"]).await else { return };
    let session = server.session("bot", "session");
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(session.start("sleep 300").await);
    }
    let status = session.try_start(session.request("echo")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message().matches('3').count(), 2, "both numbers: {}", status.message());
    let violation = &status.get_details_quota_failure().unwrap().violations[0];
    assert_eq!((violation.subject.as_str(), violation.description.matches('3').count()), ("bot", 2));
    // Repeating a request id returns the earlier task and does not count, and another bot has its own count.
    server.session("other", "session").run("exit 0").await;
    session.stop(&tasks[0], Some(0.0)).await;
    session.run("exit 0").await;
    for task in &tasks[1..] {
        session.stop(task, Some(0.0)).await;
    }
}

#[tokio::test]
async fn unfinished_tasks_of_a_tenant_are_capped() {
    let Some(server) = Server::on(Image::Busybox, &["--max-running-per-tenant", "2"]).await else { return };
    let (one, two) = (server.session("one", "session"), server.session("two", "session"));
    let task = one.start("sleep 300").await;
    let other = two.start("sleep 300").await;
    for session in [&one, &two] {
        let words = refused(session.try_start(session.request("echo")).await, Code::ResourceExhausted);
        assert_eq!(words.matches('2').count(), 2, "{words}");
    }
    one.stop(&task, Some(0.0)).await;
    two.run("exit 0").await;
    two.stop(&other, Some(0.0)).await;
}

#[tokio::test]
async fn stored_tasks_of_a_tenant_are_capped() {
    let flags = ["--max-stored-tasks-per-tenant", "2", "--max-stored-bytes-per-tenant", "6MiB"];
    let Some(server) = Server::on(Image::Busybox, &flags).await else { return };
    let session = server.session("bot", "session");
    session.run("exit 0").await;
    let large = StartTaskRequest { argv: vec!["true".to_owned(), "x".repeat(900_000)], ..session.request("") };
    let large = StartTaskRequest { command: String::new(), ..large };
    session.run_as(large).await;
    let status = server.session("other", "session").try_start(session.request("exit 0")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message().matches('2').count(), 2, "both numbers: {}", status.message());
    assert!(status.message().contains("max-stored-tasks-per-tenant"), "what to do: {}", status.message());
    let violation = &status.get_details_quota_failure().unwrap().violations[0];
    assert_eq!((violation.subject.as_str(), violation.description.matches('2').count()), ("tenant", 2));
}

#[tokio::test]
async fn burst_of_ten_thousand_fills_the_cap_exactly() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    let starts = (0..10_000).map(|_| async {
        let mut tasks = session.tasks();
        tasks.start_task(session.request(GATED)).await
    });
    let answers: Vec<_> = soon("all are answered", stream::iter(starts).buffer_unordered(10_000).collect()).await;
    let mut accepted = Vec::new();
    for answer in answers {
        match answer {
            Ok(started) => accepted.push(started.into_inner().task.unwrap().task_id),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                assert!(status.message().contains("64"), "{}", status.message());
            }
        }
    }
    assert_eq!(accepted.len(), 64);
    session.exec("touch /workspace/go").await;
    for id in &accepted {
        assert_eq!(ended(&session.finished(id).await), "exited 0");
    }
    let mut told: Vec<_> = session.told().await.into_iter().map(|notification| notification.task_id).collect();
    told.sort();
    accepted.sort();
    assert_eq!(told, accepted);
    assert_eq!(session.exec("wc -l </workspace/runs").await.trim(), "64");
    assert_eq!(ended(&session.run("exit 5").await), "exited 5", "the server goes on");
}

#[tokio::test]
async fn stopped_task_frees_its_place_at_once() {
    let Some(server) = Server::on(Image::Busybox, &["--max-running-per-bot", "8"]).await else { return };
    let session = server.session("bot", "session");
    for _ in 0..3 {
        for _ in 0..8 {
            session.start("sleep 300").await;
        }
        refused(session.try_start(session.request("echo")).await, Code::ResourceExhausted);
        let stop = StopTasksRequest { bot_id: session.bot.clone(), grace: duration(0.0), ..Default::default() };
        assert_eq!(session.tasks().stop_tasks(stop).await.unwrap().into_inner().tasks.len(), 8);
    }
}
