//! Embedded sandboxes, in a data directory that is removed when a test ends.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    thread,
};

use errand_embedded::{EmbeddedOptions, EmbeddedRuntime};
use errand_runtime::{CreateSandbox, Found, Runtime as _};
use errand_task::{BotId, SandboxId, SandboxSpec, TenantId};
use tempfile::TempDir;

use super::docker::{Image, skip};

/// The root file system of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The programs of this machine.
    Host,
    /// An image exported from the engine as an archive: only busybox.
    Busybox,
}

impl Root {
    /// The image to request; none when it is not available, and the test is skipped.
    pub fn image(self) -> Option<String> {
        match self {
            Self::Host => Some("host".to_owned()),
            Self::Busybox => {
                let archive = archive();
                if archive.is_none() {
                    skip("no archive of a busybox image, and no engine to make one");
                }
                Some(archive?.display().to_string())
            }
        }
    }
}

/// The archive of the busybox image: `ERRAND_TEST_ARCHIVE`, or exported once from the engine.
fn archive() -> Option<PathBuf> {
    static ARCHIVE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let make = || {
        if let Some(path) = std::env::var_os("ERRAND_TEST_ARCHIVE") {
            return Some(PathBuf::from(path));
        }
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (path, part) = (directory.join("busybox.tar"), directory.join(format!("busybox.{}", std::process::id())));
        if !path.exists() {
            let name = Image::Busybox.name();
            let saved = Command::new("docker").args(["save", "--output"]).arg(&part).arg(name).output().ok()?;
            if !saved.status.success() {
                return None;
            }
            std::fs::rename(part, &path).ok()?;
        }
        Some(path)
    };
    ARCHIVE.get_or_init(make).clone()
}

/// A data directory on a machine that can make embedded sandboxes.
pub struct Machine {
    /// The size of each sandbox's disk in bytes.
    pub disk_bytes: u64,
    data_dir: PathBuf,
    _data: TempDir,
}

/// A new data directory; none when this machine cannot make embedded sandboxes, and the test is skipped.
pub async fn machine() -> Option<Machine> {
    let data = TempDir::new().unwrap();
    let machine = Machine { disk_bytes: 1 << 30, data_dir: data.path().to_owned(), _data: data };
    match machine.runtime().ping().await {
        Ok(()) => Some(machine),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

impl Machine {
    /// The path of the data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Moves to a directory below the current one.
    pub fn deepen(&mut self, below: &str) {
        self.data_dir = self.data_dir.join(below);
    }

    /// A runtime in the state of a freshly started server.
    pub fn runtime(&self) -> Arc<EmbeddedRuntime> {
        let images = archive().into_iter().collect();
        Arc::new(EmbeddedRuntime::new(EmbeddedOptions {
            images,
            disk_bytes: self.disk_bytes,
            ..EmbeddedOptions::new(self.data_dir(), errand::guest::program())
        }))
    }

    /// Removes a sandbox by name or id, in any state.
    pub fn remove(&self, sandbox: &str) {
        // A destructor cannot block on the async runtime that it runs on.
        thread::scope(|scope| {
            scope.spawn(|| {
                let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
                if let Err(error) = runtime.block_on(async { self.runtime().remove(sandbox).await }) {
                    eprintln!("the sandbox {sandbox} was not removed: {error}");
                }
            });
        });
    }
}

/// A request for a sandbox of this image, with values for everything a test does not care about.
pub fn request(image: String) -> CreateSandbox {
    let id = SandboxId::new();
    CreateSandbox {
        name: format!("errand-test-{id}"),
        id,
        tenant: TenantId::local(),
        bot: BotId::new("bot").unwrap(),
        spec: SandboxSpec {
            image,
            memory_bytes: 512 << 20,
            cpus: 2.0,
            pids_limit: 512,
            network_mode: "none".to_owned(),
            writable_root: false,
            user: None,
            env: Default::default(),
            idle_stop_after: None,
        },
        asked: Default::default(),
    }
}

/// A running sandbox. Removed when dropped.
pub struct Sandbox {
    pub machine: Machine,
    pub runtime: Arc<EmbeddedRuntime>,
    pub found: Found,
}

/// A sandbox with this root; none when it cannot be made here, and the test is skipped.
pub async fn sandbox(root: Root) -> Option<Sandbox> {
    tuned(root, |_| {}).await
}

/// Like [`sandbox`], with a changed spec.
pub async fn tuned(root: Root, tune: impl FnOnce(&mut SandboxSpec)) -> Option<Sandbox> {
    let machine = machine().await?;
    let mut request = request(root.image()?);
    tune(&mut request.spec);
    let runtime = machine.runtime();
    let found = runtime.create(&request).await.expect("make a sandbox");
    Some(Sandbox { machine, runtime, found })
}

impl Sandbox {
    /// The sandbox's id.
    pub fn id(&self) -> &str {
        &self.found.runtime_id
    }

    /// The sandbox's directory on the disk.
    pub fn directory(&self) -> PathBuf {
        self.machine.data_dir().join("sandboxes").join(&self.found.name)
    }

    /// Runs a shell script in the sandbox and returns what the script printed.
    pub async fn sh(&self, script: &str) -> String {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let said = self.runtime.exec(self.id(), &argv).await.unwrap().collect(1 << 20).await.unwrap();
        format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.machine.remove(&self.found.name);
    }
}
