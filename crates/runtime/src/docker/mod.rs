//! Sandboxes as containers of a Docker engine.

mod archive;
mod at_rest;
mod container;
mod error;
mod exec;
mod fence;
mod fences;
mod guest;
mod put_file;

use std::{path::PathBuf, sync::OnceLock, time::Duration};

use async_trait::async_trait;
use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::ContainerInspectResponse,
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder},
};
use exec::READ_BUFFER;
use fences::Fences;

use crate::{CreateSandbox, Exec, FileAtRest, Found, GuestProgram, Runtime, RuntimeError};

/// How long one request may take, in seconds. Streams are not bounded by it.
const REQUEST_TIMEOUT: u64 = 60;
/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the sandbox's own process has to end after SIGTERM, in seconds.
const STOP_GRACE: i32 = 2;
/// Where the engine listens unless told otherwise.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// A Docker engine.
#[derive(Debug)]
pub struct DockerRuntime {
    host: String,
    guest: GuestProgram,
    /// Made at first use: the engine's socket may appear after this server has started.
    docker: OnceLock<Docker>,
    /// Private addresses that sandboxes may reach.
    allowed: Vec<String>,
    /// Whether the volume with the guest was found filled.
    prepared: tokio::sync::Mutex<bool>,
    fences: Fences,
}

impl DockerRuntime {
    /// Uses the engine at `host`: `unix://PATH`, a path, or `tcp://HOST:PORT`; default: its usual socket. Sends nothing yet.
    pub fn new(host: Option<&str>, guest: GuestProgram) -> Self {
        Self {
            guest,
            host: host.unwrap_or(DEFAULT_HOST).to_owned(),
            docker: OnceLock::new(),
            allowed: Vec::new(),
            prepared: tokio::sync::Mutex::default(),
            fences: Fences::default(),
        }
    }

    /// Allows sandboxes on the network `bridge` to reach these ranges of private addresses, such as `10.1.0.0/16`.
    #[must_use]
    pub fn allowing(self, allowed: Vec<String>) -> Self {
        Self { allowed, ..self }
    }

    /// The same, and it remembers in this directory which sandboxes have a fence, so that the next server need not put it up again.
    #[must_use]
    pub fn remembering(self, directory: PathBuf) -> Self {
        Self { fences: Fences::in_directory(directory), ..self }
    }

    fn docker(&self) -> Result<&Docker, RuntimeError> {
        if let Some(docker) = self.docker.get() {
            return Ok(docker);
        }
        let docker = if self.host.starts_with("tcp://") || self.host.starts_with("http://") {
            Docker::connect_with_http(&self.host, REQUEST_TIMEOUT, API_DEFAULT_VERSION)
        } else {
            Docker::connect_with_unix(&self.host, REQUEST_TIMEOUT, API_DEFAULT_VERSION)
        };
        let docker = docker.map_err(|error| RuntimeError::Unavailable { detail: format!("{}: {error}", self.host) })?;
        Ok(self.docker.get_or_init(|| docker))
    }

    async fn exec_as(&self, runtime_id: &str, user: Option<&str>, argv: &[String]) -> Result<Exec, RuntimeError> {
        exec::exec(self.docker()?, runtime_id, user, argv).await
    }

    /// Lets the sandbox's user write to `/workspace`, which the engine makes for root.
    async fn open_workspace(&self, found: &Found) -> Result<(), RuntimeError> {
        // An image may bring a `/workspace` of its own, which root without capabilities could not change.
        let argv = ["sh", "-c", "test -w /workspace"].map(str::to_owned);
        if self.run(&found.runtime_id, None, &argv).await?.is_ok() {
            return Ok(());
        }
        let argv = ["chmod", "1777", "/workspace"].map(str::to_owned);
        self.run(&found.runtime_id, Some("0"), &argv).await?.map_err(|detail| RuntimeError::Refused {
            detail: format!("/workspace cannot be opened for the sandbox's user: {detail}"),
        })
    }

