//! Sandboxes that Errand makes itself, in a data directory that goes when a test ends.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use errand::{
    runtime::{CreateSandbox, EmbeddedOptions, EmbeddedRuntime, Found, Runtime as _},
    task::{BotId, SandboxId, SandboxSpec, TenantId},
};
use tempfile::TempDir;

use super::docker::skip;

/// What sandboxes see as their root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The programs of this machine.
    Host,
}

impl Root {
    /// The image that is asked for; none when it is not there, and the test is skipped.
    pub fn image(self) -> Option<String> {
        match self {
            Self::Host => Some("host".to_owned()),
        }
    }
}

/// A data directory on a machine that can make sandboxes.
pub struct Machine {
    data: TempDir,
}

/// A new data directory; none when this machine cannot make sandboxes, and the test is skipped.
pub async fn machine() -> Option<Machine> {
    let machine = Machine { data: TempDir::new().unwrap() };
    match machine.runtime().ping().await {
        Ok(()) => Some(machine),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

impl Machine {
    /// Where everything is.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// The runtime, as a server that has just been started has it.
    pub fn runtime(&self) -> Arc<EmbeddedRuntime> {
        Arc::new(EmbeddedRuntime::new(EmbeddedOptions::new(self.data_dir())))
    }

    /// Removes a sandbox by its name or id, whatever state it is in.
    pub fn remove(&self, sandbox: &str) {
        // A destructor cannot wait for the runtime that it runs on.
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

/// What is asked for where a test does not care, of this image.
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
        },
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

/// The same, made differently.
pub async fn tuned(root: Root, tune: impl FnOnce(&mut SandboxSpec)) -> Option<Sandbox> {
    let machine = machine().await?;
    let mut request = request(root.image()?);
    tune(&mut request.spec);
    let runtime = machine.runtime();
    let found = runtime.create(&request).await.expect("make a sandbox");
    Some(Sandbox { machine, runtime, found })
}

impl Sandbox {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.found.runtime_id
    }

    /// Where it is on the disk.
    pub fn directory(&self) -> PathBuf {
        self.machine.data_dir().join("sandboxes").join(&self.found.name)
    }

    /// Runs a shell script in it and returns what it printed.
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
