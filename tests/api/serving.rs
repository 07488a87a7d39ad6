//! The server itself: start, health, shutdown.

use std::time::Duration;

use errand_proto::v1::{SubscribeRequest, TaskStatus, WaitTaskRequest};
use futures_util::{StreamExt as _, stream};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{client::ended, docker::Image, server::Server, wait::soon};

#[tokio::test]
async fn health_and_reflection_answer_for_every_service() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let services = ["TaskService", "NotificationService", "SandboxService"].map(|name| format!("errand.v1.{name}"));
    for service in services.iter().map(String::as_str).chain([""]) {
        assert_eq!(server.health(service).await, Some(ServingStatus::Serving), "{service}");
    }
    assert_eq!(server.health("no.such.Service").await, None);

    let mut reflection = ServerReflectionClient::new(server.channel());
    let mut ask = async |request: MessageRequest| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let mut answers = reflection.server_reflection_info(stream::iter([request])).await.unwrap().into_inner();
        soon("reflection answers", answers.next()).await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(listed) = ask(MessageRequest::ListServices(String::new())).await else {
        panic!("no list of services")
    };
    let listed: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    for service in &services {
        assert!(listed.contains(service), "{service} is not in {listed:?}");
        let answer = ask(MessageRequest::FileContainingSymbol(service.clone())).await;
        assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{answer:?}");
    }
}

#[tokio::test]
async fn foreign_database_file_is_refused_and_unchanged() {
    let Some(server) = Server::prepare(Image::Busybox).await else { return };
    std::fs::create_dir_all(server.database().parent().unwrap()).unwrap();
    let content = "these are somebody's notes, and no database\n".repeat(100);
    std::fs::write(server.database(), &content).unwrap();
    let ended = server.fails(&[]).await;
    assert!(!ended.status.success());
    assert_ne!(ended.status.code(), None, "it exits by itself");
    assert!(ended.stderr.contains("errand.db") && ended.stderr.contains("not a"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    assert_eq!(std::fs::read_to_string(server.database()).unwrap(), content);
}

#[tokio::test]
async fn a_data_directory_has_one_server() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let second = server.fails(&[]).await;
    assert!(!second.status.success());
    assert!(second.stderr.contains("errand.db"), "{}", second.stderr);
    assert_eq!(server.health("").await, Some(ServingStatus::Serving));
}

#[tokio::test]
async fn all_bad_settings_are_reported_at_once() {
    let Some(server) = Server::prepare(Image::Busybox).await else { return };
    let config = server.file("errand.toml", "colour = \"red\"\nstall_after = \"soon\"\n");
    let ended = server
        .fails(&["--config", &config, "--max-running-per-bot", "0", "--runtime", "vms", "--default-timeout", "48h"])
        .await;
    assert_eq!(ended.status.code(), Some(64), "{}", ended.stderr);
    for part in ["colour", "stall_after", "soon", "--max-running-per-bot", "--runtime", "vms", "default_timeout 2d"] {
        assert!(ended.stderr.contains(part), "{part} is not in: {}", ended.stderr);
    }
    let ended = server.fails(&["--no-such-flag"]).await;
    assert_eq!(ended.status.code(), Some(64), "{}", ended.stderr);
    let tokens = server.file("tokens.toml", "[[tokens]]\nsha256 = 1\n");
    let ended = server.fails(&["--tokens-file", &tokens]).await;
    assert_eq!(ended.status.code(), Some(64), "{}", ended.stderr);
    assert!(ended.stderr.contains("tenant") && ended.stderr.contains("sha256"), "{}", ended.stderr);
    assert!(!server.database().exists(), "nothing was made");
}

#[tokio::test]
async fn without_tokens_server_listens_on_loopback_only() {
    let Some(server) = Server::prepare(Image::Busybox).await else { return };
    let ended = server.fails(&["--listen", "0.0.0.0:0"]).await;
    assert_ne!(ended.status.code(), Some(0));
}

#[tokio::test]
async fn commands_survive_a_graceful_server_restart() {
    let Some(mut server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session
        .start("echo one; until [ -e /workspace/two ]; do sleep 0.1; done; echo two; until [ -e /workspace/go ]; do sleep 0.1; done; exit 6")
        .await;
    session.until_output(&task, "one\n").await;
    let sandbox = session.sandbox().await.unwrap().container_id;
    // Open streams and waits do not delay the shutdown.
    let mut subscription = {
        let request = SubscribeRequest { bot_id: session.bot.clone(), ..Default::default() };
        session.notifications().subscribe(request).await.unwrap().into_inner()
    };
    let waiting = tokio::spawn({
        let (session, task_id) = (session.clone(), task.task_id.clone());
        async move { session.tasks().wait_task(WaitTaskRequest { task_id, ..Default::default() }).await }
    });
    let (status, took) = server.terminate().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let ended_stream = soon("the stream ends", subscription.message()).await;
    assert_eq!(ended_stream.unwrap_err().code(), Code::Unavailable);
    assert_eq!(waiting.await.unwrap().unwrap_err().code(), Code::Unavailable);

    server.ground.exec(&sandbox, "touch /workspace/two").await;
    server.launch().await;
    assert_eq!(session.get(&task).await.status(), TaskStatus::Running);
    session.until_output(&task, "one\ntwo\n").await;
    session.exec("touch /workspace/go").await;
    let task = session.finished(&task).await;
    assert_eq!(ended(&task), "exited 6");
    assert_eq!(session.told_of(&task).await, ["completed"]);
}

#[tokio::test]
async fn server_stops_commands_at_exit_if_configured() {
    let Some(mut server) = Server::on(Image::Busybox, &["--stop-tasks-on-exit"]).await else { return };
    let session = server.session("bot", "session");
    let polite = session.running("sleep 7400").await;
    let deaf = session.start("trap '' TERM; echo ready; while :; do sleep 0.74; done").await;
    session.until_output(&deaf, "ready").await;
    let sandbox = session.sandbox().await.unwrap().container_id;
    let (status, took) = server.terminate().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let left = server.ground.exec(&sandbox, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
    assert!(!left.contains("7400") && !left.contains("0.74"), "{left}");
    server.launch().await;
    assert_eq!(ended(&session.get(&polite).await), "stopped server_shutdown 15");
    assert_eq!(ended(&session.get(&deaf).await), "stopped server_shutdown 9");
    assert_eq!(session.told().await.len(), 2);
}

#[tokio::test]
async fn server_starts_without_engine_and_reports_it() {
    let Some(mut server) = Server::prepare(Image::Busybox).await else { return };
    let Some(_) = server.ground.docker() else { return };
    let proxy = crate::support::proxy::Proxy::open();
    proxy.cut();
    server.flags.extend(["--docker-host".to_owned(), proxy.url()]);
    server.launch().await;
    let session = server.session("bot", "session");
    let status = session.try_start(session.request("exit 3")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(!status.message().is_empty());
    proxy.heal();
    assert_eq!(ended(&session.run("exit 3").await), "exited 3");
    assert_eq!(session.told().await.len(), 1, "what was refused was not accepted");
}
