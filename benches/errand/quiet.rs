//! The cost of many silent tasks, in the server and in the sandboxes.

use std::time::{Duration, Instant};

use anyhow::Result;
use bollard::Docker;

use crate::{
    at_once::at_once,
    plan::Plan,
    proc,
    sandbox::Memory,
    server::{Bot, Server},
    table::Table,
};

/// The most memory per task in kilobytes, in the server and in its sandbox.
const SERVER_LIMIT: f64 = 30.0;
const SANDBOX_LIMIT: f64 = 500.0;
/// The most CPU time of all tasks together, in per cent of one core.
const CPU_LIMIT: f64 = 2.0;
const KILOBYTE: f64 = 1000.0;
/// How long, from the moment when silence counts, until every task has been checked twice.
const SETTLING: Duration = Duration::from_secs(12);
/// Runs longer than the whole measurement.
const QUIET: &str = "sleep 1200";

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    let (tasks, sandboxes) = (plan.quiet, plan.sandboxes);
    eprintln!("{tasks} quiet tasks in {sandboxes} sandboxes");
    let stall_after = format!("{}s", plan.stall_after.as_secs());
    let server = Server::start(docker, &["--stall-after", &stall_after]).await?;
    let pid = server.pid();
    let mebibytes = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    let idle = (mebibytes(proc::resident(pid)?), mebibytes(proc::proportional(pid)?));
    table.note("memory of the server, idle (RSS / PSS)", format!("{:.1} / {:.1} MiB", idle.0, idle.1));

    let mut bots = server.bots(sandboxes).await?;
    for bot in &mut bots {
        // Memory that the first tasks allocate once does not count.
        for _ in 0..5 {
            let notification = bot.client.complete("true").await?;
            bot.client.acknowledge(&notification).await?;
        }
    }
    let before = (proc::resident(pid)?, memory(&bots).await?);
    start(tasks, &bots).await?;
    // From then on silent tasks are checked for a stall, which is the most that a silent task ever costs.
    tokio::time::sleep(plan.stall_after + SETTLING).await;
    let after = (proc::resident(pid)?, memory(&bots).await?);
    let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / KILOBYTE / tasks as f64;
    let what = format!("{tasks} quiet tasks in {sandboxes} sandboxes");
    table.below(&format!("{what}: memory of the server, each"), each(after.0, before.0), "kB", SERVER_LIMIT);
    let in_sandbox = each(after.1.all, before.1.all);
    table.below(&format!("{what}: memory of the sandbox (PSS), each"), in_sandbox, "kB", SANDBOX_LIMIT);
    let own = each(after.1.own, before.1.own);
    table.note(&format!("{what}: of the sandbox's memory Errand's own, each"), format!("{own:.1} kB"));

    let begun = Instant::now();
    let before = (proc::cpu_time(pid)?, cpu_time(&bots).await?, proc::context_switches(pid)?);
    tokio::time::sleep(plan.counting).await;
    let after = (proc::cpu_time(pid)?, cpu_time(&bots).await?, proc::context_switches(pid)?);
    let taken = begun.elapsed().as_secs_f64();
    let share = |after: Duration, before: Duration| after.saturating_sub(before).as_secs_f64() / taken * 100.0;
    let (in_server, in_sandboxes) = (share(after.0, before.0), share(after.1, before.1));
    let what = format!("{what}: CPU of server and sandboxes");
    table.below(&what, in_server + in_sandboxes, "% of a core", CPU_LIMIT);
    table.note(&format!("{what}, apart"), format!("{in_server:.2} % + {in_sandboxes:.2} %"));
    let switches = after.2.saturating_sub(before.2) as f64 / taken;
    table.note(&format!("{tasks} quiet tasks: context switches of the server"), format!("{switches:.0}/s"));
    Ok(())
}

async fn start(tasks: usize, bots: &[Bot]) -> Result<()> {
    let clients: Vec<_> = bots.iter().map(|bot| bot.client.clone()).collect();
    let work = move |number: usize| {
        let mut client = clients[number % clients.len()].clone();
        async move {
            let task = client.start(QUIET).await?;
            client.running(&task).await
        }
    };
    at_once(8, tasks, work).await.map(drop)
}

async fn memory(bots: &[Bot]) -> Result<Memory> {
    let mut all = Memory::default();
    for bot in bots {
        let memory = bot.sandbox.memory().await?;
        all.all += memory.all;
        all.own += memory.own;
    }
    Ok(all)
}

async fn cpu_time(bots: &[Bot]) -> Result<Duration> {
    let mut all = Duration::ZERO;
    for bot in bots {
        all += bot.sandbox.cpu_time().await?;
    }
    Ok(all)
}
