//! Embedded sandboxes: Errand makes them itself, with the kernel of the *host* (the machine that the server runs on) and bubblewrap.
//!
//! A sandbox is a directory in `sandboxes` in the data directory. While it runs, it has an *init*, which starts processes on request over a
//! socket in that directory. The server keeps no state of a sandbox in memory: a new server reads the same directory, checks whether the
//! sandbox's lock is held, and connects to the same socket.
//!
//! To start a sandbox, the server runs the *launcher*, a program with one thread. The launcher joins the cgroup, makes a view of the file
//! system, changes to the sandbox's host user, and executes *bubblewrap*, which makes the namespaces and starts the init in them. Launcher
//! and init are parts of the guest, which contains all unsafe code.
//!
//! This crate knows nothing of tasks.

mod arguments;
mod cgroup;
mod directories;
mod disk;
mod error;
mod files;
mod host;
mod init;
mod layout;
mod limits;
mod network;
mod owner;
mod processes;
#[allow(unreachable_pub)]
mod record;
mod remove_tree;
mod root;
mod sandboxes;
mod seccomp;
mod start;
mod stop;
mod streams;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

use arguments::INIT;
use errand_proto::init as proto;
use errand_runtime::{CreateSandbox, Exec, FileAtRest, Found, GuestProgram, Runtime, RuntimeError};
pub use host::{Availability, HostCapabilities, HostCapability};
use sandboxes::Sandboxes;

/// The default size of a sandbox's disk, in bytes.
const DISK: u64 = 10 << 30;
/// The most output of the program that writes a file, in bytes.
const SAID: usize = 32 * 1024;
/// Its output when the file is complete.
const WRITTEN: &[u8] = b"written\n";

/// Settings of the embedded runtime.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The guest: the program that is the first process of each sandbox.
    pub guest: GuestProgram,
    /// The server's data directory, which contains the sandboxes.
    pub data_dir: PathBuf,
    /// The size of a sandbox's disk, in bytes. Where sandboxes have no disks, the size of each file.
    pub disk_bytes: u64,
    /// Paths of images, which are directories or archives, or of directories that contain images. Callers cannot use other paths of the host.
    /// All paths must be absolute.
    pub images: Vec<PathBuf>,
    /// Ranges of private addresses that sandboxes on the network `bridge` may reach, such as `10.1.0.0/16`.
    pub allow_addresses: Vec<String>,
}

impl EmbeddedOptions {
    /// The default settings for a data directory: 10 GiB of disk, images from its directory `images`, and no private addresses.
    pub fn new(data_dir: &Path, guest: GuestProgram) -> Self {
        Self {
            guest,
            data_dir: data_dir.to_owned(),
            disk_bytes: DISK,
            images: vec![data_dir.join("images")],
            allow_addresses: Vec::new(),
        }
    }
}

/// The runtime that makes embedded sandboxes.
#[derive(Debug)]
pub struct EmbeddedRuntime {
    shared: Arc<Sandboxes>,
}

impl EmbeddedRuntime {
    /// A runtime with these settings. Makes nothing yet.
    pub fn new(options: EmbeddedOptions) -> Self {
        // Paths in the data directory are passed to processes with other working directories.
        let data_dir = std::path::absolute(&options.data_dir).unwrap_or(options.data_dir);
        Self { shared: Arc::new(Sandboxes::new(EmbeddedOptions { data_dir, ..options })) }
    }

    /// Runs blocking work on a thread for such work. The work runs to completion even if the caller is dropped.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Sandboxes) -> Result<T, RuntimeError> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(result) => result,
            Err(error) => Err(RuntimeError::Unavailable { detail: error.to_string() }),
        }
    }
}

#[async_trait]
impl Runtime for EmbeddedRuntime {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn prefers_compressed_streams(&self) -> bool {
        false
    }

    fn guest(&self) -> &GuestProgram {
        self.shared.guest()
    }

    fn guest_path(&self) -> String {
        arguments::guest_path(self.shared.guest().name())
    }

    async fn ping(&self) -> Result<(), RuntimeError> {
        self.apart(Sandboxes::host).await.map(drop)
    }

    async fn create(&self, request: &CreateSandbox) -> Result<Found, RuntimeError> {
        let request = request.clone();
        self.apart(move |shared| shared.create(&request)).await
    }

    async fn inspect(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        let id = runtime_id.to_owned();
        self.apart(move |shared| shared.inspect(&id)).await
    }

    fn memory_kills(&self, runtime_id: &str) -> Option<u64> {
        self.shared.memory_kills(runtime_id)
    }

    async fn start(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        let id = runtime_id.to_owned();
        self.apart(move |shared| shared.start(&id)).await
    }

    async fn stop(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        let id = runtime_id.to_owned();
        self.apart(move |shared| shared.stop(&id)).await
    }

    async fn remove(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        let id = runtime_id.to_owned();
        self.apart(move |shared| shared.remove(&id)).await
    }

    async fn exec(&self, runtime_id: &str, argv: &[String]) -> Result<Exec, RuntimeError> {
        let id = runtime_id.to_owned();
        let (directory, owner) =
            self.apart(move |shared| shared.find(&id).map(|(directory, record)| (directory, record.owner))).await?;
        let (ours, its) =
            streams::make(owner).map_err(|error| RuntimeError::Unavailable { detail: error.to_string() })?;
        init::start(&directory, runtime_id, argv, &its).await?;
        Ok(ours.into_exec())
    }

    async fn put_file(&self, runtime_id: &str, path: &str, content: &[u8], mode: u32) -> Result<(), RuntimeError> {
        let argv = [INIT, "write", path, &content.len().to_string(), &format!("{mode:o}")].map(str::to_owned);
        let said = self.exec(runtime_id, &argv).await?.feed(content, SAID).await?;
        if &said.stdout[..] == WRITTEN {
            return Ok(());
        }
        let detail = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        if detail.is_empty() {
            return Err(RuntimeError::Unavailable { detail: format!("the sandbox ended before {path} was complete") });
        }
        Err(RuntimeError::NotWritten { path: path.to_owned(), detail })
    }

    async fn read_at_rest(
        &self,
        _runtime_id: &str,
        _path: &str,
        _limit: usize,
    ) -> Result<Option<FileAtRest>, RuntimeError> {
        // The server does not mount the disk image of a stopped sandbox: commands controlled its content, and the kernel would parse it.
        Ok(None)
    }
}
