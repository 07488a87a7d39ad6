//! WaitTask: until the end, a stall, a silence, or the wait's own timeout.

use std::time::{Duration, Instant};

use errand_proto::v1::*;

use crate::support::{
    client::{Session, duration, ended},
    docker::Image,
    server::Server,
    wait::soon,
};

async fn wait(session: &Session, request: WaitTaskRequest) -> (WaitResult, Task) {
    let waited = soon("a wait ends", session.tasks().wait_task(request)).await.unwrap().into_inner();
    (waited.result(), waited.task.unwrap())
}

fn about(task: &Task) -> WaitTaskRequest {
    WaitTaskRequest { task_id: task.task_id.clone(), ..Default::default() }
}

#[tokio::test]
async fn wait_ends_with_the_task_and_acknowledges() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.start("sleep 0.3; exit 2").await;
    let (result, ended_task) = wait(&session, about(&task)).await;
    assert_eq!((result, ended(&ended_task).as_str()), (WaitResult::Finished, "exited 2"));
    assert_eq!(session.drain(Some(1.0)).await.notifications.len(), 1);
    // The task is already over: the call returns at once.
    let request = WaitTaskRequest { acknowledge: true, ..about(&task) };
    assert_eq!(wait(&session, request).await, (WaitResult::Finished, ended_task));
    let told = session.told().await;
    assert!(told.len() == 1 && told[0].acknowledged_at.is_some(), "{told:?}");
}

#[tokio::test]
async fn wait_timeout_does_not_stop_the_task() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.running("sleep 300").await;
    let begun = Instant::now();
    let request = WaitTaskRequest { timeout: duration(0.5), acknowledge: true, ..about(&task) };
    let (result, task) = wait(&session, request).await;
    assert_eq!((result, task.status()), (WaitResult::Timeout, TaskStatus::Running));
    assert!(begun.elapsed() >= Duration::from_millis(500));
    // A timeout of 0 only reads the current state.
    let request = WaitTaskRequest { timeout: duration(0.0), ..about(&task) };
    assert_eq!(wait(&session, request).await.0, WaitResult::Timeout);
    session.stop(&task, Some(0.0)).await;
}

#[tokio::test]
async fn wait_ends_when_output_becomes_idle() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.start("for n in 1 2 3 4; do echo starting $n; sleep 0.4; done; echo listening; sleep 300").await;
    let request = WaitTaskRequest { until_idle: duration(1.0), ..about(&task) };
    let (result, idle) = wait(&session, request.clone()).await;
    assert_eq!((result, idle.status()), (WaitResult::Idle, TaskStatus::Running));
    assert!(idle.output_preview.ends_with("listening"), "{idle:?}");
    session.stop(&task, Some(0.0)).await;

    // A command without output never becomes ready.
    let silent = session.running("sleep 300").await;
    let request = WaitTaskRequest { timeout: duration(2.0), until_idle: duration(1.0), ..about(&silent) };
    assert_eq!(wait(&session, request).await.0, WaitResult::Timeout);
    session.stop(&silent, Some(0.0)).await;
}

#[tokio::test]
async fn wait_ends_at_a_stall_if_requested() {
    let flags = ["--stall-after", "1s", "--stall-check-interval", "200ms"];
    let Some(server) = Server::on(Image::Busybox, &flags).await else { return };
    let session = server.session("bot", "session");
    let task = session.start("printf 'Password: '; mkfifo /workspace/go; read -r passed </workspace/go").await;
    let request = WaitTaskRequest { until_stalled: true, ..about(&task) };
    let (result, stalled) = wait(&session, request.clone()).await;
    assert_eq!((result, stalled.status()), (WaitResult::Stalled, TaskStatus::Running));
    assert_eq!(stalled.stall.unwrap().last_line, "Password:");
    // The task is already stalled: the call returns at once. Without the stall condition, it waits for the end.
    assert_eq!(wait(&session, request).await.0, WaitResult::Stalled);
    let on = tokio::spawn({
        let (session, task) = (session.clone(), task.clone());
        async move { wait(&session, about(&task)).await }
    });
    session.exec("echo go >/workspace/go").await;
    assert_eq!(on.await.unwrap().0, WaitResult::Finished);
}

#[tokio::test]
async fn all_waiters_of_a_task_are_answered() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.start("until [ -e /workspace/go ]; do sleep 0.1; done; exit 6").await;
    let waits: Vec<_> = (0..50)
        .map(|_| {
            let (session, task) = (session.clone(), task.clone());
            tokio::spawn(async move { wait(&session, about(&task)).await })
        })
        .collect();
    session.until(&task, TaskStatus::Running).await;
    session.exec("touch /workspace/go").await;
    for waiting in waits {
        let (result, task) = waiting.await.unwrap();
        assert_eq!((result, ended(&task).as_str()), (WaitResult::Finished, "exited 6"));
    }
}
