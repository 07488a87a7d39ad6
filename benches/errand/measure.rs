//! What takes how long, in turns: ours, theirs, ours, theirs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use crate::{bare::Bare, server::Server, table::Table};

/// How much of everything.
pub struct Plan {
    pub latency: usize,
    pub rounds: usize,
    pub output_bytes: u64,
    pub running: usize,
}

/// What is done first, and not counted.
pub async fn warm_up(server: &Server, bare: &Bare) -> Result<()> {
    let mut client = server.client();
    for _ in 0..5 {
        let notification = client.complete("true").await?;
        client.acknowledge(&notification).await?;
        bare.run("true").await?;
    }
    Ok(())
}

/// From the call to the first byte of output.
pub async fn first_byte(plan: &Plan, server: &Server, bare: &Bare, table: &mut Table) -> Result<()> {
    eprintln!("start → first output byte");
    // Lives on for a moment, so that this is not the end of the command.
    const COMMAND: &str = "echo hi; sleep 0.2";
    let mut client = server.client();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.latency {
        ours.push(client.first_byte(COMMAND).await?);
        theirs.push(bare.first_byte(COMMAND).await?);
    }
    table.latency("start → first output byte", &ours, &theirs, None);
    Ok(())
}

/// From the call to the notification, and to the exit code.
pub async fn completion(plan: &Plan, server: &Server, bare: &Bare, table: &mut Table) -> Result<()> {
    eprintln!("start → completion");
    let mut client = server.client();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.latency {
        let begun = Instant::now();
        let notification = client.complete("true").await?;
        ours.push(begun.elapsed());
        client.acknowledge(&notification).await?;

        let begun = Instant::now();
        bare.run("true").await?;
        theirs.push(begun.elapsed());
    }
    table.latency("start of `true` → completion", &ours, &theirs, Some(2.0));
    Ok(())
}

/// Short tasks, each committed, announced and acknowledged.
pub async fn tasks_per_second(
    plan: &Plan,
    at_a_time: usize,
    server: &Server,
    bare: &Bare,
    table: &mut Table,
) -> Result<()> {
    eprintln!("tasks per second, {at_a_time} at a time");
    let count = 16 + 3 * at_a_time;
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..plan.rounds {
        let client = server.client();
        ours += at_once(at_a_time, count, move || {
            let mut client = client.clone();
            async move {
                let notification = client.complete("true").await?;
                client.acknowledge(&notification).await
            }
        })
        .await?;
        let bare = bare.clone();
        theirs += at_once(at_a_time, count, move || {
            let bare = bare.clone();
            async move { bare.run("true").await.map(drop) }
        })
        .await?;
    }
    let rate = |taken: Duration| (plan.rounds * count) as f64 / taken.as_secs_f64();
    table.rate(&format!("tasks per second, {at_a_time} at a time"), rate(ours), rate(theirs), "/s", 0.5);
    Ok(())
}

/// Runs `count` pieces of work, `at_a_time` of them at any moment.
async fn at_once<W>(at_a_time: usize, count: usize, work: impl Fn() -> W + Clone + Send + 'static) -> Result<Duration>
where
    W: Future<Output = Result<()>> + Send + 'static,
{
    let left = Arc::new(AtomicUsize::new(count));
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..at_a_time {
        let (left, work) = (Arc::clone(&left), work.clone());
        workers.spawn(async move {
            while left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                work().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(begun.elapsed())
}

/// A lot of output to one client.
pub async fn output(plan: &Plan, server: &Server, bare: &Bare, table: &mut Table) -> Result<()> {
    let mebibytes = plan.output_bytes >> 20;
    eprintln!("output of {mebibytes} MiB");
    let command = format!("head -c {} /dev/zero | tr '\\0' x", plan.output_bytes);
    let mut client = server.client();
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..plan.rounds {
        let begun = Instant::now();
        let bytes = client.output(&command).await?;
        ours += begun.elapsed();
        ensure!(bytes == plan.output_bytes, "{bytes} of {} bytes came through Errand", plan.output_bytes);

        let begun = Instant::now();
        let bytes = bare.run(&command).await?;
        theirs += begun.elapsed();
        ensure!(bytes == plan.output_bytes, "{bytes} of {} bytes came from the engine", plan.output_bytes);
    }
    let rate = |taken: Duration| (plan.rounds as u64 * mebibytes) as f64 / taken.as_secs_f64();
    table.rate(&format!("output, {mebibytes} MiB followed by one client"), rate(ours), rate(theirs), " MiB/s", 0.5);
    Ok(())
}
