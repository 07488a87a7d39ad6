//! What is announced of a task: by its policy, which can be changed while it runs, and not when its own session stopped it.

use std::time::Duration;

use errand_proto::v1::*;
use tonic::Code;

use crate::{
    on_both_images,
    support::{
        client::{Id as _, Session, duration, ended, kind, refused, time},
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(silence_after_output_is_announced_once_each_time);

/// Long enough for a wrong notification to arrive.
const WHILE: Duration = Duration::from_millis(500);

fn policy(completion: CompletionPolicy) -> NotifyPolicy {
    NotifyPolicy { completion: completion.into(), ..Default::default() }
}

/// A command that waits for [`pass`].
fn gate(name: &str) -> String {
    format!("[ -e /workspace/{name} ] || mkfifo /workspace/{name}; read -r passed </workspace/{name}")
}

/// Lets a command pass a gate.
async fn pass(session: &Session, name: &str) {
    session.exec(&format!("echo go >/workspace/{name}")).await;
}

async fn start(session: &Session, command: &str, notify: NotifyPolicy) -> Task {
    session.start_as(StartTaskRequest { notify: Some(notify), ..session.request(command) }).await
}

async fn set(session: &Session, task: &Task, notify: NotifyPolicy) -> Result<Task, tonic::Status> {
    let request = SetNotifyPolicyRequest { task_id: task.id(), notify: Some(notify), ..Default::default() };
    let set = soon("a policy is set", session.tasks().set_notify_policy(request)).await?;
    Ok(set.into_inner().task.unwrap())
}

#[tokio::test]
async fn policy_decides_which_ends_are_announced() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let told = async |notify, request: StartTaskRequest| {
        let task = session.run_as(StartTaskRequest { notify, ..request }).await;
        session.told_of(&task).await
    };
    let (failing, missing) = (|| session.request("exit 3"), || session.argv(&["/no/such/program"]));
    let unless_succeeded = Some(policy(CompletionPolicy::UnlessSucceeded));
    assert_eq!(told(None, session.request("true")).await, ["completed"]);
    assert!(told(unless_succeeded, session.request("true")).await.is_empty());
    assert_eq!(told(unless_succeeded, failing()).await, ["completed"]);
    assert_eq!(told(unless_succeeded, missing()).await, ["completed"]);
    assert!(told(Some(policy(CompletionPolicy::Never)), failing()).await.is_empty());
    assert!(told(Some(policy(CompletionPolicy::Never)), missing()).await.is_empty());
    // A loss is no success.
    let lost = start(&session, "sleep 300", policy(CompletionPolicy::UnlessSucceeded)).await;
    session.until(&lost, TaskStatus::Running).await;
    server.ground.restart(&session.sandbox().await.unwrap().container_id).await;
    assert_eq!(session.finished(&lost).await.status(), TaskStatus::Lost);
    assert_eq!(session.told_of(&lost).await, ["completed"]);
}

#[tokio::test]
async fn policy_changes_while_the_task_runs() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.running(&gate("end")).await;
    let usual = task.notify.unwrap();
    assert_eq!(
        (usual.completion(), usual.tail_bytes, usual.heartbeat_every),
        (CompletionPolicy::Always, Some(4096), None)
    );
    let never =
        NotifyPolicy { heartbeat_every: duration(3600.0), tail_bytes: Some(0), ..policy(CompletionPolicy::Never) };
    for notify in [policy(CompletionPolicy::UnlessSucceeded), never] {
        let changed = set(&session, &task, notify).await.unwrap();
        let shown = changed.notify.unwrap();
        assert_eq!((shown.completion, shown.heartbeat_every), (notify.completion, notify.heartbeat_every));
        assert_eq!(session.get(&task).await.notify, changed.notify);
    }
    let stored = session.get(&task).await.notify;
    server.restart().await;
    assert_eq!(session.get(&task).await.notify, stored, "it is stored with the task");
    pass(&session, "end").await;
    assert_eq!(session.finished(&task).await.notify, stored);
    assert!(session.told_of(&task).await.is_empty());

    let finished = set(&session, &task, policy(CompletionPolicy::Always)).await;
    assert!(refused(finished, Code::FailedPrecondition).contains("has finished"));
    let unknown = Task { task_id: "018bcfe5-6800-7000-8000-000000000001".to_owned(), ..Default::default() };
    refused(set(&session, &unknown, policy(CompletionPolicy::Always)).await, Code::NotFound);
    let foreign = SetNotifyPolicyRequest { task_id: task.id(), session_id: "other".to_owned(), ..Default::default() };
    refused(session.tasks().set_notify_policy(foreign).await, Code::NotFound);
    let often = NotifyPolicy { heartbeat_every: duration(1.0), ..Default::default() };
    let message = refused(set(&session, &task, often).await, Code::InvalidArgument);
    assert!(message.starts_with("notify.heartbeat_every must be at least 1m"), "{message}");
}

