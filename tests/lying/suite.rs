//! The whole suite: every lie, told to a server that also serves an honest tenant.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use super::{
    catalogue::{Lie, TRUTH},
    honest::{Honest, Times},
    liar::{self, Faced, Liars, Placed},
    memory::Memory,
};
use crate::support::{docker::Image, server::Server};

/// How many lies are told concurrently.
const TOGETHER: usize = 12;
/// How many containers are created concurrently. All of them exist before anything is measured.
const PLACING: usize = 4;
/// How many commands the honest tenant runs without liars.
const ALONE: usize = 200;

/// The effects of the lies on the server and on the honest tenant.
pub struct Told {
    /// The result of each lie; the slowest come last.
    pub faced: Vec<Faced>,
    /// The time that all lies took together.
    pub took: Duration,
    /// The largest growth of the server's memory in bytes.
    pub growth: u64,
    /// The honest tenant's times without any neighbour.
    pub alone: Times,
    /// The honest tenant's times beside as many truthful neighbours.
    pub beside_truth: Times,
    /// The honest tenant's times beside the liars.
    pub beside: Times,
}

/// Tells all these lies. None where there is no Docker.
///
/// # Panics
/// When an outcome of the honest tenant is wrong.
pub async fn tell(lies: &'static [&'static Lie]) -> Option<Told> {
    let server = server().await?;
    let docker = server.ground.docker()?;
    let liars = Liars { server: &server, docker, program: liar::program() };
    let honest = Honest::new(server.session_with("honest", "honest", "session"));

    let placed: Vec<Placed> =
        stream::iter(lies).map(|lie| liars.place_as(lie, 0)).buffer_unordered(PLACING).collect().await;
    let truths: Vec<Placed> = stream::iter(0..TOGETHER)
        .map(|number| liars.place_as(&TRUTH, number))
        .buffer_unordered(PLACING)
        .collect()
        .await;
    // The first command of each kind allocates memory once.
    honest.runs(ALONE / 4).await;
    let alone = honest.runs(ALONE).await;
    // Truthful neighbours with as many requests use the machine's processors too.
    let (beside_truth, _) = beside(&honest, &truths).await;
    let memory = Memory::of(server.pid());

    let begun = Instant::now();
    let (beside, mut faced) = beside(&honest, &placed).await;
    let (took, growth) = (begun.elapsed(), memory.growth());
    faced.sort_by_key(|faced| faced.took);
    Some(Told { faced, took, growth, alone, beside_truth, beside })
}

/// A server with an honest tenant, and a tenant whose bots may adopt any container.
async fn server() -> Option<Server> {
    let mut server = Server::prepare(Image::Busybox).await?;
    let entry = |tenant: &str, more: &str| {
        let hash = hex::encode(Sha256::digest(tenant.as_bytes()));
        format!("[[tokens]]\ntenant = \"{tenant}\"\nsha256 = \"{hash}\"\n{more}\n")
    };
    let file = server.file("tokens.toml", &(entry("honest", "") + &entry("lying", "adopt = true")));
    server.flags.extend(["--tokens-file".to_owned(), file]);
    server.launch().await;
    Some(server)
}

/// The honest tenant's times while these bridges run, and the result of each bridge.
async fn beside(honest: &Honest, placed: &[Placed]) -> (Times, Vec<Faced>) {
    let enough = Arc::new(AtomicBool::new(false));
    let running = tokio::spawn({
        let (honest, enough) = (honest.clone(), Arc::clone(&enough));
        async move { honest.runs_until(|| enough.load(Ordering::Relaxed)).await }
    });
    let faced = stream::iter(placed).map(Placed::face).buffer_unordered(TOGETHER).collect().await;
    enough.store(true, Ordering::Relaxed);
    (running.await.expect("the honest tenant's outcomes are right"), faced)
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for faced in &self.faced {
            writeln!(f, "{faced}")?;
        }
        write!(
            f,
            "{} lies in {:.0?}: memory grew by at most {} KiB; the honest tenant's {} commands: p99 {:?}, beside the truth {:?}, alone {:?}",
            self.faced.len(),
            self.took,
            self.growth / 1024,
            self.beside.count(),
            self.beside.p99(),
            self.beside_truth.p99(),
            self.alone.p99(),
        )
    }
}
