//! Sandboxes that Errand makes itself, in a data directory that goes when a test ends.

use std::{path::Path, sync::Arc, thread};

use errand::runtime::{EmbeddedOptions, EmbeddedRuntime, Runtime as _};
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