#[tokio::test]
async fn notification_shows_as_much_output_as_wanted() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let sides = NotifyPolicy { head_bytes: 8, tail_bytes: Some(8), ..Default::default() };
    let shown = async |task: &Task| {
        session.finished(task).await;
        let told = session.told().await.into_iter().find(|told| told.task_id == task.task_id).unwrap();
        (told.output_head, told.output_tail, told.output_truncated)
    };
    // More than the server keeps in memory.
    let much = start(&session, "seq 1 60000", sides).await;
    let (head, tail) = ("1\n2\n3\n4\n".to_owned(), "9\n60000\n".to_owned());
    assert_eq!(shown(&much).await, (head.clone(), tail.clone(), true));
    let few = start(&session, "printf 123456789", sides).await;
    assert_eq!(shown(&few).await, ("1".to_owned(), "23456789".to_owned(), false));
    let none = start(&session, "echo a", NotifyPolicy { tail_bytes: Some(0), ..Default::default() }).await;
    assert_eq!(shown(&none).await, (String::new(), String::new(), true));
    // A server that never saw the beginning reads it from the log.
    let long = start(&session, &format!("seq 1 60000; {}", gate("end")), sides).await;
    session.until_output(&long, "\n3\n").await;
    eventually("all is printed", async || (session.get(&long).await.output_bytes > 340_000).then_some(())).await;
    server.restart().await;
    pass(&session, "end").await;
    assert_eq!(shown(&long).await, (head, tail, true));
}

async fn silence_after_output_is_announced_once_each_time(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let mut live = session.subscribe(Default::default()).await;
    let command = format!("{}; echo one; {}; echo two; {}", gate("1"), gate("2"), gate("3"));
    let notify = NotifyPolicy { idle_after: duration(1.0), ..Default::default() };
    let task = start(&session, &command, notify).await;
    // Silence without output before it is not announced.
    assert_eq!(live.within(Duration::from_secs(3)).await, None);
    pass(&session, "1").await;
    let idle = live.next().await;
    assert_eq!((idle.kind(), idle.status(), idle.output_bytes), (NotificationKind::Idle, TaskStatus::Running, 4));
    let heartbeat = idle.heartbeat.unwrap();
    assert_eq!(heartbeat.last_line, "one");
    assert!(heartbeat.silent_for.unwrap().seconds >= 1, "{heartbeat:?}");
    assert!(idle.text.contains("kind=\"idle\"") && idle.text.contains("<last-line>one</last-line>"), "{}", idle.text);
    let since = session.get(&task).await.idle_since;
    assert_eq!(live.within(Duration::from_secs(3)).await, None, "once for each silence");
    pass(&session, "2").await;
    assert_eq!(live.next().await.kind(), NotificationKind::Idle);
    assert!(time(session.get(&task).await.idle_since) > time(since));
    pass(&session, "3").await;
    assert_eq!(live.next().await.kind(), NotificationKind::Completed);
    assert_eq!(session.finished(&task).await.idle_since, None);
    assert_eq!(session.told_of(&task).await, ["idle", "idle", "completed"]);
}

