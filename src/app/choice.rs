//! Chooses the server's runtime: the one that the settings name. If they leave it open, the one that the store depends on, otherwise the
//! first that works on this machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use super::{ServeError, diagnostics};
use crate::config::{Config, RuntimeKind};
use errand_embedded::{Availability, EmbeddedOptions, EmbeddedRuntime, HostCapabilities};
use errand_runtime::{DockerRuntime, Runtime};
use errand_store::TaskStore;
use errand_task::SandboxId;
use errand_task::error_chain;

/// The runtimes' names in records.
const DOCKER: &str = "docker";
const EMBEDDED: &str = "embedded";
/// The directory in the data directory where the Docker runtime notes which networks are fenced.
const FENCES: &str = "fences";
/// How many sandboxes are read at a time.
const PAGE: u32 = 1000;

/// A runtime, and the defaults of a new sandbox in it.
pub(super) struct Chosen {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) image: &'static str,
    pub(super) network_mode: &'static str,
}

/// Why a runtime does not work on this machine, and how to fix it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The runtime's name.
    pub runtime: &'static str,
    /// Why the runtime does not work.
    pub why: String,
    /// How to fix it.
    pub remedy: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n{0}: to use it: {}", self.runtime, self.why, self.remedy)
    }
}

/// Chooses the runtime, and logs which one and why.
pub(super) async fn choose(config: &Config, store: &dyn TaskStore) -> Result<Chosen, ServeError> {
    let docker = DockerRuntime::new(config.docker_host.as_deref(), crate::guest::program())
        .allowing(config.allow_addresses.clone())
        .remembering(config.data_dir.join(FENCES));
    match config.runtime {
        RuntimeKind::Docker => Ok(wait_for(docker, "it was asked for").await),
        RuntimeKind::Embedded => {
            embedded(config, "it was asked for").await.map_err(|no| ServeError::NoRuntime { obstacles: vec![no] })
        }
        RuntimeKind::Auto => match bound(store).await? {
            // Another runtime would abandon these sandboxes, and could not find out what became of their tasks.
            Some(DOCKER) => Ok(wait_for(docker, "the store has sandboxes of it").await),
            Some(_) => embedded(config, "the store has sandboxes of it")
                .await
                .map_err(|no| ServeError::NoRuntime { obstacles: vec![no] }),
            None => first_that_works(config, docker).await,
        },
    }
}

async fn first_that_works(config: &Config, docker: DockerRuntime) -> Result<Chosen, ServeError> {
    let error = match docker.ping().await {
        Ok(()) => return Ok(with_docker(docker, "its engine answers")),
        Err(error) => error,
    };
    tracing::info!(error = %error_chain(&error), "no Docker engine answers");
    embedded(config, "no Docker engine answers").await.map_err(|no| {
        let remedy = diagnostics::engine_remedy(config.docker_host.as_deref());
        ServeError::NoRuntime { obstacles: vec![Obstacle { runtime: DOCKER, why: error_chain(&error), remedy }, no] }
    })
}

fn with_docker(docker: DockerRuntime, why: &str) -> Chosen {
    tracing::info!(runtime = DOCKER, why, "sandboxes are containers");
    Chosen { runtime: Arc::new(docker), image: "debian:bookworm-slim", network_mode: "bridge" }
}

/// Uses Docker even if its engine does not answer yet: the stored records can be read, and the engine may come back.
async fn wait_for(docker: DockerRuntime, why: &str) -> Chosen {
    if let Err(error) = docker.ping().await {
        tracing::warn!(why, error = %error_chain(&error), "the container engine does not answer yet");
    }
    with_docker(docker, why)
}

async fn embedded(config: &Config, why: &str) -> Result<Chosen, Obstacle> {
    let broken = |why: String| Obstacle { runtime: EMBEDDED, why, remedy: "errand doctor".to_owned() };
    let host =
        tokio::task::spawn_blocking(HostCapabilities::detect).await.map_err(|error| broken(error.to_string()))?;
    if let Some(Availability::Missing { why, remedy }) = host.first_missing().map(|capability| &capability.availability)
    {
        return Err(Obstacle { runtime: EMBEDDED, why: why.clone(), remedy: remedy.clone() });
    }
    tracing::info!(runtime = EMBEDDED, why, "sandboxes are made by this server");
    for capability in host.all() {
        if let Availability::Degraded { why, remedy } = &capability.availability {
            tracing::warn!(capability = capability.name, remedy, "{why}");
        }
    }
    let mut options = EmbeddedOptions::new(&config.data_dir, crate::guest::program());
    options.disk_bytes = config.disk_bytes;
    options.allow_addresses.clone_from(&config.allow_addresses);
    // The operator who set this path has access to it. Callers can request only paths in the directory of images.
    options.images.extend(config.image.as_deref().filter(|image| image.starts_with('/')).map(Into::into));
    Ok(Chosen {
        runtime: Arc::new(EmbeddedRuntime::new(options)),
        image: "host",
        network_mode: if host.has_network() { "bridge" } else { "none" },
    })
}

/// The runtime that the store depends on, if it depends on exactly one.
async fn bound(store: &dyn TaskStore) -> Result<Option<&'static str>, ServeError> {
    let mut runtimes: BTreeMap<SandboxId, &'static str> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = store.sandboxes(None, after, PAGE).await.map_err(ServeError::Store)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        let known = |name: &str| [DOCKER, EMBEDDED].into_iter().find(|known| *known == name);
        runtimes.extend(page.iter().filter_map(|record| Some((record.id, known(&record.runtime)?))));
    }
    let tasks = store.unfinished_tasks().await.map_err(ServeError::Store)?;
    let busy = tasks.iter().filter_map(|task| runtimes.get(&task.sandbox).copied()).collect();
    Ok(only(&busy).or_else(|| only(&runtimes.into_values().collect())))
}

/// The only element, if there is exactly one.
fn only(runtimes: &BTreeSet<&'static str>) -> Option<&'static str> {
    if runtimes.len() == 1 { runtimes.first().copied() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_runtime_is_chosen() {
        assert_eq!(only(&BTreeSet::from([DOCKER])), Some(DOCKER));
        assert_eq!(only(&BTreeSet::from([DOCKER, EMBEDDED])), None);
        assert_eq!(only(&BTreeSet::new()), None);
    }

    #[test]
    fn unusable_runtime_is_named_with_its_remedy() {
        let obstacle = Obstacle { runtime: EMBEDDED, why: "no bwrap".to_owned(), remedy: "get it".to_owned() };
        assert_eq!(obstacle.to_string(), "embedded: no bwrap\nembedded: to use it: get it");
    }
}
