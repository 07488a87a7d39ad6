//! Runs a real server on an empty database.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bollard::Docker;
use errand_proto::v1::{DeleteSandboxRequest, EnsureSandboxRequest, sandbox_service_client::SandboxServiceClient};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{client::Client, sandbox::Sandbox};

/// How long the server may take to serve.
const START: Duration = Duration::from_mins(1);

/// The largest HTTP/2 frame that clients accept, in bytes: the same as the command line's.
const FRAME: u32 = 64 * 1024;

/// A running server, killed when dropped.
pub struct Server {
    docker: Docker,
    flags: Vec<String>,
    process: Process,
    data: TempDir,
}

/// A bot of a server: its sandbox, and a client.
pub struct Bot {
    pub client: Client,
    pub sandbox: Sandbox,
}

impl Server {
    /// Starts a server. Its database is below the build directory, because the directory for temporary files may be in memory.
    pub async fn start(docker: &Docker, flags: &[&str]) -> Result<Self> {
        Self::on("docker", docker, flags).await
    }

    /// Like [`Self::start`], with this runtime.
    pub async fn on(runtime: &str, docker: &Docker, flags: &[&str]) -> Result<Self> {
        let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let cores = thread::available_parallelism()?.get().to_string();
        // The benchmark's load would reach the default limits.
        let raised = ["--max-running-per-bot", "10000", "--max-running-per-tenant", "10000", "--pids-limit", "30000"];
        let own = ["--memory-bytes", "8GiB", "--cpus", &cores, "--runtime", runtime];
        let flags: Vec<String> = raised.iter().chain(&own).chain(flags).map(|flag| (*flag).to_owned()).collect();
        let process = Process::start(data.path(), &flags).await?;
        Ok(Self { docker: docker.clone(), flags, process, data })
    }

    /// Creates a bot with its sandbox.
    pub async fn bot(&self, name: &str) -> Result<Bot> {
        let sandbox = Sandbox::new(self.docker.clone(), self.make(name).await?);
        Ok(Bot { client: self.client(name).await?, sandbox })
    }

    /// Creates the sandbox of a bot, and returns its id. Unless the sandbox is a container, the caller must delete it.
    pub async fn make(&self, bot: &str) -> Result<String> {
        let request = EnsureSandboxRequest { bot_id: bot.to_owned(), spec: None };
        let ensured = SandboxServiceClient::new(self.connect().await?).ensure_sandbox(request).await;
        Ok(ensured.context("make a sandbox")?.into_inner().sandbox.unwrap_or_default().container_id)
    }

    /// Deletes the sandbox of a bot.
    pub async fn delete(&self, bot: &str) -> Result<()> {
        let request = DeleteSandboxRequest { bot_id: bot.to_owned() };
        let deleted = SandboxServiceClient::new(self.connect().await?).delete_sandbox(request).await;
        deleted.context("delete a sandbox")?;
        Ok(())
    }

    /// Creates this many bots.
    pub async fn bots(&self, count: usize) -> Result<Vec<Bot>> {
        let mut bots = Vec::new();
        for number in 0..count {
            bots.push(self.bot(&format!("bench-{number}")).await?);
        }
        Ok(bots)
    }

    /// A client of a bot, on a separate connection.
    pub async fn client(&self, bot: &str) -> Result<Client> {
        Client::new(self.connect().await?, bot).await
    }

    /// A separate connection.
    pub async fn connect(&self) -> Result<Channel> {
        Ok(self.process.endpoint.connect().await?)
    }

    /// The server's address for clients.
    pub fn endpoint(&self) -> Endpoint {
        self.process.endpoint.clone()
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// The directory of the database; other files on the same disk may be put there.
    pub fn directory(&self) -> &Path {
        self.data.path()
    }

    /// The directory of the embedded sandboxes.
    pub fn sandboxes(&self) -> PathBuf {
        data_dir(self.data.path()).join("sandboxes")
    }

    /// Kills the server, which cannot clean up.
    pub fn kill(&mut self) -> Result<()> {
        self.process.child.kill()?;
        self.process.child.wait()?;
        Ok(())
    }

    /// Starts the server again on the same data, and waits until it serves.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = Process::start(self.data.path(), &self.flags).await?;
        Ok(())
    }
}

fn data_dir(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// A process of this machine, killed when dropped.
struct Process {
    child: Child,
    endpoint: Endpoint,
    log: PathBuf,
}

impl Process {
    async fn start(directory: &Path, flags: &[String]) -> Result<Self> {
        let log = directory.join("server.log");
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_errand"));
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(flags).arg("--data-dir").arg(data_dir(directory));
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn()?;
        let mut process = Self { child, endpoint: Endpoint::from_static("http://127.0.0.1"), log };
        let ready = process.ready().await;
        ready.with_context(|| format!("the server says:\n{}", process.said()))?;
        Ok(process)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default().trim_end().to_owned()
    }

    /// Waits until the server serves. The server's first line of output names its address.
    async fn ready(&mut self) -> Result<()> {
        let mut line = String::new();
        BufReader::new(self.child.stdout.take().context("its output")?).read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        self.endpoint = Endpoint::from_shared(format!("http://{address}"))?.max_frame_size(FRAME);
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            ensure!(self.child.try_wait()?.is_none(), "the server ended");
            if let Ok(channel) = self.endpoint.connect().await {
                let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
                let answer = health.check(tonic_health::pb::HealthCheckRequest::default()).await;
                if answer.is_ok_and(|answer| answer.into_inner().status == 1) {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the server did not begin to serve within {START:?}")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
