//! Embedded sandboxes compared with those of the container engine: creating one, running tasks in one, and the cost of an idle one.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bollard::Docker;

use crate::{
    client::Client, latency::SPEAKING, plan::Plan, proc, rest, sandbox::Sandbox, server::Server, table::Table,
};

/// Neither side connects a network: connecting takes longer than everything else, and each side does it differently.
const ALIKE: [&str; 2] = ["--network-mode", "none"];
/// The number of uncounted runs at the beginning.
const WARM_UP: usize = 5;
const MEBIBYTE: f64 = (1 << 20) as f64;

pub async fn measure(plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    let ours = Server::on("embedded", docker, &[&["--image", "host"], &ALIKE[..]].concat()).await?;
    let theirs = Server::start(docker, &ALIKE).await?;
    make(plan.made, &ours, &theirs, table).await?;
    first_tasks(plan.made, &ours, &theirs, table).await?;

    ours.make("bench").await?;
    let bot = theirs.bot("bench").await?;
    // The sandbox is deleted even after an error: without a container engine, no other code would remove it.
    let measured = in_one(plan.latencies, &ours, &mut bot.client.clone(), &bot.sandbox, table).await;
    ours.delete("bench").await?;
    measured
}

/// The time to create a sandbox, including the commit of its record.
async fn make(count: usize, ours: &Server, theirs: &Server, table: &mut Table) -> Result<()> {
    eprintln!("{count} sandboxes of each kind");
    let mut taken = [Vec::new(), Vec::new()];
    for number in 0..count {
        for (server, taken) in [ours, theirs].into_iter().zip(&mut taken) {
            let bot = format!("made-{number}");
            rest::before_sample().await;
            let begun = Instant::now();
            server.make(&bot).await?;
            taken.push(begun.elapsed());
            server.delete(&bot).await?;
        }
    }
    let what = "EnsureSandbox of a new bot, embedded";
    for share in [0.50, 0.99] {
        table.faster_than("EnsureSandbox, Docker", what, share, &taken[0], &taken[1], None);
    }
    Ok(())
}

/// The time of a bot's first task, which creates the bot's sandbox.
async fn first_tasks(count: usize, ours: &Server, theirs: &Server, table: &mut Table) -> Result<()> {
    eprintln!("{count} first tasks of each kind");
    let mut taken = [Vec::new(), Vec::new()];
    for number in 0..count {
        for (server, taken) in [ours, theirs].into_iter().zip(&mut taken) {
            let bot = format!("first-{number}");
            let mut client = server.client(&bot).await?;
            rest::before_sample().await;
            let begun = Instant::now();
            let done = client.complete("true").await;
            taken.push(begun.elapsed());
            server.delete(&bot).await?;
            done?;
        }
    }
    let what = "StartTask of `true` in no sandbox yet → its completion, embedded";
    for share in [0.50, 0.99] {
        table.faster_than("the same, Docker", what, share, &taken[0], &taken[1], None);
    }
    Ok(())
}

/// Tasks in an existing sandbox, and what the sandbox costs afterwards.
async fn in_one(
    count: usize,
    ours: &Server,
    in_docker: &mut Client,
    container: &Sandbox,
    table: &mut Table,
) -> Result<()> {
    let (mut client, bare) = (ours.client("bench").await?, container.bare());
    for _ in 0..WARM_UP {
        client.first_byte("echo hi").await?;
        in_docker.first_byte("echo hi").await?;
        bare.run("true").await?;
    }
    eprintln!("tasks in embedded sandboxes");
    let (mut first, mut first_of_exec) = (Vec::new(), Vec::new());
    for _ in 0..count {
        rest::before_sample().await;
        first.push(client.first_byte(SPEAKING).await?);
        rest::before_sample().await;
        first_of_exec.push(bare.first_byte(SPEAKING).await?);
    }
    let (mut done, mut done_in_docker, mut done_of_exec) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        done.push(complete(&mut client).await?);
        done_in_docker.push(complete(in_docker).await?);
        rest::before_sample().await;
        let begun = Instant::now();
        bare.run("true").await?;
        done_of_exec.push(begun.elapsed());
    }
    for share in [0.50, 0.99] {
        table.faster("StartTask → first output byte, embedded", share, &first, &first_of_exec, None);
    }
    let what = "StartTask of `true` → its completion at a subscriber, embedded, durable";
    for share in [0.50, 0.99] {
        table.faster(what, share, &done, &done_of_exec, None);
    }
    table.faster_than("the same, Docker", what, 0.50, &done, &done_in_docker, None);

    let embedded = embedded_memory(&ours.sandboxes())? as f64 / MEBIBYTE;
    let (inside, shim) = (container.memory().await?.all as f64 / MEBIBYTE, container.shim().await? as f64 / MEBIBYTE);
    let parts = format!("{inside:.2} + {shim:.2} MiB, Docker and its shim");
    let what = "a sandbox without a network that rests after its tasks, embedded: memory of its processes (PSS)";
    table.times(what, (inside + shim) / embedded, None, format!("{embedded:.2} MiB"), parts);
    Ok(())
}

async fn complete(client: &mut Client) -> Result<Duration> {
    rest::before_sample().await;
    let begun = Instant::now();
    let notification = client.complete("true").await?;
    let taken = begun.elapsed();
    client.acknowledge(&notification).await?;
    Ok(taken)
}

/// Memory of all processes that belong to the only sandbox of a server: those inside it, and those outside that wait for it.
fn embedded_memory(sandboxes: &Path) -> Result<u64> {
    let life = fs::read_dir(sandboxes)?.flatten().find_map(|entry| fs::read_to_string(entry.path().join("life")).ok());
    let life = life.context("no sandbox")?;
    let all = || fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let keeps = |process: &Path| {
        fs::read(process.join("cmdline"))
            .is_ok_and(|said| said.split(|byte| *byte == 0).any(|one| one == life.as_bytes()))
    };
    let space = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
    let host = space(Path::new("/proc/self"));
    let keepers: Vec<_> = all().filter(|process| keeps(process)).collect();
    let inside = keepers.iter().filter_map(|process| space(process)).find(|found| Some(found) != host.as_ref());
    let inside = inside.context("the sandbox has no first process")?;
    let members = all().filter(|process| keepers.contains(process) || space(process).as_ref() == Some(&inside));
    // A process that has ended meanwhile counts as no memory.
    let numbers = members.filter_map(|process| process.file_name()?.to_str()?.parse().ok());
    Ok(numbers.filter_map(|pid| proc::proportional(pid).ok()).sum())
}
