//! The other side: a command through the engine's exec API and nothing else.

use std::{pin::Pin, time::Duration, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bollard::{
    API_DEFAULT_VERSION, Docker,
    container::LogOutput,
    errors::Error,
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use futures_util::{Stream, StreamExt as _};

/// Read buffer, in bytes: as large as Errand's own.
const READ_BUFFER: usize = 32 * 1024;

/// The engine that Errand would use too.
pub fn connect() -> Result<Docker> {
    let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let host = host.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    if host.starts_with("unix://") {
        Ok(Docker::connect_with_unix(&host, 60, API_DEFAULT_VERSION)?)
    } else {
        Ok(Docker::connect_with_http(&host, 60, API_DEFAULT_VERSION)?)
    }
}

/// Runs commands in a container.
#[derive(Clone)]
pub struct Bare {
    docker: Docker,
    container: String,
}

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

impl Bare {
    pub fn new(docker: Docker, container: String) -> Self {
        Self { docker, container }
    }

    async fn start(&self, command: &str) -> Result<(String, Output)> {
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(["sh", "-c", command].map(str::to_owned).to_vec()),
            ..ExecConfig::default()
        };
        let id = self.docker.create_exec(&self.container, config).await?.id;
        let options = StartExecOptions { output_capacity: Some(READ_BUFFER), ..StartExecOptions::default() };
        match self.docker.start_exec(&id, Some(options)).await? {
            StartExecResults::Attached { output, .. } => Ok((id, output)),
            StartExecResults::Detached => bail!("the engine did not attach"),
        }
    }

    /// Runs a command to its exit code. Returns how many bytes it printed.
    pub async fn run(&self, command: &str) -> Result<u64> {
        let (id, output) = self.start(command).await?;
        self.finish(&id, output).await
    }

    async fn finish(&self, id: &str, mut output: Output) -> Result<u64> {
        let mut bytes = 0;
        while let Some(chunk) = output.next().await {
            bytes += chunk?.as_ref().len() as u64;
        }
        let code = self.docker.inspect_exec(id).await?.exit_code;
        ensure!(code == Some(0), "the command ended with {code:?}");
        Ok(bytes)
    }

    /// Runs a command to its end. Returns how long its first output took.
    pub async fn first_byte(&self, command: &str) -> Result<Duration> {
        let begun = Instant::now();
        let (id, mut output) = self.start(command).await?;
        output.next().await.context("no output")??;
        let taken = begun.elapsed();
        self.finish(&id, output).await?;
        Ok(taken)
    }
}
