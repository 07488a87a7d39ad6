//! Sandboxes that do not answer, or lie: their own tasks may end as *lost*, and no other bot is delayed.

use std::time::Duration;

use bollard::query_parameters::KillContainerOptions;
use errand_proto::v1::{StartTaskRequest, Task, TaskStatus};
use tonic::Code;

use crate::support::{
    client::{Session, described, duration, ended},
    docker::Image,
    server::Server,
    wait::{eventually, within},
};

/// Sends a signal to every process whose name matches a grep pattern: [`BRIDGE`] covers the bridge process and the spawner that forks
/// shims.
async fn signal_bridge(session: &Session, signal: &str, name: &str) {
    let container = session.sandbox().await.unwrap().container_id;
    session.ground.exec(&container, &signal_script(signal, name)).await;
}

fn signal_script(signal: &str, name: &str) -> String {
    format!("kill -{signal} $(grep -lx '{name}' /proc/[0-9]*/comm 2>/dev/null | cut -d/ -f3)")
}

const BRIDGE: &str = "errand-\\(bridge\\|spawner\\)";
const SPAWNER: &str = "errand-spawner";

fn gate(name: &str) -> String {
    format!("until [ -e /workspace/{name} ]; do sleep 0.05; done")
}

#[tokio::test]
async fn hung_bridge_delays_no_other_bot_after_restart() {
    let Some(mut server) = Server::on(Image::Debian, &[]).await else { return };
    let (hung, sound) = (server.session("hung", "session"), server.session("sound", "session"));
    let lost = hung.running("sleep 7800; exit 3").await;
    let goes_on = hung.running(&format!("{}; exit 4", gate("go"))).await;
    let told_before = hung.run("exit 5").await;
    let kept = sound.running(&format!("{}; exit 6", gate("go"))).await;
    let container = hung.sandbox().await.unwrap().container_id;
    server.kill();
    server.ground.exec(&container, &signal_script("STOP", BRIDGE)).await;
    server.launch().await;

    // The other bot is answered as fast as before.
    assert_eq!(sound.get(&kept).await.status(), TaskStatus::Running);
    sound.exec("touch /workspace/go").await;
    assert_eq!(ended(&sound.finished(&kept).await), "exited 6");
    assert_eq!(ended(&sound.run("exit 7").await), "exited 7");
    // Notifications stored for the hung bot are delivered.
    let told = hung.told().await;
    assert!(told.iter().any(|told| told.task_id == told_before.task_id), "{told:?}");
    // Calls about the hung bot return within a bounded time, and its tasks can be stopped.
    let stopped = within(Duration::from_secs(30), "calls about the hung bot are answered", async || {
        let request = errand_proto::v1::GetTaskRequest { task_id: lost.task_id.clone(), ..Default::default() };
        match hung.tasks().get_task(request).await {
            Ok(answer) => answer.into_inner().task,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                None
            }
        }
    })
    .await;
    assert_eq!(stopped.status(), TaskStatus::Running);
    assert_eq!(ended(&hung.stop(&lost, Some(0.0)).await), "lost SANDBOX_UNRESPONSIVE");
    // The server cannot know how the command ended, but the command was killed.
    assert_eq!(hung.processes("sleep 7800").await, 0);
    assert_eq!(hung.told_of(&lost).await, ["completed"]);
    // When the bridge process answers again, the server uses it again.
    signal_bridge(&hung, "CONT", BRIDGE).await;
    hung.exec("touch /workspace/go").await;
    assert_eq!(ended(&hung.finished(&goes_on).await), "exited 4");
}

#[tokio::test]
async fn unheard_launch_obeys_timeout_and_stop() {
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    signal_bridge(&session, "STOP", SPAWNER).await;
    let proof = |name: &str| session.request(&format!("touch /workspace/{name}; sleep 100"));
    let timed = session.start_as(StartTaskRequest { timeout: duration(3.0), ..proof("timed") }).await;
    let stopped = session.start_as(proof("stopped")).await;
    assert_eq!(session.get(&stopped).await.status(), TaskStatus::Starting);
    let stopped = session.stop(&stopped, None).await;
    let timed = session.finished(&timed).await;
    for task in [&timed, &stopped] {
        assert_eq!(ended(task), "lost LAUNCH_INTERRUPTED");
        assert_eq!(session.told_of(task).await, ["completed"]);
    }
    // A fenced task is not launched later either.
    signal_bridge(&session, "CONT", SPAWNER).await;
    let next = session.run("ls /workspace; exit 8").await;
    assert_eq!((ended(&next).as_str(), session.text(&next).await.as_str()), ("exited 8", ""));
}

#[tokio::test]
async fn stuck_launches_delay_no_other_bot() {
    let Some(server) = Server::on(Image::Debian, &["--launch-concurrency", "2"]).await else { return };
    let (stuck, sound) = (server.session("stuck", "session"), server.session("sound", "session"));
    stuck.ensure(None).await.unwrap();
    sound.ensure(None).await.unwrap();
    signal_bridge(&stuck, "STOP", BRIDGE).await;
    let starts = (0..40).map(|_| stuck.start("true"));
    let tasks: Vec<Task> = futures_util::future::join_all(starts).await;
    let done = sound.run("exit 9").await;
    assert_eq!(ended(&done), "exited 9");
    for task in &tasks {
        let status = stuck.get(task).await.status();
        assert!([TaskStatus::Queued, TaskStatus::Starting].contains(&status), "the other did not wait: {status:?}");
    }
    signal_bridge(&stuck, "CONT", BRIDGE).await;
    for task in &tasks {
        let end = ended(&stuck.finished(task).await);
        assert!(
            ["exited 0", "failed_to_start LAUNCH_INTERRUPTED", "lost LAUNCH_INTERRUPTED"].contains(&end.as_str()),
            "{end}"
        );
    }
}

