//! The whole suite: every lie told to a server that serves an honest tenant besides.

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

/// How many lies are told at the same time.
const TOGETHER: usize = 12;
/// How many containers are made at the same time. All of them are there before anything is measured.
const PLACING: usize = 4;
/// How many commands the honest tenant runs while nobody lies.
const ALONE: usize = 200;

/// What the lies did to the server and to the honest tenant.
pub struct Told {
    /// What came of each lie, those that took longest last.
    pub faced: Vec<Faced>,
    /// How long all of them took.
    pub took: Duration,
    /// By how many bytes the server's memory grew at most.
    pub growth: u64,
    /// What the honest tenant's commands took while nobody else ran any.
    pub alone: Times,
    /// What they took beside as many neighbours who tell the truth.
    pub beside_truth: Times,
    /// What they took beside the liars.
    pub beside: Times,
}

/// Has all of these lies told. None where there is no Docker.
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
    // The first command of a kind costs the server memory that the next ones do not.
    honest.runs(ALONE / 4).await;
    let alone = honest.runs(ALONE).await;
    // Neighbours who ask as much and tell the truth cost the machine's processors too.
    let (beside_truth, _) = beside(&honest, &truths).await;
    let memory = Memory::of(server.pid());

    let begun = Instant::now();
    let (beside, mut faced) = beside(&honest, &placed).await;
    let (took, growth) = (begun.elapsed(), memory.growth());
    faced.sort_by_key(|faced| faced.took);
    Some(Told { faced, took, growth, alone, beside_truth, beside })
}

/// A server with a tenant that is honest, and one whose bots may adopt any container.
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

/// What the honest tenant's commands take while these bridges say what they have to say, and what came of each.
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
