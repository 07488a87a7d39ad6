//! Tasks that wait in the queue: in order, fairly, visible, stoppable, and not for ever.

use errand_proto::v1::{run_task_response::Event, *};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    client::{Session, bytes, duration, ended, refused, time},
    docker::Image,
    server::Server,
    wait::{eventually, soon},
};

/// A command that keeps its place until [`release`].
const HOLD: &str = "until [ -e /workspace/go ]; do sleep 0.1; done";

fn queued(session: &Session, command: &str) -> StartTaskRequest {
    StartTaskRequest { when_full: WhenFull::Queue.into(), ..session.request(command) }
}

/// Starts a task that has to wait.
async fn queue(session: &Session, command: &str) -> Task {
    let task = session.start_as(queued(session, command)).await;
    assert_eq!(task.status(), TaskStatus::Queued, "{task:?}");
    task
}

async fn release(session: &Session) {
    session.exec("touch /workspace/go").await;
}

#[tokio::test]
async fn queued_tasks_run_in_order() {
    let Some(server) = Server::on(Image::Busybox, &["--max-running-per-bot", "1"]).await else { return };
    let session = server.session("bot", "session");
    let holder = session.start_as(queued(&session, HOLD)).await;
    session.until(&holder, TaskStatus::Running).await;
    let mut tasks = Vec::new();
    for number in 0..6 {
        tasks.push(queue(&session, &format!("echo {number} >>/workspace/order")).await);
    }
    assert_eq!(tasks[0].queue_deadline, duration(3600.0), "the default");
    let listed = ListTasksRequest {
        bot_id: session.bot.clone(),
        statuses: vec![TaskStatus::Queued.into()],
        ..Default::default()
    };
    assert_eq!(session.listed(listed).await.len(), 6);
    let scope = SummarizeTasksRequest { bot_id: session.bot.clone(), ..Default::default() };
    let summary = session.tasks().summarize_tasks(scope).await.unwrap().into_inner();
    assert_eq!((summary.unfinished, summary.text.matches(" queued: ").count()), (7, 6), "{}", summary.text);
    let watch = WatchTasksRequest { bot_id: session.bot.clone(), ..Default::default() };
    let mut screen = session.tasks().watch_tasks(watch).await.unwrap().into_inner();
    let mut seen = 0;
    while seen < 6 {
        let change = soon("a screen shows it", screen.message()).await.unwrap().unwrap();
        let Some(watch_tasks_response::Event::Listed(task)) = change.event else { continue };
        seen += usize::from(task.status() == TaskStatus::Queued);
    }
    release(&session).await;
    for task in &tasks {
        assert_eq!(ended(&session.finished(task).await), "exited 0");
    }
    assert_eq!(session.exec("cat /workspace/order").await, "0\n1\n2\n3\n4\n5\n");
    assert_eq!(session.told().await.len(), 7, "each end is told");
}

#[tokio::test]
async fn bots_take_turns_in_the_queue() {
    let Some(server) = Server::on(Image::Busybox, &["--max-running-per-tenant", "1"]).await else { return };
    let (busy, quiet) = (server.session("busy", "session"), server.session("quiet", "session"));
    quiet.ensure(None).await.unwrap();
    busy.running(HOLD).await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(queue(&busy, "true").await);
    }
    for _ in 0..2 {
        tasks.push(queue(&quiet, "true").await);
    }
    release(&busy).await;
    let mut order = Vec::new();
    for task in &tasks {
        let task = busy.finished(task).await;
        order.push((time(task.finished_at), task.bot_id));
    }
    order.sort();
    let order: Vec<&str> = order.iter().map(|(_, bot)| bot.rsplit('-').next().unwrap()).collect();
    assert_eq!(order, ["busy", "quiet", "busy", "quiet", "busy", "busy", "busy", "busy"]);
}

#[tokio::test]
async fn queue_of_a_bot_delays_no_other() {
    let Some(server) = Server::on(Image::Busybox, &["--max-running-per-bot", "1"]).await else { return };
    let (busy, quiet) = (server.session("busy", "session"), server.session("quiet", "session"));
    quiet.ensure(None).await.unwrap();
    let holder = busy.running(HOLD).await;
    for _ in 0..50 {
        queue(&busy, "true").await;
    }
    for _ in 0..5 {
        assert_eq!(ended(&quiet.run("exit 3").await), "exited 3");
        assert_eq!(ended(&quiet.run_as(queued(&quiet, "exit 4")).await), "exited 4");
    }
    assert_eq!(busy.get(&holder).await.status(), TaskStatus::Running);
    let words = refused(busy.try_start(busy.request("true")).await, Code::ResourceExhausted);
    assert!(words.contains("come first"), "{words}");
    let stop = StopTasksRequest { bot_id: busy.bot.clone(), grace: duration(0.0), ..Default::default() };
    assert_eq!(busy.tasks().stop_tasks(stop).await.unwrap().into_inner().stopped_count, 51);
    assert_eq!(ended(&busy.run("exit 5").await), "exited 5");
}

