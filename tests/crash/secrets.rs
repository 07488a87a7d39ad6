//! The server is killed while tasks hold secrets, and its key is lost.

use std::fs;

use errand_proto::v1::*;

use crate::{
    on_both_images,
    support::{
        client::{Session, ended},
        docker::Image,
        server::Server,
    },
};

on_both_images!(secrets_survive_kills_before_and_after_launch, lost_key_launches_nothing_and_shows_nothing);

const SECRET: &str = "hunter2-abcdef";

/// Waits for a file, and then prints the secret.
fn request(session: &Session, gate: &str) -> StartTaskRequest {
    let command = format!("until [ -e /workspace/{gate} ]; do sleep 0.1; done; echo \"$KEY\"; [ \"$KEY\" = {SECRET} ]");
    StartTaskRequest { secret_env: [("KEY".to_owned(), SECRET.to_owned())].into(), ..session.request(&command) }
}

/// A running task, and tasks that wait for their launch.
async fn tasks(session: &Session) -> (Task, Vec<Task>) {
    session.ensure(None).await.unwrap();
    let running = session.start_as(request(session, "go")).await;
    session.until(&running, TaskStatus::Running).await;
    let requests = (0..24).map(|_| session.start_as(request(session, "go")));
    let others = futures_util::future::join_all(requests).await;
    (running, others)
}

fn database(server: &Server) -> String {
    let read = |suffix| fs::read(format!("{}{suffix}", server.database().display())).unwrap_or_default();
    String::from_utf8_lossy(&[read(""), read("-wal")].concat()).into_owned()
}

async fn secrets_survive_kills_before_and_after_launch(image: Image) {
    let Some(mut server) = Server::on(image, &["--launch-concurrency", "1"]).await else { return };
    let session = server.session("bot", "session");
    let (running, others) = tasks(&session).await;
    server.kill();
    assert!(!database(&server).contains("hunter2"));
    server.launch().await;
    session.exec("touch /workspace/go").await;
    let (mut launched, mut cut) = (0, 0);
    for task in std::iter::once(&running).chain(&others) {
        let task = session.finished(task).await;
        match ended(&task).as_str() {
            "exited 0" => {
                launched += 1;
                assert_eq!(session.text(&task).await, "**************\n");
                assert_eq!(task.output_preview, "**************");
            }
            // The kill came in the middle of this launch.
            "failed_to_start LAUNCH_INTERRUPTED" | "lost LAUNCH_INTERRUPTED" => cut += 1,
            other => panic!("{other}: {task:?}"),
        }
        assert!(task.command.ends_with("[ \"$KEY\" = [masked] ]"), "{}", task.command);
    }
    assert!(launched > 20 && cut <= 2, "{launched} launched, {cut} cut");
    server.restart().await;
    assert_eq!(session.text(&running).await, "**************\n", "by its key, a finished task's output is masked");
    assert!(!format!("{:?}", session.told().await).contains("hunter2"));
    assert!(!database(&server).contains("hunter2") && !server.log().contains("hunter2"));
}

async fn lost_key_launches_nothing_and_shows_nothing(image: Image) {
    let Some(mut server) = Server::on(image, &["--launch-concurrency", "1"]).await else { return };
    let session = server.session("bot", "session");
    let (running, others) = tasks(&session).await;
    let plain = session.start("echo plain; until [ -e /workspace/go ]; do sleep 0.1; done").await;
    server.kill();
    fs::remove_file(server.database().with_file_name("secrets.key")).unwrap();
    server.launch().await;
    session.exec("touch /workspace/go").await;
    let running = session.finished(&running).await;
    assert_eq!(ended(&running), "exited 0", "a command that runs goes on");
    assert_eq!(
        (session.text(&running).await, running.output_preview.as_str()),
        ("**************\n".to_owned(), "[masked]")
    );
    let mut refused = 0;
    for task in &others {
        let task = session.finished(task).await;
        let Some(outcome::Kind::FailedToStart(failed)) = task.outcome.clone().unwrap().kind else { continue };
        if failed.failure() == StartFailure::Refused {
            refused += 1;
            assert!(failed.message.contains("is not in the key file"), "{}", failed.message);
            assert_eq!(task.started_at, None);
        }
    }
    assert!(refused > 10, "{refused}");
    assert_eq!(ended(&session.finished(&plain).await), "exited 0");
    assert_eq!(session.text(&plain).await, "plain\n", "other tasks are as before");
    let again = session.run_as(request(&session, "go")).await;
    assert_eq!(ended(&again), "exited 0", "the new key serves new tasks");
    assert!(server.log().contains("cannot be decrypted"));
}
