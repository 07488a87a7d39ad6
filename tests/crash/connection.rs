//! The engine is unreachable for a time: its connections break, or go silent. Commands are unaffected.

use std::time::Duration;

use errand_proto::v1::{GetTaskRequest, SandboxState, StopTasksRequest, TaskStatus};
use tonic::Code;

use super::invariants::Tasks;
use crate::support::{
    client::{Session, duration, refused},
    docker::Image,
    proxy::Proxy,
    server::Server,
    wait::{eventually, soon},
};

/// How long the engine is unreachable.
const OUTAGE: Duration = Duration::from_secs(4);
/// How many tasks are stopped during the outage.
const STOPS: usize = 16;

async fn server(proxy: &Proxy) -> Option<Server> {
    let url = proxy.url();
    let mut server = Server::prepare(Image::Debian).await?;
    server.ground.docker()?;
    server.flags.extend(["--docker-host".to_owned(), url]);
    server.launch().await;
    Some(server)
}

fn gate(name: &str) -> String {
    format!("until [ -e /workspace/{name} ]; do sleep 0.1; done")
}

async fn pass(server: &Server, container: &str, name: &str) {
    server.ground.exec(container, &format!("touch /workspace/{name}")).await;
}

/// Starts tasks that end before, during and after an outage, and one that prints all the time.
async fn start(session: &Session) -> Tasks {
    let mut tasks = Tasks::of(session);
    tasks.start("exit 1", "exited 1").await;
    tasks.start(&format!("{}; echo during; exit 2", gate("during")), "exited 2").await;
    tasks.start(&format!("{}; kill -9 $$", gate("during")), "signaled 9").await;
    tasks.start(&format!("{}; echo after; exit 3", gate("after")), "exited 3").await;
    let printer = "i=0; until [ -e /workspace/after ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 4";
    let printing = tasks.start(printer, "exited 4").await;
    session.until_output(&printing, "3\n").await;
    eventually("all run", async || {
        tasks.now().await[1..].iter().all(|task| task.status() == TaskStatus::Running).then_some(())
    })
    .await;
    tasks
}

/// Checks all tasks, and that the printer's output is complete.
async fn check(session: &Session, tasks: &Tasks) {
    tasks.check().await;
    let printer = tasks.now().await.pop().unwrap();
    let output = session.text(&printer).await;
    let numbers: Vec<usize> = output.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
    assert_eq!(printer.output_bytes, i64::try_from(output.len()).unwrap());
}

async fn outlast(begin: fn(&Proxy)) {
    let proxy = Proxy::open();
    let Some(server) = server(&proxy).await else { return };
    let session = server.session("bot", "session");
    let tasks = start(&session).await;
    let container = session.sandbox().await.unwrap().container_id;
    let meanwhile = async {
        pass(&server, &container, "during").await;
        // What the server already knows can still be queried.
        assert_eq!(tasks.now().await[3].status(), TaskStatus::Running);
    };
    tokio::join!(proxy.outage(begin, OUTAGE), meanwhile);
    pass(&server, &container, "after").await;
    check(&session, &tasks).await;
}

#[tokio::test]
async fn commands_outlast_connections_that_break() {
    outlast(Proxy::cut).await;
}

#[tokio::test]
async fn commands_outlast_connections_that_go_silent() {
    outlast(Proxy::black_hole).await;
}

#[tokio::test]
async fn start_during_an_outage_is_refused_with_reason() {
    let proxy = Proxy::open();
    let Some(server) = server(&proxy).await else { return };
    let session = server.session("bot", "session");
    let mut tasks = Tasks::of(&session);
    tasks.start("exit 1", "exited 1").await;
    tasks.check().await;
    proxy.cut();
    let fresh = server.session("fresh", "session");
    let words = refused(fresh.try_start(fresh.request("echo")).await, Code::Unavailable);
    assert!(words.contains("the runtime does not answer"), "{words}");
    assert_eq!(session.sandbox().await.unwrap().state(), SandboxState::Unknown);
    proxy.heal();
    assert_eq!(fresh.told().await, [], "what was refused was not accepted");
    tasks.start("exit 5", "exited 5").await;
    tasks.check().await;
    fresh.run("exit 0").await;
    assert_eq!(server.containers().await.len(), 2, "one for each bot, and nothing half-made");
}

#[tokio::test]
async fn tasks_accepted_before_an_outage_launch_once() {
    let proxy = Proxy::open();
    let Some(server) = server(&proxy).await else { return };
    let session = server.session("bot", "session");
    let mut tasks = Tasks::of(&session);
    let first = tasks.start("exit 1", "exited 1").await;
    session.finished(&first).await;
    for number in 1..=6 {
        if number == 3 {
            proxy.cut();
        }
        let request = Tasks::request(&session, &format!("mark-{number}"), &format!("exit {number}"));
        // A task is accepted while the server saw the sandbox recently, and refused after that.
        match session.try_start(request).await {
            Ok(started) => tasks.note(&started.task.unwrap(), &format!("exited {number}")),
            Err(status) => assert!(number >= 3 && status.code() == Code::Unavailable, "{status:?}"),
        }
    }
    proxy.outage(Proxy::cut, Duration::from_secs(2)).await;
    tasks.excuse_cut_launches(6).await;
    tasks.check().await;
}

#[tokio::test]
async fn server_started_in_an_outage_reconciles_afterwards() {
    let proxy = Proxy::open();
    let Some(mut server) = server(&proxy).await else { return };
    let session = server.session("bot", "session");
    let tasks = start(&session).await;
    let container = session.sandbox().await.unwrap().container_id;
    let task_id = tasks.now().await.pop().unwrap().task_id;
    server.kill();
    proxy.cut();
    pass(&server, &container, "during").await;
    server.launch().await;
    // The server serves, and reports of this bot alone that its state is not known yet.
    let get = GetTaskRequest { task_id, ..Default::default() };
    let message = refused(session.tasks().get_task(get).await, Code::Unavailable);
    assert!(message.contains("reconciled") && message.contains("does not answer"), "{message}");
    assert!(!session.told().await.is_empty(), "what is stored is delivered");
    proxy.heal();
    pass(&server, &container, "after").await;
    check(&session, &tasks).await;
}

#[tokio::test]
async fn stops_during_an_outage_act_afterwards() {
    let proxy = Proxy::open();
    let Some(server) = server(&proxy).await else { return };
    let session = server.session("bot", "session");
    let mut tasks = Tasks::of(&session);
    // Many stops, so that for some of them the signal and the end of the connection come at the same moment.
    for _ in 0..STOPS {
        let task = tasks.start("setsid sleep 7600 & sleep 7601", "stopped request 15").await;
        session.until(&task, TaskStatus::Running).await;
    }
    eventually("all of it runs", async || {
        // The shell has the command's text in its arguments, which is one match more.
        let all = 2 * STOPS;
        (session.processes("sleep 7600").await == all && session.processes("sleep 7601").await == all).then_some(())
    })
    .await;
    proxy.cut();
    let request = StopTasksRequest { bot_id: session.bot.clone(), grace: duration(30.0), ..Default::default() };
    let stopping = tokio::spawn({
        let session = session.clone();
        async move { soon("all are stopped", session.tasks().stop_tasks(request)).await }
    });
    proxy.outage(Proxy::cut, Duration::from_secs(2)).await;
    stopping.await.unwrap().unwrap();
    assert_eq!(session.processes("sleep 760").await, 0);
    tasks.check().await;
}
