//! WaitTask and WaitTasks until output matches or a port listens.

use std::time::{Duration, Instant};

use errand_proto::v1::{output_pattern::Kind, *};
use tonic::Code;

use crate::{
    on_both_images,
    support::{
        client::{Session, duration, ended, refused},
        docker::Image,
        server::Server,
        wait::soon,
    },
};

on_both_images!(early_and_late_output_is_matched, listening_port_ends_a_wait, output_beyond_the_window_is_searched,);

/// Listens on a port of its own sandbox until it is stopped.
pub fn listen(port: u16) -> String {
    format!(
        "if command -v perl >/dev/null; then exec perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0); \
         bind(S, sockaddr_in({port}, INADDR_LOOPBACK)) or die; listen(S, 5); sleep 600'; else exec nc -l -p {port}; fi"
    )
}

fn text(text: &str) -> Option<OutputPattern> {
    Some(OutputPattern { offset: 0, kind: Some(Kind::Substring(text.to_owned())) })
}

fn regex(pattern: &str) -> Option<OutputPattern> {
    Some(OutputPattern { offset: 0, kind: Some(Kind::Regex(pattern.to_owned())) })
}

fn about(task: &Task) -> WaitTaskRequest {
    WaitTaskRequest { task_id: task.task_id.clone(), timeout: duration(40.0), ..Default::default() }
}

async fn wait(session: &Session, request: WaitTaskRequest) -> WaitTaskResponse {
    soon("a wait ends", session.tasks().wait_task(request)).await.unwrap().into_inner()
}

async fn early_and_late_output_is_matched(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let command = "printf 'starting\\nserver re'; sleep 0.3; printf 'ady on 80'; sleep 0.3; printf '80\\n'; \
                   until [ -e /workspace/go ]; do sleep 0.1; done; echo over";
    let task = session.start(command).await;
    let answer = wait(&session, WaitTaskRequest { until_match: text("ready on 8080"), ..about(&task) }).await;
    let found = answer.output_match.clone().unwrap();
    assert_eq!((answer.result(), found.line.as_str()), (WaitResult::Matched, "server ready on 8080"));
    assert_eq!((found.offset, found.end_offset, found.line_cut), (16, 29, false));
    assert_eq!(answer.next_match_offset, 29);
    // What was printed before the call is matched too, and the end of the line is waited for.
    let request = WaitTaskRequest { until_match: regex(r"^server .* on \d+$"), ..about(&task) };
    assert_eq!(wait(&session, request).await.output_match.unwrap().offset, 9);
    // A search after the match finds nothing more, until the task ends.
    let after = Some(OutputPattern { offset: answer.next_match_offset, ..text("ready").unwrap() });
    let request = WaitTaskRequest { until_match: after, timeout: duration(0.3), ..about(&task) };
    let timed_out = wait(&session, request.clone()).await;
    assert_eq!((timed_out.result(), timed_out.output_match), (WaitResult::Timeout, None));
    session.exec("touch /workspace/go").await;
    let end = wait(&session, WaitTaskRequest { timeout: duration(40.0), ..request }).await;
    assert_eq!((end.result(), ended(&end.task.unwrap()).as_str()), (WaitResult::Finished, "exited 0"));
    // The output of a finished task is searched before its end is told.
    let last = wait(&session, WaitTaskRequest { until_match: regex(r"over\s*\z"), ..about(&task) }).await;
    assert_eq!((last.result(), last.output_match.unwrap().line.as_str()), (WaitResult::Matched, "over"));
}

