//! Errand beside the bare `docker exec` API: the same commands in the same container in the same run, in turns, so that whatever
//! else the machine does falls on both. Prints a Markdown table; progress goes to standard error. Asserts nothing.
//!
//! Starts the real server on an empty database in the directory for temporary files. `ERRAND_IMAGE` is the sandbox's image, which
//! must be on the engine. Ends only what it started.

mod bare;
mod load;
mod measure;
mod server;
mod table;

use anyhow::{Context as _, Result};
use clap::Parser;

use bare::Bare;
use measure::Plan;
use server::Server;
use table::Table;

/// Measures Errand beside the bare `docker exec` API.
#[derive(Debug, Parser)]
struct Args {
    /// About a minute's worth.
    #[arg(long)]
    quick: bool,
    /// Commands for each latency.
    #[arg(long, value_name = "N")]
    latency: Option<usize>,
    /// Rounds of each throughput.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Size of the output, in MiB.
    #[arg(long, value_name = "MIB")]
    output: Option<u64>,
    /// Running tasks for memory and CPU time.
    #[arg(long, value_name = "N")]
    running: Option<usize>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn plan(&self) -> Plan {
        let (latency, rounds, output, running) = if self.quick { (20, 1, 64, 50) } else { (100, 3, 256, 200) };
        Plan {
            latency: self.latency.unwrap_or(latency).max(1),
            rounds: self.rounds.unwrap_or(rounds).max(1),
            output_bytes: self.output.unwrap_or(output).max(1) << 20,
            running: self.running.unwrap_or(running).max(1),
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let plan = Args::parse().plan();
    // Dropped on Ctrl-C too: server and containers go in either case.
    tokio::select! {
        result = run(plan) => result,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

async fn run(plan: Plan) -> Result<()> {
    let docker = bare::connect()?;
    let machine = table::machine(&docker).await?;
    let mut table = Table::default();

    // A server of its own: what the measurements before left in memory would count as well.
    let load = {
        let server = Server::start(&docker).await.context("start a server")?;
        load::measure(&server, &docker, plan.running).await?
    };

    let server = Server::start(&docker).await.context("start a server")?;
    let bare = Bare::new(docker.clone(), server.container().to_owned());
    measure::warm_up(&server, &bare).await?;
    measure::first_byte(&plan, &server, &bare, &mut table).await?;
    measure::completion(&plan, &server, &bare, &mut table).await?;
    for at_a_time in [1, 8, 32] {
        measure::tasks_per_second(&plan, at_a_time, &server, &bare, &mut table).await?;
    }
    measure::output(&plan, &server, &bare, &mut table).await?;
    load.show(&mut table);
    println!("{machine}\n\n{table}");
    Ok(())
}
