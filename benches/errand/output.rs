//! A large output of one task, stored and followed, compared with `tee` into a file.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;

use crate::{
    bare::Bare,
    plan::Plan,
    proc,
    server::{Bot, Server},
    table::Table,
};

const GOAL: f64 = 0.8;
const GROWTH_LIMIT: f64 = 32.0;
const MEGABYTE: f64 = 1e6;
const MEBIBYTE: f64 = (1 << 20) as f64;
/// On the same disk as the task logs.
const COPY: &str = "/tmp/errand-bench-copy";

/// The file to which a command writes when it began and ended, in hundredths of a second by the sandbox's clock: the exec itself does not
/// count.
const CLOCK: &str = "/tmp/errand-bench-clock";

/// How long following a task took.
#[derive(Default)]
struct Taken {
    /// The time of the command, by its own clock.
    ended: Duration,
    /// The time until the task's end was announced.
    announced: Duration,
    /// The time until its follower had every byte.
    followed: Duration,
}

/// The sum of all rounds; `growth`, in bytes, is that of the round with the most.
#[derive(Default)]
struct Sums {
    ours: Taken,
    copied: Duration,
    streamed: Duration,
    in_server: Duration,
    in_sandbox: Duration,
    growth: u64,
}

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    eprintln!("output of {} MB", plan.output_bytes / 1_000_000);
    let server = Server::start(docker, &[]).await?;
    let bot = server.bot("bench").await?;
    // Memory that the first task with output allocates does not count.
    follow(&bot, 1_000_000).await?;
    let mut sums = Sums::default();
    for _ in 0..plan.rounds {
        round(plan.output_bytes, &server, &bot, &mut sums).await?;
    }
    show(plan, &sums, table);
    Ok(())
}

async fn round(size: u64, server: &Server, bot: &Bot, sums: &mut Sums) -> Result<()> {
    let (bare, pid) = (bot.sandbox.bare(), server.pid());
    bare.run("sync").await?;
    let before = (proc::resident(pid)?, proc::cpu_time(pid)?, bot.sandbox.cpu_time().await?);
    proc::forget_peak(pid)?;
    let (ours, log) = follow(bot, size).await?;
    sums.growth = sums.growth.max(proc::peak(pid)?.saturating_sub(before.0));
    sums.in_server += proc::cpu_time(pid)?.saturating_sub(before.1);
    sums.in_sandbox += bot.sandbox.cpu_time().await?.saturating_sub(before.2);
    sums.ours.ended += ours.ended;
    sums.ours.announced += ours.announced;
    sums.ours.followed += ours.followed;
    // Writes that are still pending must not slow down the other side.
    bare.run(&format!("rm -f {log}; sync")).await?;

    bare.run(&timed(&format!("{} | tee {COPY} >/dev/null", print(size)))).await?;
    sums.copied += clock(&bare).await?;
    bare.run(&format!("rm -f {COPY}; sync")).await?;

    let begun = Instant::now();
    let bytes = bare.count(&print(size)).await?;
    sums.streamed += begun.elapsed();
    ensure!(bytes == size, "{bytes} of {size} bytes came from the engine");
    Ok(())
}

fn show(plan: &Plan, sums: &Sums, table: &mut Table) {
    let rate = |time: Duration| (plan.rounds as u64 * plan.output_bytes) as f64 / MEGABYTE / time.as_secs_f64();
    let size = format!("{} MB of output", plan.output_bytes / 1_000_000);
    let (ours, tee, exec) = (&sums.ours, rate(sums.copied), rate(sums.streamed));
    let rows = [
        ("the command has ended", ours.ended, Some(GOAL)),
        ("its end is announced", ours.announced, None),
        ("its follower has every byte", ours.followed, Some(GOAL)),
    ];
    for (until, time, goal) in rows {
        let what = format!("{size} of one task, logged and followed by one client, until {until}");
        let ours = rate(time);
        table.times(&what, ours / tee, goal, format!("{ours:.0} MB/s"), format!("{tee:.0} MB/s, tee"));
    }
    let what = format!("{size}, the last against an exec that streams the same and keeps nothing");
    let followed = rate(ours.followed);
    table.times(&what, followed / exec, None, format!("{followed:.0} MB/s"), format!("{exec:.0} MB/s, docker exec"));
    let growth = sums.growth as f64 / MEBIBYTE;
    table.below(&format!("{size}: growth of the server's memory at its peak"), growth, "MiB", GROWTH_LIMIT);
    let share = |time: Duration| time.as_secs_f64() / ours.followed.as_secs_f64();
    let busy = format!("{:.2} / {:.2}", share(sums.in_server), share(sums.in_sandbox));
    table.note(&format!("{size}: cores that were busy meanwhile, in the server / in the sandbox"), busy);
}

fn print(bytes: u64) -> String {
    format!("yes 'one of many lines, as a build prints them' | head -c {bytes}")
}

fn timed(command: &str) -> String {
    let now = format!("read -r now rest </proc/uptime; echo $now >>{CLOCK}");
    format!("rm -f {CLOCK}; {now}; {command}; {now}")
}

/// The duration of the last timed command.
async fn clock(bare: &Bare) -> Result<Duration> {
    let printed = bare.run(&format!("cat {CLOCK}")).await?;
    let (begun, ended) = printed.split_once('\n').context("two times")?;
    Ok(Duration::try_from_secs_f64(ended.trim().parse::<f64>()? - begun.trim().parse::<f64>()?)?)
}

/// Runs a command and follows it. Returns the times and the path of the log.
async fn follow(bot: &Bot, expected: u64) -> Result<(Taken, String)> {
    let mut client = bot.client.clone();
    let begun = Instant::now();
    let task = client.start(&timed(&print(expected))).await?;
    let announced = async {
        let notification = bot.client.completion(&task).await?;
        anyhow::Ok((begun.elapsed(), notification))
    };
    let followed = async {
        let mut bytes = 0;
        client.follow(&task, |piece| bytes += piece).await?;
        ensure!(bytes == expected, "{bytes} of {expected} bytes came");
        Ok(begun.elapsed())
    };
    let ((announced, notification), followed) = tokio::try_join!(announced, followed)?;
    client.acknowledge(&notification).await?;
    let ended = clock(&bot.sandbox.bare()).await?;
    Ok((Taken { ended, announced, followed }, notification.output_file))
}
