//! A connection to the Docker engine that a test can break without touching the engine.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
};

use super::docker;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Passes everything.
    Open,
    /// Closes every connection.
    Cut,
    /// Keeps and accepts connections, and passes nothing.
    BlackHole,
}

/// A socket in front of the engine's socket.
pub struct Proxy {
    mode: watch::Sender<Mode>,
    path: PathBuf,
    accepting: JoinHandle<()>,
    _directory: TempDir,
}

impl Proxy {
    /// A proxy that passes everything.
    pub fn open() -> Self {
        // A socket's path has at most 107 bytes, and the default directory for temporary files may use up most of them.
        let directory = TempDir::with_prefix_in("errand", "/tmp").unwrap();
        let path = directory.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mode = watch::Sender::new(Mode::Open);
        let modes = mode.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, modes.clone()));
            }
        });
        Self { mode, path, accepting, _directory: directory }
    }

    /// The address for `--docker-host`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Closes every connection, and every new one at once.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Passes nothing. Bytes held back are lost when the black hole ends.
    pub fn black_hole(&self) {
        self.mode.send_replace(Mode::BlackHole);
    }

    /// Passes new connections. Closes those that a black hole held.
    pub fn heal(&self) {
        self.mode.send_replace(Mode::Open);
    }

    /// Breaks the connection for this long: an outage must last for some time.
    pub async fn outage(&self, begin: impl FnOnce(&Self), lasting: Duration) {
        begin(self);
        tokio::time::sleep(lasting).await;
        self.heal();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: UnixStream, mut mode: watch::Receiver<Mode>) {
    let now = *mode.borrow_and_update();
    match now {
        Mode::Cut => return,
        Mode::BlackHole => {}
        Mode::Open => {
            let host = docker::host().unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
            let path = Path::new(host.strip_prefix("unix://").unwrap_or(&host)).to_owned();
            let Ok(mut engine) = UnixStream::connect(path).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut engine) => return,
                _ = mode.changed() => {}
            }
            // A black hole keeps both connections open.
            let _ = mode.wait_for(|mode| *mode != Mode::BlackHole).await;
            return;
        }
    }
    let _ = mode.wait_for(|mode| *mode != Mode::BlackHole).await;
}
