//! The cost of every lie of a bridge for the server and for an honest tenant: the suite of `tests/lying.rs` on the optimized server.

use anyhow::{Context as _, Result, ensure};

use crate::{
    apart::apart,
    lying::{
        catalogue::LIES,
        liar::Faced,
        suite::{Told, tell},
    },
    table::{Table, milliseconds},
};

/// The most that the server's memory may grow, in MiB.
const GROWTH: f64 = 32.0;
/// How many times as long the honest tenant may wait as beside truthful neighbours.
const LIMIT: f64 = 2.0;

pub async fn measure(table: &mut Table) -> Result<()> {
    eprintln!("bridges that lie");
    let told: Told = apart(0, || tell(Vec::leak(LIES.iter().collect()))).await?.context("there is no Docker")?;
    eprintln!("{told}");
    let wrong: Vec<String> = told.faced.iter().filter_map(Faced::wrong).collect();
    ensure!(wrong.is_empty(), "{wrong:#?}");

    let what = format!("{} lies of bridges, {:.0} s", told.faced.len(), told.took.as_secs_f64());
    let growth = told.growth as f64 / f64::from(1 << 20);
    table.below(&format!("{what}: growth of the server's memory at its peak"), growth, "MiB", GROWTH);
    let [alone, truth, beside] = [&told.alone, &told.beside_truth, &told.beside].map(|times| times.p99());
    let ratio = beside.as_secs_f64() / truth.as_secs_f64();
    table.below(&format!("{what}: p99 of an honest tenant's command against beside the truth"), ratio, "times", LIMIT);
    let figures = [beside, truth, alone].map(milliseconds).join(" / ");
    table.note(&format!("{what}: p99 of an honest tenant's command / beside the truth / alone"), figures);
    Ok(())
}
