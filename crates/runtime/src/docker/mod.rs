//! Sandboxes as containers of a Docker engine.

mod archive;
mod at_rest;
mod container;
mod error;
mod fence;
mod fences;
mod guest;

use std::{path::PathBuf, sync::OnceLock, time::Duration};

use async_trait::async_trait;
use bollard::{
    API_DEFAULT_VERSION, Docker,
    container::LogOutput,
    exec::{StartExecOptions, StartExecResults},
    models::{ContainerInspectResponse, ExecConfig},
    query_parameters::{
        CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
        UploadToContainerOptionsBuilder,
    },
};
use futures_util::StreamExt as _;

use fences::Fences;

use crate::{Chunk, CreateSandbox, Exec, FileAtRest, Found, GuestProgram, NotStarted, Runtime, RuntimeError};

/// How long one request may take, in seconds. Streams are not bounded by it.
const REQUEST_TIMEOUT: u64 = 60;
/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the sandbox's own process has to end after SIGTERM, in seconds.
const STOP_GRACE: i32 = 2;
/// Where the engine listens unless told otherwise.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// Read buffer of one process's output, in bytes. The engine sends at most 32 KiB at a time.
const READ_BUFFER: usize = 32 * 1024;

/// A Docker engine.
#[derive(Debug)]
pub struct DockerRuntime {
    host: String,
    guest: GuestProgram,
    /// Made at first use: the engine's socket may appear after this server has started.
    docker: OnceLock<Docker>,
    /// Private addresses that sandboxes may reach.
    allowed: Vec<String>,
    /// Whether the volume with the bridge's program was seen to be filled.
    prepared: tokio::sync::Mutex<bool>,
    fences: Fences,
}

impl DockerRuntime {
    /// The engine at `host`: `unix://PATH`, a path, or `tcp://HOST:PORT`; its usual socket if none is given. Nothing is sent yet.
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

    /// The same, and its sandboxes on the network `bridge` may reach these ranges of private addresses, such as `10.1.0.0/16`.
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
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv.to_vec()),
            user: user.map(str::to_owned),
            ..ExecConfig::default()
        };
        self.exec_with(runtime_id, config).await
    }

    async fn exec_with(&self, runtime_id: &str, config: ExecConfig) -> Result<Exec, RuntimeError> {
        let created = self
            .docker()?
            .create_exec(runtime_id, config)
            .await
            .map_err(|failure| error::about_container(failure, runtime_id))?;
        let options = StartExecOptions { output_capacity: Some(READ_BUFFER), ..StartExecOptions::default() };
        let started = self.docker()?.start_exec(&created.id, Some(options)).await.map_err(error::about_exec_start)?;
        match started {
            StartExecResults::Attached { output, input } => Ok(Exec::new(
                Box::pin(output.map(|item| match item {
                    Ok(LogOutput::StdErr { message }) => Ok(Chunk::Stderr(message)),
                    // The engine's own words about a process that it could not start come unframed.
                    Ok(
                        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message },
                    ) => Ok(Chunk::Stdout(message)),
                    Err(failure) => Err(RuntimeError::Unavailable { detail: failure.to_string() }),
                })),
                input,
            )),
            StartExecResults::Detached => Err(RuntimeError::Uncertain {
                detail: "the engine started a process without attaching to it".to_owned(),
            }),
        }
    }

    /// Lets the sandbox's user write to `/workspace`, which the engine makes for root.
    async fn open_workspace(&self, found: &Found) -> Result<(), RuntimeError> {
        // An image may bring one of its own, which root without capabilities could not change.
        let argv = ["sh", "-c", "test -w /workspace && echo open"].map(str::to_owned);
        if &self.exec_as(&found.runtime_id, None, &argv).await?.collect(READ_BUFFER).await?.stdout[..] == b"open\n" {
            return Ok(());
        }
        let argv = ["chmod", "1777", "/workspace"].map(str::to_owned);
        let said = self.exec_as(&found.runtime_id, Some("0"), &argv).await?.collect(READ_BUFFER).await?;
        if said.stderr.is_empty() && said.stdout.is_empty() {
            return Ok(());
        }
        let detail = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).trim().to_owned();
        Err(RuntimeError::Refused { detail: format!("/workspace cannot be opened for the sandbox's user: {detail}") })
    }

    /// Removes a container with its own volumes. No error when there is none.
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

    async fn put_by_shell(&self, runtime_id: &str, path: &str, content: &[u8], mode: u32) -> Result<(), RuntimeError> {
        const SCRIPT: &str = include_str!("put_file.sh");
        let size = content.len().to_string();
        let argv = ["sh", "-c", SCRIPT, "errand", path, &size, &format!("{mode:o}")].map(str::to_owned);
        let said = self.exec_as(runtime_id, None, &argv).await?.feed(content, READ_BUFFER).await?;
        if &said.stdout[..] == b"written\n" {
            return Ok(());
        }
        let detail = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).trim().to_owned();
        if let Some(error) = error::explain(&detail) {
            return Err(error);
        }
        if detail.is_empty() {
            return Err(RuntimeError::Unavailable { detail: format!("the engine broke off while {path} was written") });
        }
        Err(RuntimeError::NotWritten { path: path.to_owned(), detail })
    }

    async fn put_by_archive(
        &self,
        runtime_id: &str,
        path: &str,
        content: &[u8],
        mode: u32,
    ) -> Result<(), RuntimeError> {
        let not_written = |detail: String| RuntimeError::NotWritten { path: path.to_owned(), detail };
        let user = self.inspect(runtime_id).await?.spec.user;
        let owner = user.and_then(|user| user.split(':').next()?.parse().ok());
        let archive = archive::pack(path, content, mode, owner)
            .ok_or_else(|| not_written("not the absolute path of a file in a directory".to_owned()))?;
        let options = UploadToContainerOptionsBuilder::default().path(&archive.directory).build();
        let body = bollard::body_full(archive.content);
        let uploaded = self.docker()?.upload_to_container(runtime_id, Some(options), body).await;
        uploaded.map_err(|failure| match error::about_container(failure, runtime_id) {
            RuntimeError::Refused { detail } => not_written(detail),
            other => other,
        })
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn is_through_engine(&self) -> bool {
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
                // The failure is the answer; the next call with this name removes what could not be removed now.
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

    fn explain(&self, said: &str) -> Option<RuntimeError> {
        error::explain(said)
    }

    async fn put_file(&self, runtime_id: &str, path: &str, content: &[u8], mode: u32) -> Result<(), RuntimeError> {
        self.guard(runtime_id).await?;
        // The archive API neither sees tmpfs mounts nor knows the sandbox's user by name: it is for sandboxes without a shell.
        match self.put_by_shell(runtime_id, path, content, mode).await {
            Err(RuntimeError::NotStarted { reason: NotStarted::NotFound, .. }) => {
                self.put_by_archive(runtime_id, path, content, mode).await
            }
            result => result,
        }
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
