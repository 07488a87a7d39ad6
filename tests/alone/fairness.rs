//! A greedy tenant beside a quiet one on the real server: measures how long the quiet tenant waits for its answers.

use std::time::{Duration, Instant};

use errand_proto::v1::*;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use crate::support::{
    client::{Session, duration},
    docker::Image,
    server::Server,
};

/// How many commands the quiet tenant runs in each half of the measurement.
const COMMANDS: usize = 150;
/// The greedy tenant's limit in requests per second. Its flood sends many times that.
const ALLOWED: u32 = 50;
/// How long the flood pauses after a refusal, so that its own client leaves the machine's processors to the server.
const PAUSE: Duration = Duration::from_millis(5);
/// The quiet tenant's p99 may always be this long, whatever it is without the flood: everything runs on one machine, with the clients, in
/// an unoptimized build, and fairly shared work still shares the processors.
const FLOOR: Duration = Duration::from_secs(1);

fn entry(tenant: &str) -> String {
    let hash = hex::encode(Sha256::digest(tenant.as_bytes()));
    format!("[[tokens]]\ntenant = \"{tenant}\"\nsha256 = \"{hash}\"\n")
}

/// Runs commands one after the other. Returns how long each took from its start to the answer that it has ended, and how long each query
/// about it took.
async fn measure(session: &Session) -> [Vec<Duration>; 2] {
    let (mut runs, mut questions) = (Vec::new(), Vec::new());
    for _ in 0..COMMANDS {
        let begun = Instant::now();
        let task = session.run("true").await;
        runs.push(begun.elapsed());
        let begun = Instant::now();
        session.get(&task).await;
        questions.push(begun.elapsed());
    }
    [runs, questions].map(|mut times| {
        times.sort_unstable();
        times
    })
}

fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

/// Returns the answer, or pauses after a refusal.
async fn asked<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer.into_inner()),
        Err(_) => {
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

/// Sends every kind of request of one tenant, again and again, until the set is dropped.
fn flood(server: &Server) -> JoinSet<()> {
    let mut flood = JoinSet::new();
    for number in 0..8 {
        let session = server.session_with("greedy", &format!("start-{}", number % 2), "session");
        let request =
            StartTaskRequest { labels: [("key".to_owned(), "value".to_owned())].into(), ..session.request("true") };
        flood.spawn(async move {
            loop {
                if let Some(started) = asked(session.tasks().start_task(request.clone()).await).await {
                    let task_id = started.task.unwrap().task_id;
                    let wait = WaitTaskRequest { task_id, timeout: duration(60.0), ..Default::default() };
                    asked(session.tasks().wait_task(wait).await).await;
                }
            }
        });
    }
    for _ in 0..8 {
        let session = server.session_with("greedy", "start-0", "session");
        let labels = [("key".to_owned(), "other".to_owned())].into();
        let request = ListTasksRequest { labels, page_size: 1000, ..Default::default() };
        flood.spawn(async move {
            loop {
                asked(session.tasks().list_tasks(request.clone()).await).await;
            }
        });
    }
    for number in 0..20 {
        let session = server.session_with("greedy", &format!("made-{number}"), "session");
        flood.spawn(async move {
            let request = EnsureSandboxRequest { bot_id: session.bot.clone(), spec: None };
            loop {
                asked(session.sandboxes().ensure_sandbox(request.clone()).await).await;
            }
        });
    }
    flood
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_tenant_slows_a_quiet_one_little() {
    let Some(mut server) = Server::prepare(Image::Busybox).await else { return };
    let limit = format!("[tenants.greedy]\nmax_requests_per_second = {ALLOWED}\n");
    let file = server.file("tokens.toml", &(entry("greedy") + &entry("quiet") + &limit));
    server.flags.extend(["--tokens-file".to_owned(), file]);
    server.launch().await;
    let quiet = server.session_with("quiet", "quiet", "session");
    // The first command creates the sandbox.
    quiet.run("true").await;
    let alone = measure(&quiet).await;
    let mut flood = flood(&server);
    let beside = measure(&quiet).await;
    flood.shutdown().await;
    for (what, alone, beside) in [("a command", &alone[0], &beside[0]), ("a question", &alone[1], &beside[1])] {
        let said = format!("{what}: p99 alone {:?}, beside a greedy tenant {:?}", p99(alone), p99(beside));
        eprintln!("{said}; medians {:?} and {:?}", alone[COMMANDS / 2], beside[COMMANDS / 2]);
        assert!(p99(beside) <= FLOOR.max(2 * p99(alone)), "{said}");
    }
}
