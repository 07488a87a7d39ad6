//! The container engine is killed and started again, for real.

use crate::support::{docker::Image, engine::PrivateEngine, server::Server, wait::eventually};
use errand_proto::v1::TaskStatus;

#[tokio::test]
async fn outcomes_survive_a_kill_of_the_engine() {
    let Some(mut server) = Server::prepare(Image::Busybox).await else { return };
    let Some(_) = server.ground.docker() else { return };
    let Some(mut engine) = PrivateEngine::with(Image::Busybox).await else { return };
    server.flags.push(format!("--docker-host={}", engine.url()));
    server.launch().await;
    let session = server.session("a", "s");

    let running = session.running("until [ -e /tmp/go ]; do sleep 0.1; done; echo went on; exit 9").await;
    let ending = session.running("sleep 2; head -c 300000 /dev/zero; exit 4").await;
    engine.kill();
    let refused =
        eventually("the server notices", async || session.try_start(session.request("true")).await.err()).await;
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    assert_eq!(session.get(&running).await.status(), TaskStatus::Running, "not being able to look is no outcome");

    engine.start_again().await;
    let ending = session.finished(&ending).await;
    assert_eq!(crate::support::client::ended(&ending), "exited 4");
    assert_eq!(ending.output_bytes, 300_000);
    let go = eventually("the engine is found again", async || {
        session.try_start(session.request("touch /tmp/go")).await.ok()
    })
    .await;
    session.finished(&go.task.unwrap()).await;
    let running = session.finished(&running).await;
    assert_eq!(crate::support::client::ended(&running), "exited 9");
    assert_eq!(session.text(&running).await, "went on\n");
    assert_eq!(session.told_of(&running).await, ["completed"]);
    assert_eq!(session.told_of(&ending).await, ["completed"]);
    session
        .sandboxes()
        .delete_sandbox(errand_proto::v1::DeleteSandboxRequest { bot_id: server.bot("a") })
        .await
        .unwrap();
}