async fn output_beyond_the_window_is_searched(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    // The window of the server holds 128 KiB: the first lines are in the log alone.
    let command = "echo the needle; seq 1 200000; echo another one; until [ -e /workspace/go ]; do sleep 0.1; done";
    let task = session.start(command).await;
    session.until_output(&task, "\n150000\n").await;
    for (pattern, line) in [
        (text("needle"), "the needle"),
        (regex("^199.99$"), "199099"),
        (regex("^the [a-z]+$"), "the needle"),
        (text("another"), "another one"),
    ] {
        let answer = wait(&session, WaitTaskRequest { until_match: pattern.clone(), ..about(&task) }).await;
        let found = answer.output_match.unwrap_or_else(|| panic!("{pattern:?} is matched"));
        assert_eq!((answer.result, found.line.as_str()), (i32::from(WaitResult::Matched), line), "{pattern:?}");
    }
    session.exec("touch /workspace/go").await;
    session.finished(&task).await;
    let beyond = Some(OutputPattern { offset: 1 << 40, ..text("x").unwrap() });
    let request = WaitTaskRequest { until_match: beyond, ..about(&task) };
    refused(session.tasks().wait_task(request).await, Code::OutOfRange);
}

async fn listening_port_ends_a_wait(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.start(&format!("until [ -e /workspace/go ]; do sleep 0.1; done; {}", listen(7171))).await;
    let request = WaitTaskRequest { until_listening: 7171, timeout: duration(0.5), ..about(&task) };
    assert_eq!(wait(&session, request.clone()).await.result(), WaitResult::Timeout);
    let waits: Vec<_> = (0..20)
        .map(|_| {
            let (session, request) = (session.clone(), WaitTaskRequest { timeout: duration(40.0), ..request.clone() });
            tokio::spawn(async move { wait(&session, request).await.result() })
        })
        .collect();
    session.exec("touch /workspace/go").await;
    for waiting in waits {
        assert_eq!(waiting.await.unwrap(), WaitResult::Listening);
    }
    // A port that listens already ends a wait at once; another port does not.
    let begun = Instant::now();
    assert_eq!(
        wait(&session, WaitTaskRequest { until_listening: 7171, ..about(&task) }).await.result(),
        WaitResult::Listening
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    let other = WaitTaskRequest { until_listening: 7172, timeout: duration(0.3), ..about(&task) };
    assert_eq!(wait(&session, other).await.result(), WaitResult::Timeout);
    session.stop(&task, Some(0.0)).await;
    let over = wait(&session, WaitTaskRequest { until_listening: 7171, ..about(&task) }).await;
    assert_eq!(over.result(), WaitResult::Finished);
}

#[tokio::test]
async fn first_of_several_tasks_ends_the_wait() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let endless = session.start("echo working; exec sleep 600").await;
    let server_task = session.start("sleep 0.3; echo ready; exec sleep 600").await;
    let request = WaitTasksRequest {
        task_ids: vec![endless.task_id.clone(), server_task.task_id.clone()],
        timeout: duration(40.0),
        until_match: text("ready"),
        ..Default::default()
    };
    let answer = soon("a wait ends", session.tasks().wait_tasks(request.clone())).await.unwrap().into_inner();
    let results: Vec<_> = answer.waits.iter().map(|wait| (wait.task_id.clone(), wait.result())).collect();
    let expected = [(endless.task_id.clone(), WaitResult::Timeout), (server_task.task_id.clone(), WaitResult::Matched)];
    assert_eq!(results, expected);
    assert_eq!(answer.waits[1].output_match.as_ref().unwrap().line, "ready");
    assert!(answer.waits.iter().all(|wait| wait.task.is_some()));

    // Where to go on is told for each task.
    let match_offsets: std::collections::HashMap<_, _> =
        answer.waits.iter().map(|wait| (wait.task_id.clone(), wait.next_match_offset)).collect();
    let more = WaitTasksRequest { match_offsets, timeout: duration(0.3), ..request };
    let answer = soon("a wait ends", session.tasks().wait_tasks(more)).await.unwrap().into_inner();
    assert!(answer.waits.iter().all(|wait| wait.result() == WaitResult::Timeout), "{answer:?}");
    for task in [endless, server_task] {
        session.stop(&task, Some(0.0)).await;
    }
}

