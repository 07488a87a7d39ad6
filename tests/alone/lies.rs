//! Bridges that lie, one lie after the other, to a server with an honest tenant beside them.

use std::time::Duration;

use crate::lying::{
    catalogue::{LIES, Lie},
    liar::Faced,
    suite::tell,
};

/// The most that the server's memory may grow, in bytes.
const GROWTH: u64 = 32 << 20;
/// The honest tenant's p99 may always be this long, whatever it is without liars: the liars, the engine, the clients and an unoptimized
/// server share one machine.
const FLOOR: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn lying_bridges_spoil_only_their_own_tasks() {
    let Some(told) = tell(chosen()).await else { return };
    eprintln!("{told}");
    let wrong: Vec<String> = told.faced.iter().filter_map(Faced::wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(told.growth < GROWTH, "{told}");
    assert!(told.beside.p99() <= FLOOR.max(2 * told.alone.p99().max(told.beside_truth.p99())), "{told}");
}

/// The lies to tell: all of them, or those that `ERRAND_TEST_LIES` lists, separated by commas.
fn chosen() -> &'static [&'static Lie] {
    let names = std::env::var("ERRAND_TEST_LIES").unwrap_or_default();
    let is_chosen = |lie: &&Lie| names.is_empty() || names.split(',').any(|name| name == lie.name);
    Vec::leak(LIES.iter().filter(is_chosen).collect())
}
