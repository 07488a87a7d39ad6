//! RunTask: a command in the foreground that may move to the background.

use std::time::{Duration, Instant};

use errand_proto::v1::{run_task_response::Event, *};
use tonic::Streaming;

use crate::{
    on_both_images,
    support::{
        client::{Session, bytes, duration, ended, is_terminal, text},
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(run_streams_from_acceptance_to_end);

async fn run(session: &Session, request: RunTaskRequest) -> (Task, Streaming<RunTaskResponse>) {
    let mut stream = session.tasks().run_task(request).await.unwrap().into_inner();
    match next(&mut stream).await {
        Some(Event::Accepted(task)) => (task, stream),
        other => panic!("not accepted first: {other:?}"),
    }
}

async fn next(stream: &mut Streaming<RunTaskResponse>) -> Option<Event> {
    soon("more of a stream comes", stream.message()).await.unwrap().map(|response| response.event.unwrap())
}

async fn run_streams_from_acceptance_to_end(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let request = RunTaskRequest {
        start: Some(session.request("echo one; until [ -e /workspace/go ]; do sleep 0.05; done; echo two; exit 9")),
        ..Default::default()
    };
    let (accepted, mut stream) = run(&session, request).await;
    let mut seen = Vec::new();
    let finished = loop {
        match next(&mut stream).await.expect("the stream goes on") {
            Event::Output(part) => {
                assert_eq!(part.offset, i64::try_from(seen.len()).unwrap());
                seen.extend(bytes(&part));
                if seen == b"one\n" {
                    session.exec("touch /workspace/go").await;
                }
            }
            Event::Finished(task) => break task,
            other => panic!("not expected: {other:?}"),
        }
    };
    assert_eq!(next(&mut stream).await, None);
    assert_eq!((seen.as_slice(), ended(&finished).as_str()), (&b"one\ntwo\n"[..], "exited 9"));
    assert_eq!(finished.task_id, accepted.task_id);
    assert_eq!(session.get(&accepted).await, finished);
    // No client acknowledged the end: the session is notified.
    assert_eq!(session.drain(None).await.notifications.len(), 1);
}

#[tokio::test]
async fn slow_command_moves_to_the_background() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    let request = RunTaskRequest {
        start: Some(session.request("echo one; until [ -e /workspace/go ]; do sleep 0.05; done; echo two")),
        background_after: duration(1.0),
        on_disconnect: DisconnectAction::Stop.into(),
        format: OutputFormat::Text.into(),
        ..Default::default()
    };
    let begun = Instant::now();
    let (accepted, mut stream) = run(&session, request).await;
    let mut seen = String::new();
    let backgrounded = loop {
        match next(&mut stream).await.expect("the stream goes on") {
            Event::Output(part) => seen.push_str(&text(&part)),
            Event::Backgrounded(task) => break task,
            other => panic!("not expected: {other:?}"),
        }
    };
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(10));
    assert_eq!(next(&mut stream).await, None);
    assert_eq!((seen.as_str(), backgrounded.status()), ("one\n", TaskStatus::Running));
    // The stream ended by itself: dropping it must not stop the task.
    drop(stream);
    session.exec("touch /workspace/go").await;
    let task = session.finished(&accepted).await;
    assert_eq!(ended(&task), "exited 0");
    assert_eq!(session.text(&task).await, "one\ntwo\n");
    assert_eq!(session.told_of(&task).await, ["completed"]);
}

#[tokio::test]
async fn noisy_command_moves_to_the_background() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    let start = Some(session.request("while :; do echo 0123456789; done"));
    let request = RunTaskRequest { start, background_after: duration(1.0), ..Default::default() };
    let (accepted, mut stream) = run(&session, request).await;
    loop {
        match next(&mut stream).await.expect("the stream goes on") {
            Event::Output(_) => {}
            Event::Backgrounded(_) => break,
            other => panic!("not expected: {other:?}"),
        }
    }
    assert_eq!(ended(&session.stop(&accepted, Some(0.0)).await), "stopped request 9");
}

#[tokio::test]
async fn task_continues_when_its_client_disconnects() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    for on_disconnect in [DisconnectAction::Unspecified, DisconnectAction::Continue] {
        let request = RunTaskRequest {
            start: Some(session.request("echo one; until [ -e /workspace/go ]; do sleep 0.05; done; echo two; exit 4")),
            on_disconnect: on_disconnect.into(),
            ..Default::default()
        };
        session.run("rm -f /workspace/go").await;
        let (accepted, mut stream) = run(&session, request).await;
        assert!(matches!(next(&mut stream).await, Some(Event::Output(_))));
        drop(stream);
        session.exec("touch /workspace/go").await;
        let task = session.finished(&accepted).await;
        assert_eq!(ended(&task), "exited 4");
        assert_eq!(session.text(&task).await, "one\ntwo\n");
    }
}

#[tokio::test]
async fn task_stops_on_disconnect_if_requested() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let request = RunTaskRequest {
        start: Some(session.request("echo one; sleep 7200")),
        on_disconnect: DisconnectAction::Stop.into(),
        ..Default::default()
    };
    let (accepted, mut stream) = run(&session, request.clone()).await;
    assert!(matches!(next(&mut stream).await, Some(Event::Output(_))));
    drop(stream);
    let task = session.finished(&accepted).await;
    assert!(ended(&task).starts_with("stopped disconnect"), "{task:?}");
    assert_eq!(session.processes("sleep 7200").await, 0);

    // The same holds for a client that disconnects before the first answer.
    let start = Some(StartTaskRequest { request_id: "hasty".to_owned(), ..session.request("sleep 7201") });
    let hasty = tokio::spawn({
        let session = session.clone();
        async move { session.tasks().run_task(RunTaskRequest { start, ..request }).await.map(|_| ()) }
    });
    let list = ListTasksRequest { bot_id: session.bot.clone(), ..Default::default() };
    eventually("the task is known", async || {
        let listed = session.listed(list.clone()).await;
        listed.into_iter().any(|task| task.request_id == "hasty").then_some(())
    })
    .await;
    hasty.abort();
    let _ = hasty.await;
    eventually("the task is over", async || {
        let listed = session.listed(list.clone()).await;
        listed.into_iter().find(|task| task.request_id == "hasty" && is_terminal(task.status()))
    })
    .await;
    assert_eq!(session.processes("sleep 7201").await, 0);
}

#[tokio::test]
async fn acknowledged_run_sends_no_completion() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let request = RunTaskRequest { start: Some(session.request("exit 1")), acknowledge: true, ..Default::default() };
    let (accepted, mut stream) = run(&session, request).await;
    while let Some(event) = next(&mut stream).await {
        assert!(matches!(event, Event::Finished(_)), "{event:?}");
    }
    assert_eq!(session.drain(None).await.notifications, []);
    assert_eq!(session.told_of(&accepted).await, ["completed"]);
}
