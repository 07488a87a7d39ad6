//! A server that is killed, and commands that end while no server runs.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bollard::Docker;
use errand_proto::v1::{Notification, outcome::Kind};

use crate::{
    at_once::at_once,
    client::Client,
    plan::Plan,
    server::{Bot, Server},
    table::{Table, milliseconds},
};

const LIMIT: f64 = 5.0;
/// How long commands may take to end.
const END_LIMIT: Duration = Duration::from_mins(1);
/// Commands wait at one of two gates. The first opens while no server runs, the second after the restart.
const GATES: [&str; 2] = ["/tmp/errand-bench-first", "/tmp/errand-bench-second"];

/// A task and its expected exit code.
#[derive(Clone)]
struct Expected {
    bot: usize,
    task: String,
    code: i32,
}

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    let count = plan.recovered;
    eprintln!("recovery of {count} running and {count} finished tasks");
    let mut server = Server::start(docker, &[]).await?;
    let mut bots = server.bots(plan.sandboxes).await?;
    for bot in &bots {
        bot.sandbox.bare().run(&format!("mkfifo {}", GATES.join(" "))).await?;
    }
    let [finished, running] = [start(count, GATES[0], &bots).await?, start(count, GATES[1], &bots).await?];
    server.kill()?;
    open(GATES[0], &bots).await?;
    ended(count, &bots).await?;

    let begun = Instant::now();
    server.start_again().await?;
    let serving = begun.elapsed();
    for bot in &mut bots {
        bot.client = server.client(bot.client.bot()).await?;
    }
    let mut wrong = wrong(&finished, &bots).await?;
    let announced = begun.elapsed();
    let mut still_running = 0;
    for bot in &mut bots {
        still_running += bot.client.count_running().await?;
    }
    let known = begun.elapsed();
    wrong += still_running.abs_diff(count);
    // Tasks that the server found running must be followed to their real end too.
    open(GATES[1], &bots).await?;
    wrong += self::wrong(&running, &bots).await?;

    let what = format!("kill -9 of the server, {count} running and {count} finished meanwhile");
    table.below(&format!("{what}: until all is announced and known"), known.as_secs_f64(), "s", LIMIT);
    table.below(&format!("{what}: outcomes that are wrong or missing"), wrong as f64, "tasks", 1.0);
    let shown = format!("{} / {}", milliseconds(serving), milliseconds(announced));
    table.note(&format!("{what}: until it serves / all is announced"), shown);
    Ok(())
}

/// Starts commands that wait at a gate, and waits until all of them do.
async fn start(count: usize, gate: &'static str, bots: &[Bot]) -> Result<Vec<Expected>> {
    let clients: Vec<Client> = bots.iter().map(|bot| bot.client.clone()).collect();
    let work = move |number: usize| {
        let bot = number % clients.len();
        let mut client = clients[bot].clone();
        async move {
            let code = number % 256;
            let task = client.start(&format!("echo waiting; read -r line <{gate}; exit {code}")).await?;
            client.running(&task).await?;
            Ok(Expected { bot, task, code: i32::try_from(code)? })
        }
    };
    Ok(at_once(8, count, work).await?.1)
}

/// Opens a gate.
async fn open(gate: &str, bots: &[Bot]) -> Result<()> {
    for bot in bots {
        bot.sandbox.bare().run(&format!(": >{gate}")).await?;
    }
    Ok(())
}

/// Waits until this many commands have ended.
async fn ended(count: usize, bots: &[Bot]) -> Result<()> {
    let deadline = Instant::now() + END_LIMIT;
    loop {
        let mut ended = 0;
        for bot in bots {
            ended += bot.sandbox.bare().run("ls /tmp/errand/*/exit 2>/dev/null | wc -l").await?.parse::<usize>()?;
        }
        if ended >= count {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{ended} of {count} commands have ended");
    }
}

/// How many tasks are announced with a wrong outcome, or not at all.
async fn wrong(tasks: &[Expected], bots: &[Bot]) -> Result<usize> {
    let clients: Vec<Client> = bots.iter().map(|bot| bot.client.clone()).collect();
    let tasks = tasks.to_vec();
    let count = tasks.len();
    let work = move |number: usize| {
        let (client, expected) = (clients[tasks[number].bot].clone(), tasks[number].clone());
        async move {
            // A missing completion counts as wrong too.
            let right = client.completion(&expected.task).await.is_ok_and(|told| exited(&told) == Some(expected.code));
            Ok(usize::from(!right))
        }
    };
    Ok(at_once(count, count, work).await?.1.iter().sum())
}

fn exited(notification: &Notification) -> Option<i32> {
    match notification.outcome.as_ref()?.kind.as_ref()? {
        Kind::Exited(exited) => Some(exited.code),
        _ => None,
    }
}
