//! SignalTask: any signal, to the group or the leader, and the truth about what it did.

use errand_proto::v1::*;
use tonic::{Code, Status};

use crate::{
    on_both_images,
    support::{
        client::{Id, Session, ended, refused},
        docker::Image,
        server::Server,
        wait::soon,
    },
};

on_both_images!(signals_reach_the_group_or_the_leader, ending_signal_is_the_outcome);

/// Prints its name on SIGUSR1 and goes on; a child in its group does the same.
const GROUP: &str = "trap 'echo leader' USR1; (trap 'echo child' USR1; echo up; while :; do sleep 0.1; done) & \
                     setsid sh -c 'trap \"echo away\" USR1; echo up; while :; do sleep 0.1; done' & \
                     while :; do sleep 0.1; done";

pub async fn signal(
    session: &Session,
    task: &(impl Id + ?Sized),
    signal: &str,
    target: SignalTarget,
) -> Result<SignalTaskResponse, Status> {
    let request = SignalTaskRequest {
        task_id: task.id(),
        signal: signal.to_owned(),
        target: target.into(),
        ..Default::default()
    };
    Ok(soon("a signal is sent", session.tasks().signal_task(request)).await?.into_inner())
}

/// Waits until the output holds as many lines `up`.
async fn up(session: &Session, task: &Task) {
    session.until_output(task, "up\nup\n").await;
}

async fn signals_reach_the_group_or_the_leader(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.start(GROUP).await;
    up(&session, &task).await;
    let sent = signal(&session, &task, "SIGUSR1", SignalTarget::Leader).await.unwrap();
    assert_eq!((sent.signaled_processes, sent.task.unwrap().status()), (1, TaskStatus::Running));
    session.until_output(&task, "leader\n").await;
    assert_eq!(session.text(&task).await, "up\nup\nleader\n");
    // A child `sleep` of the group gets it too, and ends.
    let sent = signal(&session, &task, "usr1", SignalTarget::Unspecified).await.unwrap();
    assert!(sent.signaled_processes >= 2, "{sent:?}");
    session.until_output(&task, "child\n").await;
    assert!(!session.text(&task).await.contains("away"));
    assert_eq!(session.get(&task).await.status(), TaskStatus::Running);
    session.stop(&task, Some(0.0)).await;
}

async fn ending_signal_is_the_outcome(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    for (name, number) in [("INT", 2), ("hup", 1), ("SIGQUIT", 3), ("TERM", 15), ("KILL", 9)] {
        let task = session.running("exec sleep 600").await;
        signal(&session, &task, name, SignalTarget::Group).await.unwrap();
        let task = session.finished(&task).await;
        assert_eq!((ended(&task), task.status()), (format!("signaled {number}"), TaskStatus::Failed), "{name}");
        assert_eq!(session.told_of(&task).await, ["completed"]);
    }
    // A command that handles the signal ends as it says.
    let task = session.start("trap 'echo bye; exit 5' INT; echo up; echo up; while :; do sleep 0.1; done").await;
    up(&session, &task).await;
    signal(&session, &task, "int", SignalTarget::Leader).await.unwrap();
    assert_eq!(ended(&session.finished(&task).await), "exited 5");
    // Stopped and continued.
    let task = session.running("exec sleep 600").await;
    signal(&session, &task, "STOP", SignalTarget::Group).await.unwrap();
    assert_eq!(session.get(&task).await.status(), TaskStatus::Running);
    signal(&session, &task, "CONT", SignalTarget::Group).await.unwrap();
    assert_eq!(ended(&session.stop(&task, Some(5.0)).await), "stopped request 15");
}

#[tokio::test]
async fn signal_without_a_process_is_refused() {
    let Some(server) = Server::on(Image::Busybox, &["--launch-concurrency", "1"]).await else { return };
    let session = server.session("bot", "session");
    let over = session.run("exit 0").await;
    let said = refused(signal(&session, &over, "INT", SignalTarget::Group).await, Code::FailedPrecondition);
    assert!(said.contains("has finished"), "{said}");
    for wrong in ["", "SIGNAL", "9", "RTMIN"] {
        let said = refused(signal(&session, &over, wrong, SignalTarget::Group).await, Code::InvalidArgument);
        assert!(said.starts_with("signal must be the name of a signal"), "{said}");
    }
    let other = server.session("other", "session");
    let request = SignalTaskRequest {
        task_id: over.task_id.clone(),
        bot_id: other.bot.clone(),
        signal: "INT".to_owned(),
        ..Default::default()
    };
    refused(session.tasks().signal_task(request).await, Code::NotFound);
    // The leader has ended, and a process of its group is left: the leader's number is not used.
    let task = session.start("(trap '' HUP; exec sleep 600) & exit 0").await;
    let task = session.finished(&task).await;
    refused(signal(&session, &task, "KILL", SignalTarget::Leader).await, Code::FailedPrecondition);
    assert_eq!(session.processes("sleep 600").await, 1);
}
