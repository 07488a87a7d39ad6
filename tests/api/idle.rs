//! Which bots are active, and that sandboxes which nobody uses are stopped and come back.

use std::process::Command;

use errand_proto::v1::*;
use tonic::Code;

use super::tenants;
use crate::{
    on_both_images,
    support::{
        client::{Session, duration, ended, refused},
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(
    unused_sandbox_is_stopped_and_comes_back,
    tasks_and_open_calls_keep_a_sandbox,
    forgotten_task_does_not_keep_a_sandbox,
    idle_time_of_a_sandbox_can_be_changed,
    active_bots_come_in_pages,
);

async fn state(session: &Session) -> SandboxState {
    session.sandbox().await.unwrap().state()
}

async fn until_stopped(session: &Session) {
    eventually("the sandbox is stopped", async || (state(session).await == SandboxState::Stopped).then_some(())).await;
}

async fn active(session: &Session, max_age: Option<f64>) -> Vec<ActiveBot> {
    let request = ListActiveBotsRequest { max_age: max_age.and_then(duration), ..Default::default() };
    soon("active bots are listed", session.sandboxes().list_active_bots(request)).await.unwrap().into_inner().bots
}

async fn unused_sandbox_is_stopped_and_comes_back(image: Image) {
    let Some(server) = Server::on(image, &["--sandbox-idle-stop", "1s"]).await else { return };
    let session = server.session("bot", "session");
    // What a finished task leaves behind is no use of the sandbox.
    let task = session.run("echo kept > /workspace/file; sleep 1000 > /dev/null 2>&1 & echo done").await;
    assert_eq!(ended(&task), "exited 0");
    until_stopped(&session).await;
    let again = session.run("cat /workspace/file").await;
    assert_eq!((ended(&again).as_str(), session.text(&again).await.as_str()), ("exited 0", "kept\n"));
    until_stopped(&session).await;
    let bot_id = session.bot.clone();
    let file = StatFileRequest { bot_id, path: "/workspace".to_owned(), ..Default::default() };
    refused(session.sandboxes().stat_file(file).await, Code::FailedPrecondition);
    assert_eq!(session.ensure(None).await.unwrap().state(), SandboxState::Running);
}

async fn tasks_and_open_calls_keep_a_sandbox(image: Image) {
    let Some(server) = Server::on(image, &["--sandbox-idle-stop", "1s"]).await else { return };
    let [running, watched] = ["running", "watched"].map(|bot| server.session(bot, "session"));
    let task = running.running("sleep 300").await;
    watched.ensure(None).await.unwrap();
    let (bot_id, path) = (watched.bot.clone(), "/workspace".to_owned());
    let request = WatchFilesRequest { bot_id, path, ..Default::default() };
    let watch = soon("a watch begins", watched.sandboxes().watch_files(request)).await.unwrap();
    // Two sandboxes that are used later are stopped before.
    for bot in ["other", "another"] {
        let other = server.session(bot, "session");
        other.run("true").await;
        until_stopped(&other).await;
    }
    assert_eq!((state(&running).await, state(&watched).await), (SandboxState::Running, SandboxState::Running));
    assert_eq!(running.get(&task).await.status(), TaskStatus::Running);
    drop(watch);
    until_stopped(&watched).await;
    running.stop(&task, None).await;
    until_stopped(&running).await;
}

async fn forgotten_task_does_not_keep_a_sandbox(image: Image) {
    let flags = ["--sandbox-idle-stop", "1s", "--idle-task-age", "2s"];
    let Some(server) = Server::on(image, &flags).await else { return };
    let session = server.session("bot", "session");
    let task = session.running("sleep 300").await;
    let task = session.finished(&task).await;
    assert_eq!(task.status(), TaskStatus::Stopped);
    let told = session.told().await;
    assert_eq!(told.iter().filter(|notice| notice.task_id == task.task_id).count(), 1, "{told:?}");
    until_stopped(&session).await;
}

async fn idle_time_of_a_sandbox_can_be_changed(image: Image) {
    let Some(server) = Server::on(image, &["--sandbox-idle-stop", "1s"]).await else { return };
    let session = server.session("bot", "session");
    let spec = |seconds| Some(SandboxSpec { idle_stop_after: duration(seconds), ..Default::default() });
    let said = refused(session.ensure(spec(59.0)).await, Code::InvalidArgument);
    assert!(said.contains("idle_stop_after"), "{said}");
    let never = session.ensure(spec(0.0)).await.unwrap();
    assert_eq!(never.spec.unwrap().idle_stop_after, duration(0.0));
    let changed = session.ensure(spec(600.0)).await.unwrap();
    assert_eq!((changed.spec.unwrap().idle_stop_after, changed.sandbox_id), (duration(600.0), never.sandbox_id));
    session.ensure(spec(0.0)).await.unwrap();
    for bot in ["other", "another"] {
        let other = server.session(bot, "session");
        other.run("true").await;
        until_stopped(&other).await;
    }
    assert_eq!(state(&session).await, SandboxState::Running);
}

async fn active_bots_come_in_pages(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let sessions = ["a", "b", "c"].map(|bot| server.session(bot, "session"));
    let mut tasks = Vec::new();
    for session in &sessions {
        tasks.push(session.running("sleep 300").await);
    }
    sessions[1].running("sleep 300").await;
    let bots =
        |found: &[ActiveBot]| found.iter().map(|bot| (bot.bot_id.clone(), bot.unfinished_tasks)).collect::<Vec<_>>();
    let expected: Vec<_> =
        sessions.iter().zip([1, 2, 1]).map(|(session, tasks)| (session.bot.clone(), tasks)).collect();
    assert_eq!(bots(&active(&sessions[0], None).await), expected);
    let mut paged = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListActiveBotsRequest { page_size: 2, page_token, ..Default::default() };
        let page = sessions[0].sandboxes().list_active_bots(request).await.unwrap().into_inner();
        assert!(page.bots.len() <= 2);
        paged.extend(bots(&page.bots));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, expected);
    // Once they are older than the maximum, they do not count.
    eventually("the tasks are too old", async || active(&sessions[0], Some(1.0)).await.is_empty().then_some(())).await;
    assert_eq!(active(&sessions[0], Some(3600.0)).await.len(), 3);
    let oldest = active(&sessions[0], None).await[1].oldest_task_at.unwrap();
    assert_eq!(Some(oldest), sessions[1].get(&tasks[1]).await.created_at);
    sessions[0].stop(&tasks[0], None).await;
    assert_eq!(bots(&active(&sessions[0], None).await), expected[1..]);
    let output = Command::new(env!("CARGO_BIN_EXE_errand"))
        .args(["--server", &server.url(), "sandbox", "active", "--max-age", "1h"])
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.lines().nth(1).is_some_and(|line| line.starts_with(&sessions[1].bot) && line.contains(" 2 ")),
        "{shown}"
    );
}

#[tokio::test]
async fn active_bots_are_those_of_the_caller() {
    let Some(server) = tenants::server().await else { return };
    let session = |token: &str, bot: &str| server.session_with(token, bot, "session");
    let (some, other) = (session("red-all", "a1"), session("red-all", "b1"));
    some.running("sleep 300").await;
    other.running("sleep 300").await;
    let seen = async |token: &str| {
        let found = active(&session(token, "a1"), None).await;
        found.into_iter().map(|bot| bot.bot_id).collect::<Vec<_>>()
    };
    assert_eq!(seen("red-all").await, [some.bot.clone(), other.bot.clone()]);
    assert_eq!(seen("red-a").await, std::slice::from_ref(&some.bot));
    assert!(seen("blue-all").await.is_empty());
}
