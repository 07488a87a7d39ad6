//! Sandboxes that Errand makes itself, with nothing but this machine's kernel and bubblewrap.
//!
//! A sandbox is a directory below `sandboxes` in the data directory, and while it lives a process: its init, which runs what it is asked to
//! over a socket in that directory. Nothing about a sandbox is remembered by the server: a new one reads the same directory, asks the
//! kernel who holds its lock, and finds the init at the same socket.
//!
//! The way to a living sandbox: the server (threads, an async runtime) starts the *launcher*, a small program of one thread, which joins the
//! cgroup, makes a view of the file system, changes to the sandbox's own user and becomes *bubblewrap*, which makes the namespaces and
//! starts the *init* in them. What is not safe to do in safe Rust is in the launcher and the init, in the crate of the bridge.

mod arguments;
mod cgroup;
mod clear;
mod disk;
mod end;
mod home;
mod init;
mod launch;
mod machine;
mod network;
mod owner;
mod places;
mod processes;
#[allow(unreachable_pub)]
mod record;
mod root;
mod seccomp;
mod shared;
mod streams;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

use arguments::INIT;
use errand_proto::init as proto;
use errand_runtime::{CreateSandbox, Exec, FileAtRest, Found, GuestProgram, Runtime, RuntimeError};
pub use machine::{Machine, Part, Verdict};
use shared::Shared;

/// What a sandbox can hold unless told otherwise, in bytes.
const DISK: u64 = 10 << 30;
/// The most that the program that writes files says.
const SAID: usize = 32 * 1024;
/// What it says when it is done.
const WRITTEN: &[u8] = b"written\n";

/// How sandboxes are made.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The program that is the first process of each sandbox, and lives in it.
    pub guest: GuestProgram,
    /// The server's data directory: sandboxes are below it.
    pub data_dir: PathBuf,
    /// What a sandbox can hold on the disk, in bytes.
    pub disk_bytes: u64,
    /// Images: directories and archives that sandboxes may have as their root, or directories of such. No other path of this machine can
    /// be asked for. A relative path is never asked for.
    pub images: Vec<PathBuf>,
    /// Ranges of private addresses that sandboxes on the network `bridge` may reach, such as `10.1.0.0/16`.
    pub allow_addresses: Vec<String>,
}

impl EmbeddedOptions {
    /// The usual ones, for a data directory: images are those in its directory `images`.
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

/// This machine's kernel.
#[derive(Debug)]
pub struct EmbeddedRuntime {
    shared: Arc<Shared>,
}

impl EmbeddedRuntime {
    /// Sandboxes of this machine. Nothing is made yet.
    pub fn new(options: EmbeddedOptions) -> Self {
        // What is below it is given to other processes, which have other working directories.
        let data_dir = std::path::absolute(&options.data_dir).unwrap_or(options.data_dir);
        Self { shared: Arc::new(Shared::new(EmbeddedOptions { data_dir, ..options })) }
    }

    /// Does work that waits for the disk and for processes where that holds nobody up. It is done to its end, also when nobody waits.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, RuntimeError> + Send + 'static,
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
        self.apart(Shared::machine).await.map(drop)
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
            return Err(RuntimeError::Unavailable { detail: format!("the sandbox ended while {path} was written") });
        }
        Err(RuntimeError::NotWritten { path: path.to_owned(), detail })
    }

    async fn read_at_rest(
        &self,
        _runtime_id: &str,
        _path: &str,
        _limit: usize,
    ) -> Result<Option<FileAtRest>, RuntimeError> {
        // The disk of a sandbox that does not run is an image, which the server does not mount: a command has written to it.
        Ok(None)
    }
}
