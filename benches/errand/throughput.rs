//! Tasks per second; each task is committed, announced and acknowledged.

use std::time::Duration;

use anyhow::Result;
use bollard::Docker;

use crate::{
    at_once::at_once,
    forkloop::ForkLoop,
    plan::{Burst, Plan},
    proc, rest,
    server::{Bot, Server},
    table::{Table, milliseconds},
};

/// The concurrency at which the goals apply: multiples of the rates of the bare exec and of the fork loop.
const MANY: usize = 32;
const GOAL_EXEC: f64 = 20.0;
const GOAL_FORK: f64 = 0.4;

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    let server = Server::start(docker, &[]).await?;
    let bot = server.bot("bench").await?;
    let forks = ForkLoop::install(bot.sandbox.bare()).await?;
    burst(&Burst { at_a_time: 8, tasks: 16, execs: 8 }, &bot).await?;
    for size in plan.bursts.iter().filter(|size| size.at_a_time == MANY) {
        against_forks(size, plan, &server, &bot, &forks, table).await?;
    }
    for size in &plan.bursts {
        against_exec(size, plan, &bot, table).await?;
    }
    Ok(())
}

/// Runs before any exec of the engine: the files that execs leave behind and remove slow down only processes that create files later.
async fn against_forks(
    size: &Burst,
    plan: &Plan,
    server: &Server,
    bot: &Bot,
    forks: &ForkLoop,
    table: &mut Table,
) -> Result<()> {
    let at_a_time = size.at_a_time;
    eprintln!("tasks per second, {at_a_time} at a time, and the fork loop");
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    let (mut in_server, mut in_sandbox) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..plan.rounds {
        rest::before_burst().await;
        let before = (proc::cpu_time(server.pid())?, bot.sandbox.cpu_time().await?);
        ours += burst(size, bot).await?;
        in_server += proc::cpu_time(server.pid())?.saturating_sub(before.0);
        in_sandbox += bot.sandbox.cpu_time().await?.saturating_sub(before.1);
        rest::before_burst().await;
        theirs += forks.run(plan.forks, at_a_time).await?;
    }
    let (ours, theirs) = (plan.rate(size.tasks, ours), plan.rate(plan.forks, theirs));
    let theirs_shown = format!("{theirs:.1}/s, fork loop");
    table.times(&what(at_a_time), ours / theirs, Some(GOAL_FORK), format!("{ours:.1}/s"), theirs_shown);
    let each = |time: Duration| milliseconds(time.div_f64((plan.rounds * size.tasks) as f64));
    table.note(
        &format!("CPU time of such a task, in the server / in the sandbox, {at_a_time} at a time"),
        format!("{} / {}", each(in_server), each(in_sandbox)),
    );
    Ok(())
}

async fn against_exec(size: &Burst, plan: &Plan, bot: &Bot, table: &mut Table) -> Result<()> {
    let at_a_time = size.at_a_time;
    eprintln!("tasks per second, {at_a_time} at a time, and docker exec");
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..plan.rounds {
        rest::before_burst().await;
        ours += burst(size, bot).await?;

        rest::before_burst().await;
        let bare = bot.sandbox.bare();
        let work = move |_| {
            let bare = bare.clone();
            async move { bare.run("true").await.map(drop) }
        };
        theirs += at_once(at_a_time, size.execs, work).await?.0;
    }
    let (ours, theirs) = (plan.rate(size.tasks, ours), plan.rate(size.execs, theirs));
    let goal = (at_a_time == MANY).then_some(GOAL_EXEC);
    let theirs_shown = format!("{theirs:.1}/s, docker exec");
    table.times(&what(at_a_time), ours / theirs, goal, format!("{ours:.1}/s"), theirs_shown);
    Ok(())
}

fn what(at_a_time: usize) -> String {
    format!("tasks per second, {at_a_time} at a time, durable, each notified and acknowledged")
}

async fn burst(size: &Burst, bot: &Bot) -> Result<Duration> {
    let client = bot.client.clone();
    let work = move |_| {
        let mut client = client.clone();
        async move {
            let notification = client.complete("true").await?;
            client.acknowledge(&notification).await
        }
    };
    Ok(at_once(size.at_a_time, size.tasks, work).await?.0)
}
