//! A server that is killed with many sandboxes, some of which do not answer afterwards.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use errand_proto::v1::{GetTaskRequest, StartTaskRequest, TaskStatus, task_service_client::TaskServiceClient};
use tonic::transport::Channel;

use crate::{
    at_once::at_once,
    plan::Plan,
    server::Server,
    table::{Table, milliseconds},
};

/// One in this many sandboxes does not answer.
const HOSTILE: usize = 20;
/// How many sandboxes are created, queried and removed concurrently.
const AT_A_TIME: usize = 4;
/// How soon the server must serve after the restart, in seconds.
const LIMIT: f64 = 1.0;
/// How long a command may take until it is running.
const RUNNING_LIMIT: Duration = Duration::from_mins(1);
/// Stops the bridge process of its own sandbox, which has the same user, and stays. It waits until the server has been told that it runs.
const STOP_BRIDGE: &str = "sleep 2; for p in /proc/[0-9]*; do read -r name <$p/comm || continue
case $name in errand-bridge|errand-spawner) kill -STOP ${p#/proc/};; esac; done 2>/dev/null; sleep 100000";

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    let count = plan.hostile_among;
    eprintln!("recovery of {count} sandboxes, some of which do not answer");
    let flags = ["--image", "host", "--network-mode", "none", "--max-sandboxes-per-tenant", "10000"];
    let mut server = Server::on("embedded", docker, &flags).await?;
    let measured = restarted(count, &mut server, table).await;
    // The sandboxes are removed even if a measurement failed: without a container engine, nothing else would remove them.
    let server = Arc::new(server);
    let delete = {
        let server = Arc::clone(&server);
        move |number| {
            let server = Arc::clone(&server);
            // A failure must not leave the other sandboxes behind.
            let delete = move || {
                let server = Arc::clone(&server);
                async move { server.delete(&bot(number)).await }
            };
            async move { Ok(when_available(delete).await.err()) }
        }
    };
    let failures = at_once(AT_A_TIME, count, delete).await?.1;
    measured?;
    if let Some(error) = failures.into_iter().flatten().next() {
        return Err(error);
    }
    Ok(())
}

fn bot(number: usize) -> String {
    format!("sandbox-{number}")
}

fn is_hostile(number: usize) -> bool {
    number.is_multiple_of(HOSTILE)
}

async fn restarted(count: usize, server: &mut Server, table: &mut Table) -> Result<()> {
    let tasks = start(count, TaskServiceClient::new(server.connect().await?)).await?;
    server.kill()?;
    let begun = Instant::now();
    server.start_again().await?;
    let serving = begun.elapsed();
    let honest = tasks.into_iter().filter(|(number, _)| !is_hostile(*number)).map(|(_, task)| task).collect();
    let wrong = not_running(honest, TaskServiceClient::new(server.connect().await?)).await?;
    let answered = begun.elapsed();

    let what = format!("kill -9 of the server, {count} sandboxes of which {} do not answer", count.div_ceil(HOSTILE));
    table.below(&format!("{what}: until it serves"), serving.as_secs_f64(), "s", LIMIT);
    table.below(&format!("{what}: running tasks of the others that are not told as such"), wrong as f64, "tasks", 1.0);
    table.note(&format!("{what}: until all others have answered"), milliseconds(answered));
    Ok(())
}

/// Starts a command in each sandbox. Returns the sandboxes' numbers and the task ids.
async fn start(count: usize, tasks: TaskServiceClient<Channel>) -> Result<Vec<(usize, String)>> {
    let work = move |number: usize| {
        let mut tasks = tasks.clone();
        async move {
            let command = if is_hostile(number) { STOP_BRIDGE } else { "sleep 100000" };
            let request = StartTaskRequest {
                bot_id: bot(number),
                session_id: "bench".to_owned(),
                command: command.to_owned(),
                shell: "sh".to_owned(),
                ..StartTaskRequest::default()
            };
            let task = tasks.start_task(request).await?.into_inner().task.context("a task")?.task_id;
            let deadline = Instant::now() + RUNNING_LIMIT;
            while status(&mut tasks, &task).await? != TaskStatus::Running {
                ensure!(Instant::now() < deadline, "a task does not run");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok((number, task))
        }
    };
    Ok(at_once(AT_A_TIME, count, work).await?.1)
}

/// How many of these tasks the server does not report as running.
async fn not_running(ids: Vec<String>, tasks: TaskServiceClient<Channel>) -> Result<usize> {
    let count = ids.len();
    let work = move |number: usize| {
        let (tasks, id) = (tasks.clone(), ids[number].clone());
        async move {
            let ask = || {
                let (mut tasks, id) = (tasks.clone(), id.clone());
                async move { status(&mut tasks, &id).await }
            };
            Ok(usize::from(when_available(ask).await? != TaskStatus::Running))
        }
    };
    Ok(at_once(64, count, work).await?.1.iter().sum())
}

/// Calls again while the bot of the call is being reconciled, for a minute at most.
async fn when_available<T, F: Future<Output = Result<T>>>(call: impl Fn() -> F) -> Result<T> {
    let deadline = Instant::now() + RUNNING_LIMIT;
    loop {
        match call().await {
            Err(error) if is_unavailable(&error) && Instant::now() < deadline => {}
            other => return other,
        }
    }
}

fn is_unavailable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<tonic::Status>().is_some_and(|status| status.code() == tonic::Code::Unavailable)
}

async fn status(tasks: &mut TaskServiceClient<Channel>, task: &str) -> Result<TaskStatus> {
    let request = GetTaskRequest { task_id: task.to_owned(), ..GetTaskRequest::default() };
    Ok(tasks.get_task(request).await?.into_inner().task.unwrap_or_default().status())
}
