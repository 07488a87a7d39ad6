//! Ends that cannot be known: each has its own reason, none has an invented exit code, and no command is run again.

use errand_proto::v1::{Task, TaskStatus};

use crate::{
    on_both_images,
    support::{
        client::{Session, ended},
        docker::Image,
        server::Server,
    },
};

on_both_images!(each_loss_without_a_server_has_its_reason);

/// A command that leaves a mark each time it runs, and the container that it runs in.
async fn begun(server: &Server, bot: &str) -> (Session, Task, String) {
    let session = server.session(bot, "session");
    let task = session.running("echo run >>/workspace/runs; sleep 7300").await;
    let container = session.sandbox().await.unwrap().container_id;
    (session, task, container)
}

async fn check(session: &Session, task: &Task, reason: &str) {
    let task = session.finished(task).await;
    assert_eq!((ended(&task), task.status()), (format!("lost {reason}"), TaskStatus::Lost));
    let outcome = task.outcome.clone().unwrap();
    assert_eq!(outcome.shell_exit_code, None, "any number would be a lie");
    assert_eq!(session.told_of(&task).await, ["completed"]);
    // Nothing is run again, and the bot can run new tasks.
    let next = session.run("cat /workspace/runs 2>/dev/null; exit 3").await;
    assert_eq!(ended(&next), "exited 3");
    let runs = session.text(&next).await;
    assert!(runs == "run\n" || (reason == "SANDBOX_REMOVED" && runs.is_empty()), "{reason}: {runs:?}");
    assert_eq!(session.processes("sleep 7300").await, 0, "{reason}");
    assert_eq!(session.get(&task).await, task);
}

async fn each_loss_without_a_server_has_its_reason(image: Image) {
    let Some(mut server) = Server::on(image, &[]).await else { return };
    let restarted = begun(&server, "restarted").await;
    let removed = begun(&server, "removed").await;
    let stopped = begun(&server, "stopped").await;
    let no_directory = begun(&server, "no-directory").await;
    let unreadable = begun(&server, "unreadable").await;
    let unsupervised = begun(&server, "unsupervised").await;
    server.kill();

    server.ground.restart(&restarted.2).await;
    server.ground.remove(&removed.2).await;
    server.ground.stop(&stopped.2).await;
    let directory = |begun: &(Session, Task, String)| format!("/tmp/errand/{}", begun.1.task_id);
    server.ground.exec(&no_directory.2, &format!("rm -r {}", directory(&no_directory))).await;
    server.ground.exec(&unreadable.2, &format!("echo garbage >{}/exit", directory(&unreadable))).await;
    for begun in [&unreadable, &unsupervised] {
        let (_, task, container) = begun;
        // All are stopped before the first is killed, so that none can record how another ended.
        let script = format!(
            "for p in $(head -n 1 {1}/processes | cut -d' ' -f1
                       grep -l {0} /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 | sort -u); do
               [ $p = $$ ] || all=\"$all $p\"
             done
             kill -STOP $all 2>/dev/null; kill -9 $all 2>/dev/null",
            task.task_id,
            directory(begun)
        );
        server.ground.exec(container, &script).await;
    }
    server.launch().await;
    check(&restarted.0, &restarted.1, "SANDBOX_RESTARTED").await;
    check(&removed.0, &removed.1, "SANDBOX_REMOVED").await;
    check(&stopped.0, &stopped.1, "SANDBOX_STOPPED").await;
    check(&no_directory.0, &no_directory.1, "LOG_DIRECTORY_GONE").await;
    check(&unreadable.0, &unreadable.1, "EXIT_FILE_UNREADABLE").await;
    check(&unsupervised.0, &unsupervised.1, "SUPERVISOR_KILLED").await;
}

#[tokio::test]
async fn each_loss_while_running_has_its_reason() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let restarted = begun(&server, "restarted").await;
    let removed = begun(&server, "removed").await;
    let stopped = begun(&server, "stopped").await;
    server.ground.restart(&restarted.2).await;
    server.ground.remove(&removed.2).await;
    server.ground.stop(&stopped.2).await;
    check(&restarted.0, &restarted.1, "SANDBOX_RESTARTED").await;
    check(&removed.0, &removed.1, "SANDBOX_REMOVED").await;
    check(&stopped.0, &stopped.1, "SANDBOX_STOPPED").await;
}

#[tokio::test]
async fn restarted_sandbox_keeps_an_earlier_exit_code() {
    let Some(mut server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.running("until [ -e /workspace/go ]; do sleep 0.1; done; exit 8").await;
    let container = session.sandbox().await.unwrap().container_id;
    server.kill();
    let wait = format!("touch /workspace/go; until [ -e /tmp/errand/{}/exit ]; do sleep 0.1; done", task.task_id);
    server.ground.exec(&container, &wait).await;
    server.ground.restart(&container).await;
    server.launch().await;
    let task = session.finished(&task).await;
    assert_eq!(ended(&task), "exited 8");
    assert_eq!(session.told_of(&task).await, ["completed"]);
}
