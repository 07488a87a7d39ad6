//! A command's timeout, measured from its real start.

use std::time::Duration;

use errand_proto::v1::{StartTaskRequest, TaskStatus, outcome::Kind};

use crate::{
    on_both_images,
    support::{
        client::{duration, ended, time},
        docker::Image,
        server::Server,
    },
};

on_both_images!(timeout_stops_the_whole_process_tree);

async fn timeout_stops_the_whole_process_tree(image: Image) {
    let Some(server) = Server::on(image, &["--stop-grace", "500ms"]).await else { return };
    let session = server.session("bot", "session");
    for command in ["sleep 7101", "trap '' TERM; setsid sleep 7102 & sleep 7103; sleep 7103"] {
        let task = session.run_as(StartTaskRequest { timeout: duration(1.0), ..session.request(command) }).await;
        assert_eq!((ended(&task).as_str(), task.status()), ("timed_out", TaskStatus::TimedOut), "{command}");
        let outcome = task.outcome.clone().unwrap();
        assert_eq!(outcome.shell_exit_code, Some(124));
        let Some(Kind::TimedOut(how)) = outcome.kind else { unreachable!("it was described so") };
        assert_eq!(how.after, duration(1.0));
        let ran = time(task.finished_at).duration_since(time(task.started_at)).unwrap();
        // The timeout is measured inside the sandbox, but the record holds the times when the server was told of start and end. The report
        // of the start may take longer than that of the end.
        assert!(ran >= Duration::from_millis(900), "{ran:?}");
        assert_eq!(session.processes("sleep 710").await, 0);
        assert_eq!(session.told_of(&task).await, ["completed"]);
    }
}

#[tokio::test]
async fn timeout_runs_while_the_server_is_down() {
    let Some(mut server) = Server::on(Image::Busybox, &["--stop-grace", "500ms"]).await else { return };
    let session = server.session("bot", "session");
    let request = StartTaskRequest { timeout: duration(4.0), ..session.request("sleep 300") };
    let task = session.start_as(request).await;
    let running = session.until(&task, TaskStatus::Running).await;
    server.restart().await;
    assert_eq!(session.get(&task).await.started_at, running.started_at);
    let task = session.finished(&task).await;
    assert_eq!(ended(&task), "timed_out");
    let ran = time(task.finished_at).duration_since(time(running.started_at)).unwrap();
    // As above: the record holds the times when the server was told of start and end.
    assert!((Duration::from_millis(3900)..Duration::from_secs(8)).contains(&ran), "{ran:?}");
}

#[tokio::test]
async fn elapsed_timeout_applies_at_server_start() {
    let Some(mut server) = Server::on(Image::Busybox, &["--stop-grace", "500ms"]).await else { return };
    let session = server.session("bot", "session");
    let gate = "until [ -e /workspace/passed ]; do sleep 0.1; done; sleep 300";
    let request = StartTaskRequest { timeout: duration(2.0), ..session.request(gate) };
    let task = session.start_as(request).await;
    session.until(&task, TaskStatus::Running).await;
    let sandbox = session.sandbox().await.unwrap().container_id;
    server.kill();
    // The wait uses the sandbox's own clock.
    server.ground.exec(&sandbox, "sleep 2.5").await;
    server.launch().await;
    let task = session.finished(&task).await;
    assert_eq!(ended(&task), "timed_out");
    let ran = time(task.finished_at).duration_since(time(task.started_at)).unwrap();
    assert!(ran < Duration::from_secs(20), "{ran:?}");
    assert_eq!(session.told_of(&task).await, ["completed"]);
}