#[tokio::test]
async fn stopped_queued_task_never_runs() {
    let Some(server) = Server::on(Image::Busybox, &["--max-running-per-bot", "1"]).await else { return };
    let session = server.session("bot", "session");
    let holder = session.running(HOLD).await;
    let [first, second] = [queue(&session, "touch /workspace/first").await, queue(&session, "exit 7").await];
    assert_eq!(ended(&session.stop(&first, None).await), "stopped request 0");
    assert_eq!(session.told_of(&first).await, ["completed"]);
    assert_eq!(session.get(&second).await.status(), TaskStatus::Queued);
    release(&session).await;
    assert_eq!(ended(&session.finished(&second).await), "exited 7");
    assert_eq!(session.exec("ls /workspace").await, "go\n");
    session.finished(&holder).await;
}

#[tokio::test]
async fn queue_deadline_ends_a_waiting_task() {
    let Some(server) = Server::on(Image::Busybox, &["--max-running-per-bot", "1"]).await else { return };
    let session = server.session("bot", "session");
    session.running(HOLD).await;
    let request = queued(&session, "touch /workspace/late");
    let late = session.start_as(StartTaskRequest { queue_deadline: duration(1.0), ..request }).await;
    let next = queue(&session, "exit 7").await;
    let over = session.finished(&late).await;
    assert_eq!(ended(&over), "failed_to_start QUEUE_DEADLINE");
    let Some(outcome::Kind::FailedToStart(failed)) = over.outcome.unwrap().kind else { unreachable!() };
    assert!(failed.message.contains("waited in the queue for 1s"), "{}", failed.message);
    assert_eq!(session.told_of(&late).await, ["completed"]);
    release(&session).await;
    assert_eq!(ended(&session.finished(&next).await), "exited 7");
    assert_eq!(session.exec("ls /workspace").await, "go\n");
}

#[tokio::test]
async fn queue_has_caps_of_its_own() {
    let flags = ["--max-running-per-bot", "1", "--max-queued-per-bot", "2", "--max-queued-per-tenant", "3"];
    let Some(server) = Server::on(Image::Busybox, &flags).await else { return };
    let (session, other) = (server.session("bot", "session"), server.session("other", "session"));
    session.running(HOLD).await;
    other.running(HOLD).await;
    let first = queue(&session, "true").await;
    queue(&session, "true").await;
    let status = session.try_start(queued(&session, "true")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message().matches('2').count(), 2, "both numbers: {}", status.message());
    let violation = &status.get_details_quota_failure().unwrap().violations[0];
    assert_eq!((violation.subject.as_str(), violation.description.as_str()), ("bot", "2 queued tasks of at most 2"));
    queue(&other, "true").await;
    let words = refused(other.try_start(queued(&other, "true")).await, Code::ResourceExhausted);
    assert_eq!(words.matches('3').count(), 2, "both numbers: {words}");
    session.stop(&first, None).await;
    queue(&other, "true").await;
}

#[tokio::test]
async fn repeated_queued_request_makes_one_task() {
    let Some(server) = Server::on(Image::Busybox, &["--max-running-per-bot", "1"]).await else { return };
    let session = server.session("bot", "session");
    session.running(HOLD).await;
    let request = StartTaskRequest { request_id: "r".to_owned(), ..queued(&session, "echo run >>/workspace/runs") };
    let first = session.start_as(request.clone()).await;
    let again = session.try_start(request.clone()).await.unwrap();
    assert!(again.existed && again.task.unwrap().task_id == first.task_id);
    release(&session).await;
    assert_eq!(ended(&session.finished(&first).await), "exited 0");
    assert!(session.try_start(request).await.unwrap().existed);
    assert_eq!(session.exec("cat /workspace/runs").await, "run\n");
}

