//! A private container engine that a test may kill and restart without affecting other tests.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use bollard::{API_DEFAULT_VERSION, Docker, body_full, query_parameters::ImportImageOptions};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tempfile::TempDir;

use super::{
    docker::{self, Image},
    wait::eventually,
};

/// An engine that keeps its containers alive while it is down (`live-restore`).
pub struct PrivateEngine {
    directory: TempDir,
    daemon: Option<Child>,
}

impl PrivateEngine {
    /// A running engine with one image. None: such an engine cannot run here, and the test is skipped; in CI that is a failure.
    pub async fn with(image: Image) -> Option<Self> {
        let shared = docker::engine(image).await?;
        let mut engine = Self { directory: TempDir::new().unwrap(), daemon: None };
        if let Err(missing) = engine.try_start() {
            docker::skip(&missing);
            return None;
        }
        let own = engine.answering().await;
        let packed: Vec<Bytes> = shared.export_image(&image.name()).try_collect().await.unwrap();
        let mut loading = own.import_image(ImportImageOptions::default(), body_full(packed.concat().into()), None);
        while let Some(step) = loading.next().await {
            step.unwrap();
        }
        Some(engine)
    }

    /// The engine's address.
    pub fn url(&self) -> String {
        format!("unix://{}", self.directory.path().join("d.sock").display())
    }

    fn client(&self) -> Option<Docker> {
        Docker::connect_with_unix(&self.url(), 10, API_DEFAULT_VERSION).ok()
    }

    /// Waits until the engine answers.
    async fn answering(&self) -> Docker {
        eventually("the engine answers", async || {
            let docker = self.client()?;
            docker.ping().await.ok().map(|_| docker)
        })
        .await
    }

    fn try_start(&mut self) -> Result<(), String> {
        let path = |name: &str| self.directory.path().join(name);
        let log = std::fs::File::create(path("log")).map_err(|error| error.to_string())?;
        let option = |name: &str, value: &Path| format!("--{name}={}", value.display());
        // In a network namespace of its own: an engine without a bridge network removes an existing one, which belongs to the other engine.
        let daemon = Command::new("unshare")
            .args(["--net", "dockerd"])
            .arg(option("data-root", &path("data")))
            .arg(option("exec-root", &path("exec")))
            .arg(option("pidfile", &path("pid")))
            .arg(format!("--host={}", self.url()))
            .args(["--bridge=none", "--iptables=false", "--ip-masq=false", "--live-restore", "--storage-driver=vfs"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("no container engine of its own (unshare dockerd: {error})"))?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Kills the engine. Its containers run on.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
        // Pid files of killed processes: those pids may belong to other processes or zombies by now.
        for left in ["pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.directory.path().join(left));
        }
    }

    /// Starts the engine again.
    pub async fn start_again(&mut self) {
        self.try_start().unwrap();
        self.answering().await;
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        let run = |program: &str, arguments: &[&str]| {
            let _ = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        };
        let root = self.directory.path().display().to_string();
        if let Some(mut daemon) = self.daemon.take() {
            // On SIGTERM the engine also stops its own containerd.
            run("kill", &["-TERM", &daemon.id().to_string()]);
            let _ = daemon.wait();
        }
        // The engine mounts its own directory over itself.
        run("umount", &["-R", "-l", &format!("{root}/data")]);
        run("umount", &["-R", "-l", &format!("{root}/exec")]);
    }
}
