//! Compares Errand with the bare `docker exec` API and other baselines: the same commands in the same container in the same run,
//! alternating, so that other load on the machine affects both sides. Prints a Markdown table; progress goes to standard error. Asserts
//! only that commands do what they should.
//!
//! Starts real servers on empty databases. `ERRAND_IMAGE` is the sandboxes' image, which must be on the engine. Stops only what it started.

mod apart;
mod at_once;
mod bare;
mod client;
mod completions;
mod embedded;
mod fairness;
mod floor;
mod forkloop;
mod hostile;
mod latency;
mod lies;
#[path = "../../tests/lying/mod.rs"]
mod lying;
mod output;
mod plan;
mod proc;
mod quiet;
mod recovery;
mod rest;
mod sandbox;
mod server;
mod subscribers;
#[path = "../../tests/support/mod.rs"]
mod support;
mod table;
mod throughput;
mod watches;

use anyhow::{Context as _, Result, ensure};
use bollard::Docker;
use clap::Parser as _;

use plan::{Args, Group, Plan};
use table::Table;

// One thread: the wake-ups of a client with several threads would be measured as the server's.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let plan = Args::parse().plan();
    // Each subscriber needs a connection.
    rlimit::increase_nofile_limit(u64::MAX)?;
    // Ctrl-C drops the future too, so servers and containers are removed in either case.
    let result = tokio::select! {
        result = run(plan) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    sandbox::remove_ended();
    result
}

async fn run(plan: Plan) -> Result<()> {
    let docker = bare::connect()?;
    let machine = table::machine(&docker).await?;
    let mut table = Table::default();
    let mut failed = Vec::new();
    for group in &plan.groups {
        // Earlier results are printed even after an error.
        if let Err(error) = measure(*group, &plan, &docker, &mut table).await {
            eprintln!("{group:?} failed: {error:?}");
            failed.push(format!("{group:?}"));
        }
    }
    println!("{machine}\n\n{table}");
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

async fn measure(group: Group, plan: &Plan, docker: &Docker, table: &mut Table) -> Result<()> {
    match group {
        Group::Latency => latency::measure(plan, docker, table).await.context("latency"),
        Group::Throughput => throughput::measure(plan, docker, table).await.context("throughput"),
        Group::Output => output::measure(plan, docker, table).await.context("output"),
        Group::Watches => watches::measure(plan, docker, table).await.context("watches"),
        Group::Quiet => quiet::measure(plan, docker, table).await.context("quiet tasks"),
        Group::Subscribers => subscribers::measure(plan, docker, table).await.context("subscribers"),
        Group::Recovery => recovery::measure(plan, docker, table).await.context("recovery"),
        Group::Fairness => fairness::measure(plan, docker, table).await.context("fairness"),
        Group::Lies => lies::measure(table).await.context("lies"),
        Group::Hostile => hostile::measure(plan, docker, table).await.context("hostile sandboxes"),
        Group::Embedded => embedded::measure(plan, docker, table).await.context("embedded sandboxes"),
    }
}
