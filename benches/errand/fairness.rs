//! A quiet tenant beside a greedy one.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use errand_proto::v1::{ListTasksRequest, StartTaskRequest, WaitTaskRequest, task_service_client::TaskServiceClient};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{
    apart::{ELSEWHERE, apart},
    plan::Plan,
    server::Server,
    table::{Table, milliseconds, percentile},
};

/// How many times as long the quiet tenant may wait.
const LIMIT: f64 = 2.0;
/// The greedy tenant's limit in requests per second. The tenant uses all of it.
const ALLOWED: u32 = 50;
/// The greedy tenant's concurrent calls of each kind.
const GREED: usize = 16;
/// How long the greedy tenant's client pauses after a refusal: the client shares the processors with the server.
const REST: Duration = Duration::from_millis(20);

/// Adds a token to each request.
#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Tasks = TaskServiceClient<InterceptedService<Channel, Bearer>>;

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    eprintln!("a quiet tenant beside a greedy one");
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("tokens.toml");
    fs::write(
        &file,
        format!("{}{}[tenants.greedy]\nmax_requests_per_second = {ALLOWED}\n", entry("greedy"), entry("quiet")),
    )?;
    let file = file.to_str().context("a path")?;
    let server = Server::start(docker, &["--network-mode", "none", "--tokens-file", file]).await?;
    let quiet = tasks(&server.endpoint(), "quiet").await?;
    // The first command creates the sandbox.
    run(&mut quiet.clone(), "quiet").await?;
    let alone = several(plan.latencies, &quiet).await?;
    let (over, enough) = tokio::sync::oneshot::channel::<()>();
    let greedy = server.endpoint();
    let flooding = tokio::spawn(apart(ELSEWHERE, move || async move {
        let mut flood = flood(tasks(&greedy, "greedy").await?);
        // `over` is dropped when the measurement ends.
        let _ = enough.await;
        flood.shutdown().await;
        Ok::<_, anyhow::Error>(())
    }));
    let beside = several(plan.latencies, &quiet).await;
    drop(over);
    flooding.await???;
    let beside = beside?;

    let what = "`true` of a quiet tenant, from its start to its end, beside a greedy tenant";
    let [alone, beside] = [alone, beside].map(|taken| percentile(&taken, 0.99));
    table.below(&format!("{what}: p99 against alone"), beside.as_secs_f64() / alone.as_secs_f64(), "times", LIMIT);
    table.note(&format!("{what}: p99 / alone"), format!("{} / {}", milliseconds(beside), milliseconds(alone)));
    Ok(())
}

fn entry(tenant: &str) -> String {
    let hash = hex::encode(Sha256::digest(tenant.as_bytes()));
    format!("[[tokens]]\ntenant = \"{tenant}\"\nsha256 = \"{hash}\"\n")
}

async fn tasks(server: &Endpoint, tenant: &str) -> Result<Tasks> {
    let bearer = Bearer(format!("Bearer {tenant}").parse()?);
    Ok(TaskServiceClient::new(InterceptedService::new(server.connect().await?, bearer)))
}

/// Runs a command that does nothing, and waits for its end.
async fn run(tasks: &mut Tasks, bot: &str) -> Result<()> {
    let request = StartTaskRequest {
        bot_id: bot.to_owned(),
        session_id: "bench".to_owned(),
        command: "true".to_owned(),
        shell: "sh".to_owned(),
        ..StartTaskRequest::default()
    };
    let task_id = tasks.start_task(request).await?.into_inner().task.context("a task")?.task_id;
    let waited = tasks.wait_task(WaitTaskRequest { task_id, ..WaitTaskRequest::default() }).await?.into_inner();
    ensure!(waited.task.is_some_and(|task| task.outcome.is_some()), "the command did not end");
    Ok(())
}

async fn several(count: usize, quiet: &Tasks) -> Result<Vec<Duration>> {
    let mut taken = Vec::new();
    let mut quiet = quiet.clone();
    for _ in 0..count {
        let begun = Instant::now();
        run(&mut quiet, "quiet").await?;
        taken.push(begun.elapsed());
    }
    Ok(taken)
}

/// Sends as many calls of the greedy tenant as possible, until the set is dropped.
fn flood(greedy: Tasks) -> JoinSet<()> {
    let mut flood = JoinSet::new();
    for number in 0..2 * GREED {
        let mut greedy = greedy.clone();
        flood.spawn(async move {
            loop {
                let refused = if number % 2 == 0 {
                    run(&mut greedy, "greedy").await.is_err()
                } else {
                    let labels = [("key".to_owned(), "value".to_owned())].into();
                    greedy.list_tasks(ListTasksRequest { labels, page_size: 1000, ..Default::default() }).await.is_err()
                };
                if refused {
                    tokio::time::sleep(REST).await;
                }
            }
        });
    }
    flood
}
