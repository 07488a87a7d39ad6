//! When records are deleted, and what remains of their tasks in sandboxes.

use std::time::Duration;

use errand_proto::v1::*;
use errand_task::TaskId;
use tonic::Code;

use crate::support::{
    client::{Session, ended},
    docker::Image,
    server::Server,
    wait::eventually,
};

/// A directory that survives a restart of the sandbox.
const ROOT: &str = "/workspace/tasks";
/// The id of a task of 2023 that has no record.
const OLD: &str = "018bcfe5-6800-7000-8000-000000000001";

async fn is_forgotten(session: &Session, task: &Task) -> bool {
    let get = GetTaskRequest { task_id: task.task_id.clone(), ..Default::default() };
    match session.tasks().get_task(get).await {
        Ok(_) => false,
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound, "{status:?}");
            true
        }
    }
}

async fn is_there(session: &Session, name: &str) -> bool {
    session.exec(&format!("[ -e {ROOT}/{name} ] && echo there")).await.trim() == "there"
}

async fn gone(session: &Session, name: &str) {
    eventually("a directory is removed", async || (!is_there(session, name).await).then_some(())).await;
}

#[tokio::test]
async fn old_directories_go_when_sandbox_starts_again() {
    let Some(mut server) =
        Server::on(Image::Busybox, &["--retention", "1ms", "--notification-retention", "1ms", "--task-root", ROOT])
            .await
    else {
        return;
    };
    let session = server.session("bot", "session");
    let task = session.run("echo words").await;
    assert!(is_there(&session, &task.task_id).await);
    let stop = StopSandboxRequest { bot_id: session.bot.clone() };
    session.sandboxes().stop_sandbox(stop).await.unwrap();
    server.restart().await;
    eventually("the task is forgotten", async || is_forgotten(&session, &task).await.then_some(())).await;
    session.ensure(None).await.unwrap();
    gone(&session, &task.task_id).await;
    assert_eq!(ended(&session.run("exit 3").await), "exited 3");
}

#[tokio::test]
async fn directories_without_a_record_are_removed() {
    let Some(mut server) = Server::on(Image::Busybox, &["--task-root", ROOT]).await else { return };
    let session = server.session("bot", "session");
    let known = session.run("echo words").await;
    let running = session.running("sleep 300").await;
    let young = TaskId::new().to_string();
    let file = OLD.replace("0001", "0002");
    let shouted = OLD.replace("0001", "000a").to_uppercase();
    for name in [OLD, &young, &shouted, "mine"] {
        session.exec(&format!("mkdir -p {ROOT}/{name}/deep && echo x >{ROOT}/{name}/deep/output.log")).await;
    }
    session.exec(&format!("touch {ROOT}/{file}")).await;
    server.restart().await;
    gone(&session, OLD).await;
    for name in [&known.task_id, &running.task_id, &young, &shouted, &file, "mine"] {
        assert!(is_there(&session, name).await, "{name} stays");
    }
    assert_eq!(session.text(&known).await, "words\n");
    assert_eq!(ended(&session.stop(&running, Some(0.0)).await), "stopped request 9");
    assert_eq!(ended(&session.run("exit 3").await), "exited 3");
}

#[tokio::test]
async fn clock_leap_makes_nothing_old() {
    let Some(mut server) = Server::on(Image::Busybox, &["--task-root", ROOT]).await else { return };
    let session = server.session("bot", "session");
    let task = session.run("exit 3").await;
    session.exec(&format!("mkdir -p {ROOT}/{OLD}")).await;
    server.kill();
    // As if all had happened 60 days earlier than the clock says now.
    let database = rusqlite::Connection::open(server.database()).unwrap();
    let days = Duration::from_secs(60 * 24 * 3600);
    let kept: String =
        database.query_row("SELECT value FROM meta WHERE key = 'timeline'", [], |row| row.get(0)).unwrap();
    let mut kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    let seen = kept["seen"]["secs_since_epoch"].as_u64().unwrap();
    kept["seen"]["secs_since_epoch"] = (seen - days.as_secs()).into();
    database.execute("UPDATE meta SET value = ? WHERE key = 'timeline'", [kept.to_string()]).unwrap();
    let micros = i64::try_from(days.as_micros()).unwrap();
    assert_eq!(database.execute("UPDATE tasks SET finished_at = finished_at - ?", [micros]).unwrap(), 1);
    assert_eq!(database.execute("UPDATE notifications SET created_at = created_at - ?", [micros]).unwrap(), 1);
    drop(database);
    server.launch().await;
    // A sweep removes this task last.
    gone(&session, OLD).await;
    assert_eq!(session.get(&task).await, task);
    assert_eq!(session.told_of(&task).await, ["completed"]);
    assert!(server.log().contains("the clock is far ahead"), "it is said");
}
