//! Which runtime a server chooses, and what it does about sandboxes of another runtime.

use errand_proto::v1::*;
use tonic::Code;

use crate::support::{
    client::ended,
    docker::{self, Image},
    embedded,
    server::Server,
};

/// An address without an engine.
const NOWHERE: &str = "unix:///no/engine/here.sock";

/// A server on Docker, on a machine that can also make embedded sandboxes. None: a requirement is missing, and the test is skipped.
async fn on_docker() -> Option<Server> {
    embedded::machine().await?;
    let server = Server::on(Image::Debian, &[]).await?;
    server.ground.docker().map(|_| server)
}

async fn again(server: &mut Server, runtime: &str) {
    server.kill();
    server.set("--runtime", runtime);
    server.launch().await;
}

#[tokio::test]
async fn sandboxes_of_another_runtime_are_left_alone() {
    let Some(mut server) = on_docker().await else { return };
    assert_eq!(server.runtime, "docker");
    server.session("bot", "session").run("echo kept > /workspace/file").await;

    again(&mut server, "embedded").await;
    assert_eq!(server.runtime, "embedded");
    let session = server.session("bot", "session");
    assert_eq!(session.sandbox().await.unwrap().state(), SandboxState::Unknown);
    let delete = DeleteSandboxRequest { bot_id: session.bot.clone() };
    let stop = StopSandboxRequest { bot_id: session.bot.clone() };
    let refusals = [
        session.ensure(None).await.unwrap_err(),
        session.try_start(session.request("true")).await.unwrap_err(),
        session.sandboxes().delete_sandbox(delete).await.unwrap_err(),
        session.sandboxes().stop_sandbox(stop).await.unwrap_err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal}");
        assert!(refusal.message().contains("--runtime docker"), "{refusal}");
    }

    // The stored sandboxes decide, not the runtime that answers first.
    again(&mut server, "auto").await;
    assert_eq!(server.runtime, "docker");
    let session = server.session("bot", "session");
    assert_eq!(ended(&session.run("cat /workspace/file").await), "exited 0");
}

#[tokio::test]
async fn tasks_of_another_runtime_get_no_verdict() {
    let Some(mut server) = on_docker().await else { return };
    let task = server.session("bot", "session").running("sleep 1000").await;
    server.kill();

    server.set("--runtime", "embedded");
    let ended = server.fails(&[]).await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("start the server with --runtime docker"), "{}", ended.stderr);

    // With `auto`, the server waits for the engine that has the sandboxes.
    server.set("--runtime", "auto");
    server.set("--docker-host", NOWHERE);
    server.spawn().await;
    assert_eq!(server.runtime, "docker");
    assert!(server.log().contains("the store has sandboxes of it"), "{}", server.log());
    server.kill();

    let host = docker::host().unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    server.set("--docker-host", &host);
    server.launch().await;
    let session = server.session("bot", "session");
    assert_eq!(session.get(&task).await.status(), TaskStatus::Running);
    session.stop(&task, None).await;
}

#[tokio::test]
async fn server_without_an_engine_makes_embedded_sandboxes() {
    let Some(mut server) = on_docker().await else { return };
    server.set("--docker-host", NOWHERE);
    server.set("--image", "host");
    again(&mut server, "auto").await;
    assert_eq!(server.runtime, "embedded");
    let session = server.session("bot", "session");
    let task = session.run("id -u; exit 3").await;
    assert_eq!(ended(&task), "exited 3");
    assert_ne!(session.text(&task).await, "0\n");
    let delete = DeleteSandboxRequest { bot_id: session.bot.clone() };
    session.sandboxes().delete_sandbox(delete).await.unwrap();
}
