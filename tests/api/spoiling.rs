//! Commands that spoil their own files. They lose at most their own outcome; the sandbox's other tasks are unaffected.

use std::time::Duration;

use errand_proto::v1::{ReadOutputRequest, TaskStatus};
use tokio::time::timeout;

use crate::support::{
    client::{Id as _, Session, ended},
    docker::Image,
    server::Server,
    wait::eventually,
};

/// No answer here takes longer.
const AT_ONCE: Duration = Duration::from_secs(20);
/// The files of a task directory, including optional ones.
const FILES: &str = "exit exit.part output.log processes streams gap gap.part control fenced incomplete";
/// What replaces the file `$f`.
const IMPOSTORS: [(&str, &str); 5] = [
    ("FIFO", "mkfifo $f"),
    ("directory", "mkdir -p $f/deep/er"),
    ("endless link", "ln -s /dev/zero $f"),
    ("socket or nothing", "true"),
    // Larger than any memory; a file system without room for it leaves an empty file.
    ("sparse file", "truncate -s 1024G $f || true >$f"),
];

fn spoil(impostor: &str) -> String {
    format!(
        "cd /tmp/errand/$ERRAND_TASK_ID; for f in {FILES}; do rm -rf $f; {impostor}; done; touch /workspace/spoilt; sleep 300"
    )
}

async fn at_once<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(AT_ONCE, work).await.unwrap_or_else(|_| panic!("not within {AT_ONCE:?}: {what}"))
}

/// Checks that the sandbox's other tasks run, and that the spoilt task can be queried and stopped.
async fn is_harmless(session: &Session, what: &str, task: &str) {
    let other = at_once(what, session.run("echo fine; exit 3")).await;
    assert_eq!((ended(&other).as_str(), session.text(&other).await.as_str()), ("exited 3", "fine\n"), "{what}");
    let found = at_once(what, session.get(task)).await;
    assert_eq!(found.status(), TaskStatus::Running, "{what}");
    // The call may fail, but it returns.
    let read = ReadOutputRequest { task_id: task.to_owned(), ..Default::default() };
    let _ = at_once(what, session.try_read(read)).await;
    let stopped = at_once(what, session.stop(task, Some(0.0))).await;
    assert!(stopped.outcome.is_some(), "{what}: {stopped:?}");
    assert_eq!(session.processes("sleep 300").await, 0, "{what}");
}

#[tokio::test]
async fn corrupt_task_files_block_no_call() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    for (what, impostor) in IMPOSTORS {
        let task = session.start(&spoil(impostor)).await.id();
        let spoilt = "rm /workspace/spoilt 2>/dev/null && echo yes";
        eventually(what, async || session.exec(spoilt).await.contains("yes").then_some(())).await;
        is_harmless(&session, what, &task).await;
    }
}

#[tokio::test]
async fn corrupt_task_files_block_no_restart() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    for (what, impostor) in IMPOSTORS {
        let session = server.session(&format!("bot-{}", &what[..2]), "session");
        let task = session.start(&spoil(impostor)).await.id();
        let spoilt = "rm /workspace/spoilt 2>/dev/null && echo yes";
        eventually(what, async || session.exec(spoilt).await.contains("yes").then_some(())).await;
        server.kill();
        at_once(what, server.launch()).await;
        let other = at_once(what, session.run("echo fine; exit 3")).await;
        assert_eq!(ended(&other), "exited 3", "{what}");
        // The task ends as lost or as stopped, depending on its files.
        let stopped = at_once(what, session.stop(&task, Some(0.0))).await;
        assert!(stopped.outcome.is_some(), "{what}: {stopped:?}");
    }
}

#[tokio::test]
async fn corrupt_bridge_files_block_no_launch() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    session.run("true").await;
    let spare = "cd /tmp/errand; for d in .spare .spare.part; do rm -rf $d; mkdir $d; chmod 700 $d; \
                 for f in exit.part output.log processes; do mkfifo $d/$f; done; done";
    for _ in 0..4 {
        session.run(spare).await;
        let other = at_once("a launch after a spoilt spare", session.run("echo fine; exit 3")).await;
        assert_eq!((ended(&other).as_str(), session.text(&other).await.as_str()), ("exited 3", "fine\n"));
    }
    if session.sandbox().await.unwrap().bridge != "resident" {
        return;
    }
    session.exec("cd /tmp/errand/.bridge; for f in lock log; do rm $f; mkfifo $f; done").await;
    session.exec("kill -9 $(grep -lxE 'errand-(bridge|spawner)' /proc/[0-9]*/comm | cut -d/ -f3)").await;
    let other = eventually("another bridge", async || {
        let task = at_once("a launch with another bridge", session.run("echo fine; exit 3")).await;
        (ended(&task) == "exited 3").then_some(task)
    })
    .await;
    assert_eq!(session.text(&other).await, "fine\n");
}
