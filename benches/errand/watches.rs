//! What watches cost a command that writes as fast as it can, and how soon sessions are told of matches.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bollard::Docker;
use errand_proto::v1::{OutputWatch, output_watch::Kind};

use crate::{
    at_once::at_once,
    client::SESSION,
    plan::Plan,
    server::{Bot, Server},
    subscribers::{receive, received, subscribe},
    table::{Table, percentile},
};

/// Watches may cost a tenth.
const GOAL: f64 = 0.9;
const LATENCY_LIMIT: f64 = 50.0;
const MEGABYTE: f64 = 1e6;
/// Concurrent tasks: few, so that no queue of launches is measured.
const AT_A_TIME: usize = 4;

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    eprintln!("watches");
    let server = Server::start(docker, &[]).await?;
    let bot = server.bot("bench").await?;
    print(&bot, 1_000_000, &[]).await?;
    let sets = [("one text", vec![text("no such line")]), ("eight texts and expressions", many())];
    for (what, watches) in sets {
        let (mut with, mut without) = (Duration::ZERO, Duration::ZERO);
        for round in 0..plan.rounds {
            // In both orders, so that what is left on the disk affects both sides.
            let mut sides: [(&[OutputWatch], &mut Duration); 2] = [(&[], &mut without), (&watches, &mut with)];
            if round % 2 == 1 {
                sides.reverse();
            }
            for (watches, taken) in sides {
                *taken += print(&bot, plan.output_bytes, watches).await?;
            }
        }
        let rate = |time: Duration| (plan.rounds as u64 * plan.output_bytes) as f64 / MEGABYTE / time.as_secs_f64();
        let (ours, theirs) = (rate(with), rate(without));
        let size = plan.output_bytes / 1_000_000;
        let what = format!("{size} MB of output of one task, watched for {what} without a match, against not watched");
        table.times(&what, ours / theirs, Some(GOAL), format!("{ours:.0} MB/s"), format!("{theirs:.0} MB/s"));
    }
    told(plan, &server, &bot, table).await
}

/// How soon each of many sessions is told of a match.
async fn told(plan: &Plan, server: &Server, bot: &Bot, table: &mut Table) -> Result<()> {
    let count = plan.subscribers;
    let sessions: Vec<_> = (0..count).map(|number| format!("watcher-{number}")).collect();
    let receipts = receive(subscribe(server, bot, sessions.iter()).await?);
    let client = bot.client.clone();
    let work = move |number: usize| {
        let (mut client, session) = (client.clone(), sessions[number].clone());
        async move {
            let task = client.start_watched(&session, "echo a needle; sleep 0.1", &[text("needle")]).await?;
            client.completion(&task).await.map(drop)
        }
    };
    at_once(AT_A_TIME, count, work).await?;
    let taken = received(receipts).await?;
    let p99 = percentile(&taken, 0.99).as_secs_f64() * 1000.0;
    let what = format!("{count} sessions, one match each, from before its commit to receipt, p99");
    table.below(&what, p99, "ms", LATENCY_LIMIT);
    Ok(())
}

/// Runs a command that prints so many bytes. How long it took.
async fn print(bot: &Bot, bytes: u64, watches: &[OutputWatch]) -> Result<Duration> {
    let mut client = bot.client.clone();
    let command = format!("yes 'one of many lines, as a build prints them' | head -c {bytes}");
    let begun = Instant::now();
    let task = client.start_watched(SESSION, &command, watches).await?;
    let completed = client.completion(&task).await?;
    let taken = begun.elapsed();
    ensure!(completed.output_bytes == i64::try_from(bytes)?, "{} of {bytes} bytes", completed.output_bytes);
    client.acknowledge(&completed).await?;
    bot.sandbox.bare().run(&format!("rm -f {}; sync", completed.output_file)).await?;
    Ok(taken)
}

fn text(text: &str) -> OutputWatch {
    OutputWatch { kind: Some(Kind::Substring(text.to_owned())), once: false }
}

fn many() -> Vec<OutputWatch> {
    let texts = ["error:", "panicked at", "Listening on", "FAILED"].map(text);
    let expressions = [r"^fatal: .*", r"warning: unused \w+", r"listening on .*:\d+", r"Traceback \(most recent"];
    let expressions =
        expressions.map(|pattern| OutputWatch { kind: Some(Kind::Regex(pattern.to_owned())), once: false });
    texts.into_iter().chain(expressions).collect()
}
