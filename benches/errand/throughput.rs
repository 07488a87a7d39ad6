//! Tasks per second: each committed, announced and acknowledged.

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

/// So many per second are the goal at this many at a time, as a multiple of the bare exec's rate and of the fork loop's.
const MANY: usize = 32;
const GOAL_EXEC: f64 = 20.0;
const GOAL_FORK: f64 = 0.4;

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    let server = Server::start(docker, &[]).await?;
    let bot = server.bot("bench").await?;
    let forks = ForkLoop::install(bot.sandbox.bare()).await?;
    burst(&Burst { at_a_time: 8, tasks: 16, execs: 8 }, &bot).await?;
    for size in &plan.bursts {
        measure_burst(size, plan, &server, &bot, &forks, table).await?;
    }
    Ok(())
}

async fn measure_burst(
    size: &Burst,
    plan: &Plan,
    server: &Server,
    bot: &Bot,
    forks: &ForkLoop,
    table: &mut Table,
) -> Result<()> {
    let at_a_time = size.at_a_time;
    eprintln!("tasks per second, {at_a_time} at a time");
    let many = at_a_time == MANY;
    let (mut ours, mut theirs, mut forked) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut in_server, mut in_sandbox) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..plan.rounds {
        rest::before_burst().await;
        let before = (proc::cpu_time(server.pid())?, bot.sandbox.cpu_time().await?);
        ours += burst(size, bot).await?;
        in_server += proc::cpu_time(server.pid())?.saturating_sub(before.0);
        in_sandbox += bot.sandbox.cpu_time().await?.saturating_sub(before.1);

        rest::before_burst().await;
        let bare = bot.sandbox.bare();
        let work = move |_| {
            let bare = bare.clone();
            async move { bare.run("true").await.map(drop) }
        };
        theirs += at_once(at_a_time, size.execs, work).await?.0;
        if many {
            rest::before_burst().await;
            forked += forks.run(plan.forks, at_a_time).await?;
        }
    }
    let rate = |count: usize, taken: Duration| (plan.rounds * count) as f64 / taken.as_secs_f64();
    let (ours, theirs) = (rate(size.tasks, ours), rate(size.execs, theirs));
    let what = format!("tasks per second, {at_a_time} at a time, durable, each notified and acknowledged");
    let shown = || format!("{ours:.1}/s");
    table.times(&what, ours / theirs, many.then_some(GOAL_EXEC), shown(), format!("{theirs:.1}/s, docker exec"));
    if many {
        let forked = rate(plan.forks, forked);
        table.times("the same", ours / forked, Some(GOAL_FORK), shown(), format!("{forked:.1}/s, fork loop"));
        let each = |time: Duration| milliseconds(time.div_f64((plan.rounds * size.tasks) as f64));
        table.note(
            &format!("CPU time of such a task, in the server / in the sandbox, {at_a_time} at a time"),
            format!("{} / {}", each(in_server), each(in_sandbox)),
        );
    }
    Ok(())
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