#[tokio::test]
async fn wait_for_all_acknowledges_what_finished() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let tasks = [session.start("exit 1").await, session.start("sleep 0.5; exit 2").await];
    let running = session.start("exec sleep 600").await;
    let ids = |tasks: &[Task]| tasks.iter().map(|task| task.task_id.clone()).collect::<Vec<_>>();
    let request = WaitTasksRequest {
        task_ids: ids(&tasks),
        mode: WaitMode::All.into(),
        timeout: duration(40.0),
        acknowledge: true,
        ..Default::default()
    };
    let answer = soon("a wait ends", session.tasks().wait_tasks(request.clone())).await.unwrap().into_inner();
    let ends: Vec<_> = answer.waits.iter().map(|wait| ended(wait.task.as_ref().unwrap())).collect();
    assert_eq!(ends, ["exited 1", "exited 2"]);
    assert!(session.told().await.iter().all(|told| told.acknowledged_at.is_some()));

    // One that goes on keeps the wait for all until its timeout, and the others are told all the same.
    let all = WaitTasksRequest {
        task_ids: ids(&[&tasks[..], std::slice::from_ref(&running)].concat()),
        timeout: duration(0.3),
        ..request.clone()
    };
    let answer = soon("a wait ends", session.tasks().wait_tasks(all)).await.unwrap().into_inner();
    let results: Vec<_> = answer.waits.iter().map(TaskWait::result).collect();
    assert_eq!(results, [WaitResult::Finished, WaitResult::Finished, WaitResult::Timeout]);

    // A task of another session spoils the call, and is named.
    let foreign = server.session("bot", "other").start("exit 0").await;
    let request = WaitTasksRequest {
        task_ids: vec![tasks[0].task_id.clone(), foreign.task_id.clone()],
        session_id: session.session.clone(),
        ..request
    };
    let said = refused(session.tasks().wait_tasks(request).await, Code::NotFound);
    assert!(said.contains(&foreign.task_id), "{said}");
    session.stop(&running, Some(0.0)).await;
}

#[tokio::test]
async fn costly_patterns_delay_no_other_caller() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task =
        session.start("head -c 4000000 /dev/zero | tr '\\0' a; until [ -e /workspace/go ]; do sleep 0.1; done").await;
    session.until(&task, TaskStatus::Running).await;
    let waits: Vec<_> = (0..16)
        .map(|_| {
            let request = WaitTaskRequest { until_match: regex("(a?){60}a{60}b"), ..about(&task) };
            let session = session.clone();
            tokio::spawn(async move { wait(&session, request).await.result() })
        })
        .collect();
    for _ in 0..50 {
        let begun = Instant::now();
        session.get(&task).await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    session.exec("touch /workspace/go").await;
    assert_eq!(ended(&session.finished(&task).await), "exited 0");
    for waiting in waits {
        waiting.abort();
    }
}

#[tokio::test]
async fn malformed_conditions_name_field_and_limit() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.run("true").await;
    let long = "x".repeat(513);
    for (request, said) in [
        (
            WaitTaskRequest { until_match: regex("(a"), ..about(&task) },
            "until_match.regex must be a regular expression",
        ),
        (
            WaitTaskRequest { until_match: text(&long), ..about(&task) },
            "until_match.substring must be at most 512 bytes",
        ),
        (WaitTaskRequest { until_match: regex("(a{500}){500}"), ..about(&task) }, "when compiled"),
        (
            WaitTaskRequest { until_match: Some(OutputPattern::default()), ..about(&task) },
            "until_match.substring must be set",
        ),
        (WaitTaskRequest { until_listening: 65_536, ..about(&task) }, "until_listening must be at most 65535"),
    ] {
        let message = refused(session.tasks().wait_task(request).await, Code::InvalidArgument);
        assert!(message.contains(said), "{message}");
    }
    let ids = |count: usize| vec![task.task_id.clone(); count];
    for (task_ids, said) in [(ids(0), "has 0"), (ids(65), "has 65"), (ids(2), "twice")] {
        let request = WaitTasksRequest { task_ids, ..Default::default() };
        let message = refused(session.tasks().wait_tasks(request).await, Code::InvalidArgument);
        assert!(message.contains(said), "{message}");
    }
    let match_offsets = [(task.task_id.clone(), 1)].into();
    let request = WaitTasksRequest { task_ids: ids(1), match_offsets, ..Default::default() };
    refused(session.tasks().wait_tasks(request).await, Code::InvalidArgument);
}