#[tokio::test]
async fn heartbeats_continue_after_a_restart_without_burst() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let notify = NotifyPolicy { heartbeat_every: duration(60.0), ..policy(CompletionPolicy::Never) };
    let task = start(&session, "echo step 1; sleep 300", notify).await;
    session.until_output(&task, "step 1").await;
    server.restart().await;
    let told = async |count| {
        crate::support::wait::within(Duration::from_secs(100), "a heartbeat comes", async || {
            let told = session.told().await;
            (told.len() >= count).then_some(told)
        })
        .await
    };
    let first = told(1).await.remove(0);
    let seconds = first.duration.unwrap().seconds;
    // It counts from the command's start, not from that of the server. The sandbox tells the start to within some hundredths of a second.
    assert!((59..75).contains(&seconds), "{seconds}");
    assert_eq!((first.kind(), first.output_bytes), (NotificationKind::Heartbeat, 7));
    assert_eq!(first.heartbeat.unwrap().last_line, "step 1");
    assert!(first.text.contains("The background command has been running for "), "{}", first.text);
    // Two restarts later, the next one is due one interval after the first.
    server.restart().await;
    server.restart().await;
    let second = told(2).await.remove(1);
    let later = second.duration.unwrap().seconds - seconds;
    assert!((59..75).contains(&later), "{later}");
    session.stop(&task, Some(0.0)).await;
    assert_eq!(session.told().await.len(), 2, "one for each interval, and no end");
}

#[tokio::test]
async fn own_stop_wakes_no_session() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let mut live = session.subscribe(Default::default()).await;
    let tasks =
        [session.running("sleep 300").await, session.running("sleep 300").await, session.running("sleep 300").await];
    let stop = |task: &Task, acknowledge| StopTaskRequest {
        task_id: task.id(),
        grace: duration(0.0),
        acknowledge,
        ..Default::default()
    };
    session.tasks().stop_task(stop(&tasks[0], true)).await.unwrap();
    let all = StopTasksRequest { bot_id: session.bot.clone(), acknowledge: true, ..Default::default() };
    assert_eq!(session.tasks().stop_tasks(all).await.unwrap().into_inner().stopped_count, 2);
    assert_eq!(live.within(WHILE).await, None);
    assert!(session.drain(None).await.notifications.is_empty());
    let told = session.told().await;
    assert!(told.len() == 3 && told.iter().all(|told| told.acknowledged_at.is_some()), "{told:?}");
    // A stop that came too late brought nothing about.
    let finished = session.run("exit 3").await;
    let stopped = session.tasks().stop_task(stop(&finished, true)).await.unwrap().into_inner().task.unwrap();
    assert_eq!(ended(&stopped), "exited 3");
    assert_eq!(live.next().await.task_id, finished.task_id);
    // The first of several stops counts.
    let deaf = session.start("trap '' TERM; echo ready; while :; do sleep 0.1; done").await;
    session.until_output(&deaf, "ready").await;
    let first = StopTaskRequest { grace: duration(50.0), ..stop(&deaf, false) };
    let mut tasks = session.tasks();
    let first = tokio::spawn(async move { tasks.stop_task(first).await });
    session.until(&deaf, TaskStatus::Stopping).await;
    session.tasks().stop_task(stop(&deaf, true)).await.unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(live.next().await.task_id, deaf.task_id);
}

#[tokio::test]
async fn own_stop_survives_a_crash_of_the_server() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.start("trap '' TERM; echo ready; while :; do sleep 0.1; done").await;
    session.until_output(&task, "ready").await;
    let request =
        StopTaskRequest { task_id: task.id(), grace: duration(50.0), acknowledge: true, ..Default::default() };
    let mut tasks = session.tasks();
    let stopping = tokio::spawn(async move { tasks.stop_task(request).await });
    session.until(&task, TaskStatus::Stopping).await;
    server.restart().await;
    assert!(stopping.await.unwrap().is_err());
    assert_eq!(ended(&session.finished(&task).await), "stopped request 9");
    assert!(session.drain(None).await.notifications.is_empty());
    let told = session.told().await;
    let [told] = &told[..] else { panic!("{told:?}") };
    assert!(kind(told.kind()) == "completed" && told.acknowledged_at.is_some(), "{told:?}");
}
