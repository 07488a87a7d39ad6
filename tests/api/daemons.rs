//! Commands that leave processes behind, or kill processes while they run.

use std::time::{Duration, Instant};

use crate::{
    on_both_images,
    support::{client::ended, docker::Image, server::Server},
};

on_both_images!(daemon_output_is_kept_without_delaying_the_end, deleted_log_does_not_change_the_outcome,);

async fn daemon_output_is_kept_without_delaying_the_end(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    session.run("true").await;
    let begun = Instant::now();
    let daemon = "until [ -e /workspace/go ]; do sleep 0.1; done; echo late; sleep 300";
    let task = session.run(&format!("({daemon}) & setsid sh -c '{daemon}' & echo early; exit 7")).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((ended(&task).as_str(), task.output_bytes), ("exited 7", 6));
    assert_eq!(session.text(&task).await, "early\n");
    assert_eq!(session.told_of(&task).await, ["completed"]);

    session.exec("touch /workspace/go").await;
    session.until_output(&task, "early\nlate\nlate\n").await;
    // A final task does not change.
    assert_eq!(session.get(&task).await, task);
    assert!(session.processes("sleep 300").await > 0, "what a command left on purpose is left alone");
}

async fn deleted_log_does_not_change_the_outcome(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.start("echo one; until [ -e /workspace/go ]; do sleep 0.1; done; echo two; exit 6").await;
    session.until_output(&task, "one\n").await;
    session.exec(&format!("rm -r /tmp/errand/{}; touch /workspace/go", task.task_id)).await;
    let task = session.finished(&task).await;
    assert_eq!(ended(&task), "exited 6");
    assert_eq!(session.told_of(&task).await, ["completed"]);
}

#[tokio::test]
async fn command_cannot_kill_or_fool_its_recorder() {
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    // Signals to every process of the command's own group or session do not reach the process that records the end.
    for (command, end) in [("kill -TERM 0", "signaled 15"), ("trap '' TERM; kill -TERM 0; exit 9", "exited 9")] {
        let task = session.run(command).await;
        assert_eq!(ended(&task), end, "{command}");
    }
    // A result that the command forges in the exit file is ignored.
    let forged = "d=${ERRAND_TASK_ID:+/tmp/errand/$ERRAND_TASK_ID}; echo 'errand 1 x exited 0' >$d/exit; exit 3";
    let task = session.run(forged).await;
    assert_eq!(ended(&task), "exited 3");
}
