//! A lot of output of one task, kept and followed, beside `tee` into a file.

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
/// Beside the task logs, on the same disk.
const COPY: &str = "/tmp/errand-bench-copy";

/// Where a command writes down when it began and ended, by the sandbox's clock: the exec itself does not count. In hundredths of a second.
const CLOCK: &str = "/tmp/errand-bench-clock";

/// How long it took.
#[derive(Default)]
struct Taken {
    /// The command, by its own clock.
    ended: Duration,
    /// Until its end was announced.
    announced: Duration,
    /// Until its follower had every byte.
    followed: Duration,
}

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    let megabytes = plan.output_bytes / 1_000_000;
    eprintln!("output of {megabytes} MB");
    let server = Server::start(docker, &[]).await?;
    let mut bot = server.bot("bench").await?;
    let bare = bot.sandbox.bare();
    // What the first task with output allocates is not counted.
    follow(&mut bot, 1_000_000).await?;

    let (mut taken, mut copied, mut growth) = (Taken::default(), Duration::ZERO, 0);
    for _ in 0..plan.rounds {
        bare.run("sync").await?;
        let before = proc::resident(server.pid())?;
        proc::forget_peak(server.pid())?;
        let (ours, log) = follow(&mut bot, plan.output_bytes).await?;
        growth = growth.max(proc::peak(server.pid())?.saturating_sub(before));
        taken.ended += ours.ended;
        taken.announced += ours.announced;
        taken.followed += ours.followed;
        // What one side has left to write to the disk must not slow down the other.
        bare.run(&format!("rm -f {log}; sync")).await?;
        bare.run(&timed(&format!("{} | tee {COPY} >/dev/null", print(plan.output_bytes)))).await?;
        copied += clock(&bare).await?;
        bare.run(&format!("rm -f {COPY}; sync")).await?;
    }
    let rate = |time: Duration| (plan.rounds as u64 * plan.output_bytes) as f64 / MEGABYTE / time.as_secs_f64();
    let tee = rate(copied);
    let rows = [
        ("the command has ended", taken.ended, Some(GOAL)),
        ("its end is announced", taken.announced, None),
        ("its follower has every byte", taken.followed, Some(GOAL)),
    ];
    for (until, time, goal) in rows {
        let what = format!("{megabytes} MB of output of one task, logged and followed by one client, until {until}");
        let ours = rate(time);
        table.times(&what, ours / tee, goal, format!("{ours:.0} MB/s"), format!("{tee:.0} MB/s, tee"));
    }
    let what = format!("growth of the server's memory at its peak meanwhile, {megabytes} MB of output");
    table.below(&what, growth as f64 / MEBIBYTE, "MiB", GROWTH_LIMIT);
    Ok(())
}

fn print(bytes: u64) -> String {
    format!("yes 'one of many lines, as a build prints them' | head -c {bytes}")
}

fn timed(command: &str) -> String {
    let now = format!("read -r now rest </proc/uptime; echo $now >>{CLOCK}");
    format!("rm -f {CLOCK}; {now}; {command}; {now}")
}

/// How long the last command took that was timed.
async fn clock(bare: &Bare) -> Result<Duration> {
    let printed = bare.run(&format!("cat {CLOCK}")).await?;
    let (begun, ended) = printed.split_once('\n').context("two times")?;
    Ok(Duration::try_from_secs_f64(ended.trim().parse::<f64>()? - begun.trim().parse::<f64>()?)?)
}

/// Runs a command and follows it. Returns how long that took, and where the log is.
async fn follow(bot: &mut Bot, expected: u64) -> Result<(Taken, String)> {
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
