//! The other side of the comparison: a command run through the engine's exec API alone.

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
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// The size of the read buffer in bytes: the same as Errand's.
const READ_BUFFER: usize = 32 * 1024;

/// Connects to the engine that Errand would use too.
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

/// A running command.
struct Exec {
    id: String,
    output: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
    input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl Bare {
    pub fn new(docker: Docker, container: String) -> Self {
        Self { docker, container }
    }

    async fn start(&self, command: &str, input: bool) -> Result<Exec> {
        let config = ExecConfig {
            attach_stdin: Some(input),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(["sh", "-c", command].map(str::to_owned).to_vec()),
            ..ExecConfig::default()
        };
        let id = self.docker.create_exec(&self.container, config).await?.id;
        let options = StartExecOptions { output_capacity: Some(READ_BUFFER), ..StartExecOptions::default() };
        match self.docker.start_exec(&id, Some(options)).await? {
            StartExecResults::Attached { output, input } => Ok(Exec { id, output, input }),
            StartExecResults::Detached => bail!("the engine did not attach"),
        }
    }

    async fn finish(&self, mut exec: Exec, mut seen: impl FnMut(&[u8])) -> Result<()> {
        while let Some(chunk) = exec.output.next().await {
            seen(chunk?.as_ref());
        }
        let code = self.docker.inspect_exec(&exec.id).await?.exit_code;
        ensure!(code == Some(0), "the command ended with {code:?}");
        Ok(())
    }

    /// Runs a command to its exit code. Returns what it printed.
    pub async fn run(&self, command: &str) -> Result<String> {
        let exec = self.start(command, false).await?;
        let mut text = Vec::new();
        self.finish(exec, |chunk| text.extend_from_slice(chunk)).await?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// Runs a command to its exit code. Returns how many bytes it printed.
    pub async fn count(&self, command: &str) -> Result<u64> {
        let exec = self.start(command, false).await?;
        let mut bytes = 0;
        self.finish(exec, |chunk| bytes += chunk.len() as u64).await?;
        Ok(bytes)
    }

    /// Runs a command to its end. Returns how long its first output took.
    pub async fn first_byte(&self, command: &str) -> Result<Duration> {
        let begun = Instant::now();
        let mut exec = self.start(command, false).await?;
        exec.output.next().await.context("no output")??;
        let taken = begun.elapsed();
        self.finish(exec, |_| ()).await?;
        Ok(taken)
    }

    /// Writes a program into the container.
    pub async fn put(&self, path: &str, program: &[u8]) -> Result<()> {
        let command = format!("head -c {} >{path} && chmod 700 {path}", program.len());
        let mut exec = self.start(&command, true).await?;
        exec.input.write_all(program).await?;
        exec.input.flush().await?;
        self.finish(exec, |_| ()).await
    }

    /// The round-trip time of a byte to a process in the container and back, on an open stream.
    pub async fn round_trips(&self, count: usize) -> Result<Vec<Duration>> {
        let mut exec = self.start("exec cat", true).await?;
        let mut taken = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            exec.input.write_all(b"x").await?;
            exec.input.flush().await?;
            exec.output.next().await.context("no echo")??;
            taken.push(begun.elapsed());
        }
        exec.input.shutdown().await?;
        Ok(taken)
    }
}
