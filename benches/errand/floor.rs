//! Lower bounds for every durable command in a container: shows where the time goes.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    forkloop::ForkLoop,
    server::{Bot, Server},
    table::{Table, milliseconds, percentile},
};

/// One page: what a small transaction appends to the log of the database.
const PAGE: [u8; 4096] = [0; 4096];

/// Measures the lower bounds and adds their rows.
pub async fn measure(count: usize, server: &Server, bot: &Bot, table: &mut Table) -> Result<()> {
    eprintln!("floor");
    let median = |taken: &[Duration]| milliseconds(percentile(taken, 0.5));
    let mut client = bot.client.clone();
    let mut calls = Vec::new();
    for _ in 0..count {
        calls.push(client.round_trip().await?);
    }
    table.note("floor: a call to the server that reads one row, p50", median(&calls));
    table.note("floor: 4 KiB to the data directory's disk with fsync, p50", median(&syncs(server.directory(), count)?));
    let echoes = bot.sandbox.bare().round_trips(count).await?;
    table.note("floor: one byte into the sandbox and back over a stream of docker exec, p50", median(&echoes));
    let forks = ForkLoop::install(bot.sandbox.bare()).await?.run(count, 1).await?;
    let each = forks.div_f64(count as f64);
    table.note("floor: fork, exec and wait of `sh -c true` in the sandbox, mean", milliseconds(each));
    Ok(())
}

fn syncs(directory: &Path, count: usize) -> Result<Vec<Duration>> {
    let mut file = File::create(directory.join("floor"))?;
    let mut taken = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        file.write_all(&PAGE)?;
        file.sync_data()?;
        taken.push(begun.elapsed());
    }
    Ok(taken)
}
