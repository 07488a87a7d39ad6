//! Bridges that lie, one lie after the other, to a server with an honest tenant beside them.
//!
//! A test program of its own, so that nothing else runs at the same time: it measures the server's memory and the honest tenant's waiting.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

mod lying {
    pub mod catalogue;
    pub mod honest;
    pub mod liar;
    pub mod memory;
}

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use lying::{
    catalogue::{LIES, Lie, TRUTH},
    honest::{Honest, Times},
    liar::{Faced, Liars, Placed},
    memory::Memory,
};
use support::{docker::Image, server::Server};

/// How many lies are told at the same time.
const TOGETHER: usize = 12;
/// How many containers are made at the same time. All of them are there before anything is measured.
const PLACING: usize = 4;
/// How many commands the honest tenant runs while nobody lies.
const ALONE: usize = 200;
/// By how much the server's memory may grow, in bytes.
const GROWTH: u64 = 32 << 20;
/// What the honest tenant's p99 may be whatever it is alone: the liars, the engine, the clients and an unoptimized server share one machine.
const FLOOR: Duration = Duration::from_secs(1);

/// A server with a tenant that is honest, and one whose bots may have any container.
async fn server() -> Option<Server> {
    let mut server = Server::prepare(Image::Busybox).await?;
    let entry = |tenant: &str, more: &str| {
        let hash: String = Sha256::digest(tenant.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[tokens]]\ntenant = \"{tenant}\"\nsha256 = \"{hash}\"\n{more}\n")
    };
    let file = server.file("tokens.toml", &(entry("honest", "") + &entry("lying", "adopt = true")));
    server.flags.extend(["--tokens-file".to_owned(), file]);
    server.launch().await;
    Some(server)
}

#[tokio::test(flavor = "multi_thread")]
async fn lying_bridges_spoil_only_their_own_tasks() {
    let Some(server) = server().await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let liars = Liars { server: &server, docker, program: lying::liar::program() };
    let honest = Honest::new(server.session_with("honest", "honest", "session"));

    let placed: Vec<Placed> =
        stream::iter(chosen()).map(|lie| liars.place_as(lie, 0)).buffer_unordered(PLACING).collect().await;
    let truths: Vec<Placed> = stream::iter(0..TOGETHER)
        .map(|number| liars.place_as(&TRUTH, number))
        .buffer_unordered(PLACING)
        .collect()
        .await;
    // Whatever the first of a kind costs is no growth.
    honest.runs(ALONE / 4).await;
    let alone = honest.runs(ALONE).await;
    // Neighbours who ask as much and tell the truth cost the machine's processors too.
    let (beside_truth, _) = beside(&honest, &truths).await;
    let memory = Memory::of(server.pid());

    let begun = Instant::now();
    let (beside, mut told) = beside(&honest, &placed).await;
    let growth = memory.growth();

    told.sort_by_key(|faced| faced.took);
    for faced in &told {
        eprintln!("{faced}");
    }
    let said = format!(
        "{} lies in {:.0?}: memory grew by at most {} KiB; the honest tenant's {} commands: p99 {:?}, beside the truth {:?}, alone {:?}",
        told.len(),
        begun.elapsed(),
        growth / 1024,
        beside.count(),
        beside.p99(),
        beside_truth.p99(),
        alone.p99(),
    );
    eprintln!("{said}");
    let wrong: Vec<String> = told.iter().filter_map(Faced::wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(growth < GROWTH, "{said}");
    assert!(beside.p99() <= FLOOR.max(2 * alone.p99().max(beside_truth.p99())), "{said}");
}

/// What the honest tenant's commands take while these tell what they have to tell, and what came of that.
async fn beside(honest: &Honest, placed: &[Placed]) -> (Times, Vec<Faced>) {
    let enough = Arc::new(AtomicBool::new(false));
    let running = tokio::spawn({
        let (honest, enough) = (honest.clone(), Arc::clone(&enough));
        async move { honest.runs_until(|| enough.load(Ordering::Relaxed)).await }
    });
    let told = stream::iter(placed).map(Placed::face).buffer_unordered(TOGETHER).collect().await;
    enough.store(true, Ordering::Relaxed);
    (running.await.expect("the honest tenant's outcomes are right"), told)
}

/// The lies that are told: all of them, or those that `ERRAND_TEST_LIES` names, with commas between.
fn chosen() -> Vec<&'static Lie> {
    let names = std::env::var("ERRAND_TEST_LIES").unwrap_or_default();
    LIES.iter().filter(|lie| names.is_empty() || names.split(',').any(|name| name == lie.name)).collect()
}