    /// Runs a short program to its end. The inner error is the message of a program that failed, or that the image does not have.
    async fn run(
        &self,
        runtime_id: &str,
        user: Option<&str>,
        argv: &[String],
    ) -> Result<Result<(), String>, RuntimeError> {
        let ran = async { self.exec_as(runtime_id, user, argv).await?.collect_with_status(READ_BUFFER).await };
        match ran.await {
            Ok((_, Some(0))) => Ok(Ok(())),
            Ok((said, status)) => {
                let message = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).trim().to_owned();
                Ok(Err(if message.is_empty() { format!("exit status {status:?}") } else { message }))
            }
            Err(RuntimeError::NotStarted { detail, .. }) => Ok(Err(detail)),
            Err(error) => Err(error),
        }
    }

    /// Removes a container with its own volumes. Succeeds if the container does not exist.
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker()?.remove_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(failure) => match error::about_container(failure, id) {
                RuntimeError::NoSuchSandbox { .. } => Ok(()),
                other => Err(other),
            },
        }
    }

    async fn look(&self, runtime_id: &str) -> Result<ContainerInspectResponse, RuntimeError> {
        let inspected = self.docker()?.inspect_container(runtime_id, None).await;
        inspected.map_err(|failure| error::about_container(failure, runtime_id))
    }

    async fn create_and_start(&self, request: &CreateSandbox) -> Result<Found, RuntimeError> {
        let options = CreateContainerOptionsBuilder::default().name(&request.name).build();
        self.prepare_guest(&request.spec.image).await?;
        let created = self
            .docker()?
            .create_container(Some(options), container::body(request, &self.guest)?)
            .await
            .map_err(|failure| error::about_creation(failure, &request.spec.image))?;
        container::unkept(&created.warnings, request.asked)?;
        self.refuse_link(&request.name).await?;
        let found = self.start(&request.name).await?;
        if found.spec.user.is_some() {
            self.open_workspace(&found).await?;
        }
        Ok(found)
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn prefers_compressed_streams(&self) -> bool {
        // The engine copies every byte several times.
        true
    }

    fn guest(&self) -> &GuestProgram {
        &self.guest
    }

    fn guest_path(&self) -> String {
        guest::path(&self.guest)
    }

    async fn ping(&self) -> Result<(), RuntimeError> {
        match tokio::time::timeout(PING_TIMEOUT, self.docker()?.ping()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(failure)) => Err(error::about_container(failure, "")),
            Err(_) => Err(RuntimeError::Unavailable { detail: format!("no answer within {PING_TIMEOUT:?}") }),
        }
    }

    async fn create(&self, request: &CreateSandbox) -> Result<Found, RuntimeError> {
        let name = &request.name;
        self.remove(name).await?;
        let mut created = self.create_and_start(request).await;
        if let Err(RuntimeError::Refused { detail }) = &created
            && detail.contains(&guest::path(&self.guest))
        {
            // The volume was removed since it was filled.
            *self.prepared.lock().await = false;
            self.remove(name).await?;
            created = self.create_and_start(request).await;
        }
        match created {
            Ok(found) => Ok(found),
            Err(failure) => {
                // The caller gets the first failure. The next call with this name removes what could not be removed now.
                if let Err(left) = self.remove(name).await {
                    tracing::warn!(container = %name, error = %left, "a half-made container is left");
                }
                Err(failure)
            }
        }
    }

    async fn inspect(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        self.look(runtime_id).await.map(container::found)
    }

    async fn start(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        let started = self.docker()?.start_container(runtime_id, None).await;
        started.map_err(|failure| error::about_container(failure, runtime_id))?;
        let inspected = self.look(runtime_id).await?;
        self.fence(&inspected, runtime_id).await?;
        Ok(container::found(inspected))
    }

    async fn stop(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        let options = StopContainerOptionsBuilder::default().t(STOP_GRACE).build();
        let stopped = self.docker()?.stop_container(runtime_id, Some(options)).await;
        stopped.map_err(|failure| error::about_container(failure, runtime_id))
    }

    async fn remove(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        self.fences.forget(runtime_id);
        self.remove_container(runtime_id).await
    }

    async fn exec(&self, runtime_id: &str, argv: &[String]) -> Result<Exec, RuntimeError> {
        self.guard(runtime_id).await?;
        self.exec_as(runtime_id, None, argv).await
    }

    async fn put_file(&self, runtime_id: &str, path: &str, content: &[u8], mode: u32) -> Result<(), RuntimeError> {
        self.guard(runtime_id).await?;
        self.put(runtime_id, path, content, mode).await
    }

    async fn read_at_rest(
        &self,
        runtime_id: &str,
        path: &str,
        limit: usize,
    ) -> Result<Option<FileAtRest>, RuntimeError> {
        at_rest::read(self.docker()?, runtime_id, path, limit).await
    }
}