#[tokio::test]
async fn run_task_waits_in_the_queue() {
    let Some(server) = Server::on(Image::Busybox, &["--max-running-per-bot", "1"]).await else { return };
    let session = server.session("bot", "session");
    let holder = session.running(HOLD).await;
    let run = |command: &str, background_after| RunTaskRequest {
        start: Some(queued(&session, command)),
        background_after: duration(background_after),
        ..Default::default()
    };
    let mut left = session.tasks().run_task(run("exit 3", 0.2)).await.unwrap().into_inner();
    let Some(Event::Accepted(task)) = left.message().await.unwrap().unwrap().event else { panic!("not accepted") };
    let event = soon("it moves to the background", left.message()).await.unwrap().unwrap().event;
    let Some(Event::Backgrounded(waiting)) = event else { panic!("{event:?}") };
    assert_eq!((waiting.task_id.as_str(), waiting.status()), (task.task_id.as_str(), TaskStatus::Queued));

    let mut stays = session.tasks().run_task(run("echo words", 60.0)).await.unwrap().into_inner();
    let Some(Event::Accepted(second)) = stays.message().await.unwrap().unwrap().event else { panic!("not accepted") };
    assert_eq!(second.status(), TaskStatus::Queued);
    release(&session).await;
    let (mut output, mut finished) = (Vec::new(), None);
    while let Some(message) = soon("the stream goes on", stays.message()).await.unwrap() {
        match message.event.unwrap() {
            Event::Output(part) => output.extend(bytes(&part)),
            Event::Finished(task) => finished = Some(task),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((output.as_slice(), ended(&finished.unwrap()).as_str()), (&b"words\n"[..], "exited 0"));
    assert_eq!(ended(&session.finished(&waiting).await), "exited 3");
    session.finished(&holder).await;
}

#[tokio::test]
async fn deletion_of_a_sandbox_ends_its_queue() {
    let Some(server) = Server::on(Image::Busybox, &["--max-running-per-bot", "1"]).await else { return };
    let session = server.session("bot", "session");
    session.running(HOLD).await;
    let waiting = queue(&session, "true").await;
    let delete = DeleteSandboxRequest { bot_id: session.bot.clone() };
    soon("the sandbox is deleted", session.sandboxes().delete_sandbox(delete)).await.unwrap();
    assert_eq!(ended(&session.get(&waiting).await), "stopped sandbox_deleted 0");
    assert_eq!(ended(&session.run("exit 3").await), "exited 3");
}

#[tokio::test]
async fn queue_deadline_counts_time_without_a_server() {
    let Some(mut server) = Server::on(Image::Busybox, &["--max-running-per-bot", "1"]).await else { return };
    let session = server.session("bot", "session");
    session.running(HOLD).await;
    let request = |seconds| StartTaskRequest { queue_deadline: duration(seconds), ..queued(&session, "true") };
    let (short, long) = (session.start_as(request(30.0)).await, session.start_as(request(3600.0)).await);
    server.kill();
    // As if they had been accepted a minute earlier.
    let database = rusqlite::Connection::open(server.database()).unwrap();
    let seconds = "$.created_at.secs_since_epoch";
    let earlier = format!(
        "UPDATE tasks SET record = json_set(record, '{seconds}', json_extract(record, '{seconds}') - 60) WHERE waits = 1"
    );
    assert_eq!(database.execute(&earlier, []).unwrap(), 2);
    drop(database);
    server.launch().await;
    assert_eq!(ended(&session.finished(&short).await), "failed_to_start QUEUE_DEADLINE");
    assert_eq!(session.get(&long).await.status(), TaskStatus::Queued);
    release(&session).await;
    assert_eq!(ended(&session.finished(&long).await), "exited 0");
}

#[tokio::test]
async fn leap_of_the_clock_ends_no_waiting_task() {
    let Some(mut server) = Server::on(Image::Busybox, &["--max-running-per-bot", "1"]).await else { return };
    let session = server.session("bot", "session");
    session.running(HOLD).await;
    let request = StartTaskRequest { queue_deadline: duration(86_400.0), ..queued(&session, "true") };
    // The first sweep has stored when the clock was last seen.
    eventually("the clock is noted", async || {
        let database = rusqlite::Connection::open(server.database()).unwrap();
        let noted =
            database.query_row("SELECT count(*) FROM meta WHERE key = 'timeline'", [], |row| row.get::<_, i64>(0));
        (noted.unwrap() == 1).then_some(())
    })
    .await;
    let waiting = session.start_as(request).await;
    server.kill();
    // As if the clock had leapt 60 days forward an hour after the task was accepted, while no server ran.
    let database = rusqlite::Connection::open(server.database()).unwrap();
    let days = 60 * 24 * 3600;
    let kept: String =
        database.query_row("SELECT value FROM meta WHERE key = 'timeline'", [], |row| row.get(0)).unwrap();
    let mut kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    kept["seen"]["secs_since_epoch"] = (kept["seen"]["secs_since_epoch"].as_u64().unwrap() - days).into();
    database.execute("UPDATE meta SET value = ? WHERE key = 'timeline'", [kept.to_string()]).unwrap();
    let seconds = "$.created_at.secs_since_epoch";
    let earlier = format!(
        "UPDATE tasks SET record = json_set(record, '{seconds}', json_extract(record, '{seconds}') - {}) WHERE waits = 1",
        days - 3600
    );
    assert_eq!(database.execute(&earlier, []).unwrap(), 1);
    drop(database);
    server.launch().await;
    assert_eq!(session.get(&waiting).await.status(), TaskStatus::Queued, "that time has not passed");
    session.stop(&waiting, None).await;
}
