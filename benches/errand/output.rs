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

/// How long it took.
#[derive(Default)]
struct Taken {
    ended: Duration,
    followed: Duration,
    copied: Duration,
}

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    let megabytes = plan.output_bytes / 1_000_000;
    eprintln!("output of {megabytes} MB");
    let server = Server::start(docker, &[]).await?;
    let mut bot = server.bot("bench").await?;
    let bare = bot.sandbox.bare();
    let command = |bytes: u64| format!("yes 'one of many lines, as a build prints them' | head -c {bytes}");
    // What the first task with output allocates is not counted.
    follow(&mut bot, &command(1_000_000), 1_000_000).await?;

    let (mut taken, mut growth) = (Taken::default(), 0);
    for _ in 0..plan.rounds {
        bare.run("sync").await?;
        let before = proc::resident(server.pid())?;
        proc::forget_peak(server.pid())?;
        let (ended, followed, log) = follow(&mut bot, &command(plan.output_bytes), plan.output_bytes).await?;
        growth = growth.max(proc::peak(server.pid())?.saturating_sub(before));
        taken.ended += ended;
        taken.followed += followed;
        // What one side has left to write to the disk must not slow down the other.
        bare.run(&format!("rm -f {log}; sync")).await?;
        taken.copied += copy(&bare, &command(plan.output_bytes)).await?;
        bare.run(&format!("rm -f {COPY}; sync")).await?;
    }
    let rate = |time: Duration| (plan.rounds as u64 * plan.output_bytes) as f64 / MEGABYTE / time.as_secs_f64();
    let tee = rate(taken.copied);
    for (until, time) in [("the task has ended", taken.ended), ("its follower has every byte", taken.followed)] {
        let what = format!("{megabytes} MB of output of one task, logged and followed by one client, until {until}");
        let ours = rate(time);
        table.times(&what, ours / tee, Some(GOAL), format!("{ours:.0} MB/s"), format!("{tee:.0} MB/s, tee"));
    }
    let what = format!("growth of the server's memory at its peak meanwhile, {megabytes} MB of output");
    table.below(&what, growth as f64 / MEBIBYTE, "MiB", GROWTH_LIMIT);
    Ok(())
}

/// Runs a command and follows it. Returns when its end was announced, when the follower had everything, and where the log is.
async fn follow(bot: &mut Bot, command: &str, expected: u64) -> Result<(Duration, Duration, String)> {
    let mut client = bot.client.clone();
    let begun = Instant::now();
    let task = client.start(command).await?;
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
    let ((ended, notification), followed) = tokio::try_join!(announced, followed)?;
    client.acknowledge(&notification).await?;
    Ok((ended, followed, notification.output_file))
}

/// Runs a command into `tee`. The clock is the sandbox's, in hundredths of a second: the exec itself does not count.
async fn copy(bare: &Bare, command: &str) -> Result<Duration> {
    let clock = "read -r now rest </proc/uptime; echo $now";
    let printed = bare.run(&format!("{clock}; {command} | tee {COPY} >/dev/null; {clock}")).await?;
    let (begun, ended) = printed.split_once('\n').context("two times")?;
    Ok(Duration::try_from_secs_f64(ended.trim().parse::<f64>()? - begun.trim().parse::<f64>()?)?)
}
