//! Memory that runs out in a sandbox: reported differently from every other SIGKILL and from signals that commands send themselves.

use errand_proto::v1::{OutOfMemory, Task, TaskStatus};

use crate::{
    on_both_images,
    support::{
        client::{Session, ended},
        docker::Image,
        server::Server,
        wait::eventually,
    },
};

/// The memory limit of every sandbox here.
const FLAGS: [&str; 2] = ["--memory-bytes", "64MiB"];
const LIMIT: i64 = 64 << 20;

on_both_images!(
    memory_kill_is_distinguished_from_other_kills,
    sandbox_killed_by_memory_names_that_loss,
    memory_kill_without_a_server_is_reported,
);

fn shortage(task: &Task) -> Option<OutOfMemory> {
    task.outcome.as_ref().expect("it is over").out_of_memory
}

/// What the notification of a task's end says.
async fn told(session: &Session, task: &Task) -> String {
    let told = session.told().await;
    told.iter().find(|notice| notice.task_id == task.task_id).expect("it was told").text.clone()
}

async fn memory_kill_is_distinguished_from_other_kills(image: Image) {
    let Some(server) = Server::on(image, &FLAGS).await else { return };
    let session = server.session("bot", "session");
    let killed = session.run("exec tail /dev/zero").await;
    assert_eq!((ended(&killed).as_str(), killed.status()), ("signaled 9", TaskStatus::Failed));
    assert_eq!(shortage(&killed), Some(OutOfMemory { killed_processes: 1, limit_bytes: LIMIT }));
    let text = told(&session, &killed).await;
    assert!(text.contains("killed (SIGKILL) when the sandbox ran out of memory (limit 64 MiB)"), "{text}");

    // The shell turns its child's signal into an exit code.
    let child = session.run("sh -c 'exec tail /dev/zero'; exit $?").await;
    assert_eq!(ended(&child), "exited 137");
    assert_eq!(shortage(&child), Some(OutOfMemory { killed_processes: 1, limit_bytes: LIMIT }));
    let text = told(&session, &child).await;
    assert!(
        text.contains("exit code 137: it failed. While it ran the sandbox ran out of memory (limit 64 MiB)"),
        "{text}"
    );

    // Kills counted before a command are not attributed to it.
    for (command, end) in [
        ("kill -9 $$", "signaled 9"),
        ("sh -c 'kill -9 $$'; exit $?", "exited 137"),
        ("exit 137", "exited 137"),
        ("exit 0", "exited 0"),
    ] {
        let task = session.run(command).await;
        assert_eq!((ended(&task).as_str(), shortage(&task)), (end, None), "{command}");
        assert!(!told(&session, &task).await.contains("memory"), "{command}");
    }
    let words = ["--server", &server.url(), "run", "--bot", "bot", "--", "exec tail /dev/zero"];
    let shown = std::process::Command::new(env!("CARGO_BIN_EXE_errand")).args(words).output().unwrap();
    let said = String::from_utf8(shown.stderr).unwrap();
    assert_eq!(shown.status.code(), Some(137));
    assert!(said.contains("ended by SIGKILL: the sandbox ran out of memory (limit 64 MiB)"), "{said}");
}

async fn sandbox_killed_by_memory_names_that_loss(image: Image) {
    let Some(server) = Server::on(image, &FLAGS).await else { return };
    let session = server.session("bot", "session");
    let beside = session.running("sleep 7311").await;
    server.ground.expose(&session.sandbox().await.unwrap().container_id).await;
    // Several processes, so that each alone is smaller than the sandbox's own process.
    let hogs = "exec tail /dev/zero & exec tail /dev/zero & exec tail /dev/zero & exec tail /dev/zero & wait";
    let task = session.run(hogs).await;
    for task in [task, session.finished(&beside).await] {
        assert_eq!((ended(&task).as_str(), task.status()), ("lost SANDBOX_OUT_OF_MEMORY", TaskStatus::Lost));
        let text = told(&session, &task).await;
        assert!(text.contains("the sandbox ran out of memory and was killed"), "{text}");
    }
    // The bot can run new tasks, and stopping the sandbox afterwards is reported as a stop only.
    let next = session.running("sleep 7312").await;
    server.ground.stop(&session.sandbox().await.unwrap().container_id).await;
    assert_eq!(ended(&session.finished(&next).await), "lost SANDBOX_STOPPED");
}

async fn memory_kill_without_a_server_is_reported(image: Image) {
    let Some(mut server) = Server::on(image, &FLAGS).await else { return };
    let session = server.session("bot", "session");
    let task = session.running("until [ -e /workspace/go ]; do sleep 0.1; done; exec tail /dev/zero").await;
    let sandbox = session.sandbox().await.unwrap().container_id;
    server.kill();
    let exit = format!("touch /workspace/go; cat /tmp/errand/{}/exit 2>/dev/null", task.task_id);
    eventually("the exit file", async || {
        server.ground.exec(&sandbox, &exit).await.contains("signaled 9").then_some(())
    })
    .await;
    server.launch().await;
    let session = server.session("bot", "session");
    let task = session.finished(&task).await;
    assert_eq!(ended(&task), "signaled 9");
    assert_eq!(shortage(&task), Some(OutOfMemory { killed_processes: 1, limit_bytes: LIMIT }));
}
