//! The same request id returns the same task.

use errand_proto::v1::StartTaskRequest;
use futures_util::future::join_all;
use tonic::Code;

use crate::{
    on_both_images,
    support::{client::refused, docker::Image, server::Server},
};

on_both_images!(twenty_concurrent_identical_requests_run_one_command);

async fn twenty_concurrent_identical_requests_run_one_command(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let request = StartTaskRequest { request_id: "once".to_owned(), ..session.request("echo run >>/workspace/runs") };
    let answers = join_all((0..20).map(|_| session.try_start(request.clone()))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let first = answers[0].task.clone().unwrap();
    assert!(answers.iter().all(|answer| answer.task.as_ref().unwrap().task_id == first.task_id));
    assert_eq!(answers.iter().filter(|answer| !answer.existed).count(), 1);

    let task = session.finished(&first).await;
    let again = session.try_start(request).await.unwrap();
    assert_eq!((again.task, again.existed), (Some(task), true));
    assert_eq!(session.exec("cat /workspace/runs").await, "run\n");
    assert_eq!(session.told_of(&first).await, ["completed"]);
}

#[tokio::test]
async fn request_id_of_another_command_is_refused() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let request = |command| StartTaskRequest { request_id: "id".to_owned(), ..session.request(command) };
    let task = session.run_as(request("exit 0")).await;
    let words = refused(session.try_start(request("exit 1")).await, Code::AlreadyExists);
    assert!(words.contains("request_id"), "{words}");
    let argv = StartTaskRequest { request_id: "id".to_owned(), ..session.argv(&["exit", "0"]) };
    refused(session.try_start(argv).await, Code::AlreadyExists);

    // Another bot's request ids are independent.
    let other = server.session("other", "session");
    let theirs = other.start_as(StartTaskRequest { bot_id: other.bot.clone(), ..request("exit 1") }).await;
    assert_ne!(theirs.task_id, task.task_id);
    other.finished(&theirs).await;
}

#[tokio::test]
async fn request_id_is_remembered_after_a_restart() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let request = StartTaskRequest { request_id: "id".to_owned(), ..session.request("echo run >>/workspace/runs") };
    let task = session.run_as(request.clone()).await;
    server.restart().await;
    let again = session.try_start(request).await.unwrap();
    assert_eq!((again.task, again.existed), (Some(task), true));
    assert_eq!(session.exec("cat /workspace/runs").await, "run\n");
}