#[tokio::test]
async fn forged_exit_file_ends_no_task() {
    let Some(mut server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    let forge = "for d in /tmp/errand/*/; do
                   read -r a b nonce rest <$d/exit.part && printf 'errand 1 %s exited 0\\n' $nonce >$d/exit
                 done; echo forged";
    let task = session.running(&format!("{forge}; {}; exit 7", gate("go"))).await;
    session.until_output(&task, "forged").await;
    // The state stays right with a running server, across a restart of the server, and when the bridge process is killed meanwhile.
    assert_eq!(session.get(&task).await.status(), TaskStatus::Running);
    let container = session.sandbox().await.unwrap().container_id;
    server.kill();
    server.ground.exec(&container, &signal_script("KILL", "errand-bridge")).await;
    server.launch().await;
    assert_eq!(session.until(&task, TaskStatus::Running).await.status(), TaskStatus::Running);
    session.exec("touch /workspace/go").await;
    assert_eq!(ended(&session.finished(&task).await), "exited 7");
    // If the shim is gone too, a result that exists too early is ignored, and no process of the command is left.
    let task = session.running(&format!("{forge}; sleep 7700")).await;
    session.until_output(&task, "forged").await;
    session.exec(&format!("kill -9 $(head -n 1 /tmp/errand/{}/processes | cut -d' ' -f1)", task.task_id)).await;
    let end = ended(&session.finished(&task).await);
    assert!(["lost EXIT_FILE_UNREADABLE", "lost SUPERVISOR_KILLED"].contains(&end.as_str()), "{end}");
    assert_eq!(session.processes("sleep 7700").await, 0);
}

#[tokio::test]
async fn exit_file_of_stopped_sandbox_is_read() {
    let Some(mut server) = Server::on(Image::Debian, &[]).await else { return };
    if server.ground.docker().is_none() {
        // The server does not read the files of an embedded sandbox that does not run.
        return;
    }
    let session = server.session("bot", "session");
    let task = session.running(&format!("echo some output; {}; exit 5", gate("go"))).await;
    let container = session.sandbox().await.unwrap().container_id;
    server.kill();
    let wait = format!("touch /workspace/go; until [ -e /tmp/errand/{}/exit ]; do sleep 0.1; done", task.task_id);
    server.ground.exec(&container, &wait).await;
    server.ground.stop(&container).await;
    server.launch().await;
    let task = session.finished(&task).await;
    assert_eq!((ended(&task).as_str(), task.output_bytes), ("exited 5", 12));
}

#[tokio::test]
async fn task_with_a_foreign_change_is_recovered() {
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.running(&format!("{}; exit 6", gate("go"))).await;
    let other = rusqlite::Connection::open(server.database()).unwrap();
    other.busy_timeout(Duration::from_secs(10)).unwrap();
    let changed = other.execute("UPDATE tasks SET revision = revision + 1 WHERE id = ?", [&task.task_id]);
    assert_eq!(changed, Ok(1));
    session.exec("touch /workspace/go").await;
    assert_eq!(ended(&session.finished(&task).await), "exited 6");
    assert_eq!(session.told_of(&task).await, ["completed"]);
    eventually("the breakdown is logged", async || {
        server.log().contains("another writer changed the task's record").then_some(())
    })
    .await;
}

#[tokio::test]
async fn proven_launch_is_never_called_unlaunched() {
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let session = server.session("bot", "session");
    let mut tasks = Vec::new();
    for delay in 0..12 {
        let container = session.ensure(None).await.unwrap().container_id;
        let task = session.start(&format!("echo ran >/workspace/proof-{delay}; sleep 100")).await;
        // Each time a few calls later in the launch.
        for _ in 0..delay {
            session.get(&task).await;
        }
        docker.kill_container(&container, None::<KillContainerOptions>).await.unwrap();
        tasks.push((delay, session.finished(&task).await));
    }
    session.ensure(None).await.unwrap();
    let proofs = session.exec("ls /workspace").await;
    for (delay, task) in tasks {
        let end = ended(&task);
        let ran = proofs.lines().any(|line| line == format!("proof-{delay}"));
        assert!(end.starts_with("lost ") || (!ran && end.starts_with("failed_to_start ")), "{delay}: {ran} {end}");
    }
}

#[tokio::test]
async fn late_result_is_announced_beside_the_loss() {
    let Some(mut server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.running(&format!("{}; exit 5", gate("go"))).await;
    let container = session.sandbox().await.unwrap().container_id;
    let directory = format!("/tmp/errand/{}", task.task_id);
    server.kill();
    // The result exists, but not where the server looks in a stopped sandbox.
    let hide = format!(
        "touch /workspace/go; until [ -e {directory}/exit ]; do sleep 0.1; done; mv {directory} /workspace/hidden"
    );
    server.ground.exec(&container, &hide).await;
    server.ground.stop(&container).await;
    server.launch().await;
    let lost = session.finished(&task).await;
    assert_eq!(ended(&lost), "lost SANDBOX_STOPPED");
    session.ensure(None).await.unwrap();
    session.exec(&format!("mv /workspace/hidden {directory}")).await;
    // Late results are looked for once in each life of a sandbox.
    server.ground.stop(&container).await;
    session.ensure(None).await.unwrap();
    let told = eventually("the late result is announced", async || {
        let told = session.told_of(&task).await;
        (told.len() == 2).then_some(told)
    })
    .await;
    assert_eq!(told, ["completed", "late_outcome"]);
    let now = session.get(&task).await;
    assert_eq!((ended(&now), described(now.late_outcome.as_ref().unwrap())), (ended(&lost), "exited 5".to_owned()));
}
