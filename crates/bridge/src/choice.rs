//! Chooses the bridge for each sandbox: the resident bridge where the guest can run, otherwise the direct bridge. Both use the same task
//! directories.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Attachment, BridgeState, DirectBridge, ExecBridge, FileEntries, FileError, FileReader, FileSource, Finding, Input,
    InputError, InputTaken, LaunchSettings, LogReader, Piece, ReadError, SandboxFiles,
    resident::{Presence, ResidentBridge},
};
use errand_runtime::{Runtime, RuntimeError};
use errand_task::{FileEntry, FilePath, Nonce, ProcessIdentity, Signal, TaskId, TaskSpec, TerminalSize, WriteOptions};

/// The resident bridge, with the direct bridge for sandboxes in which the guest cannot run.
pub struct BridgeChoice {
    resident: ResidentBridge,
    direct: DirectBridge,
}

/// The bridge chosen for one sandbox.
enum Chosen<'a> {
    Resident(&'a ResidentBridge),
    Direct(&'a DirectBridge),
}

impl BridgeChoice {
    /// Both bridges use task directories below `root`, an absolute path inside every sandbox.
    pub fn new(runtime: Arc<dyn Runtime>, root: &str) -> Self {
        Self {
            resident: ResidentBridge::new(Arc::clone(&runtime), root.to_owned()),
            direct: DirectBridge::new(runtime, root),
        }
    }

    async fn choose(&self, sandbox: &str) -> Result<Chosen<'_>, RuntimeError> {
        Ok(match self.resident.prepare(sandbox).await? {
            Presence::There { .. } | Presence::Refused { .. } => Chosen::Resident(&self.resident),
            Presence::Impossible { .. } => Chosen::Direct(&self.direct),
        })
    }
}

impl BridgeState {
    fn of(presence: Presence) -> Self {
        match presence {
            Presence::There { version, breach: None } => {
                Self { name: "resident", detail: format!("version {version}") }
            }
            Presence::There { version, breach: Some(breach) } => {
                Self { name: "resident", detail: format!("version {version}; {breach}") }
            }
            Presence::Refused { breach } => Self { name: "resident", detail: breach.to_string() },
            Presence::Impossible { why } => {
                Self { name: "direct", detail: format!("the resident bridge cannot run there: {why}") }
            }
        }
    }
}

#[async_trait]
impl SandboxFiles for BridgeChoice {
    async fn stat_file(&self, sandbox: &str, path: &FilePath, follow: bool) -> Result<FileEntry, FileError> {
        match self.choose(sandbox).await? {
            Chosen::Resident(bridge) => bridge.files(sandbox).await?.stat_file(path, follow).await,
            Chosen::Direct(bridge) => bridge.stat_file(sandbox, path, follow).await,
        }
    }

    async fn list_directory(&self, sandbox: &str, path: &FilePath) -> Result<FileEntries, FileError> {
        match self.choose(sandbox).await? {
            Chosen::Resident(bridge) => bridge.files(sandbox).await?.list_directory(path).await,
            Chosen::Direct(bridge) => bridge.list_directory(sandbox, path).await,
        }
    }

    async fn read_file(
        &self,
        sandbox: &str,
        path: &FilePath,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<FileReader, FileError> {
        match self.choose(sandbox).await? {
            Chosen::Resident(bridge) => bridge.files(sandbox).await?.read_file(path, offset, limit).await,
            Chosen::Direct(bridge) => bridge.read_file(sandbox, path, offset, limit).await,
        }
    }

    async fn write_file(
        &self,
        sandbox: &str,
        path: &FilePath,
        options: WriteOptions,
        content: FileSource,
    ) -> Result<FileEntry, FileError> {
        match self.choose(sandbox).await? {
            Chosen::Resident(bridge) => bridge.files(sandbox).await?.write_file(path, options, content).await,
            Chosen::Direct(bridge) => bridge.write_file(sandbox, path, options, content).await,
        }
    }

    async fn remove_file(&self, sandbox: &str, path: &FilePath, recursive: bool) -> Result<(), FileError> {
        match self.choose(sandbox).await? {
            Chosen::Resident(bridge) => bridge.files(sandbox).await?.remove_file(path, recursive).await,
            Chosen::Direct(bridge) => bridge.remove_file(sandbox, path, recursive).await,
        }
    }
}

#[async_trait]
impl ExecBridge for BridgeChoice {
    async fn prepare(&self, sandbox: &str) -> Result<BridgeState, RuntimeError> {
        self.resident.prepare(sandbox).await.map(BridgeState::of)
    }

    fn state(&self, sandbox: &str) -> Option<BridgeState> {
        self.resident.known(sandbox).map(BridgeState::of)
    }

    fn forget(&self, sandbox: &str) {
        self.resident.forget(sandbox);
    }

    fn is_connected(&self, sandbox: &str) -> bool {
        self.resident.is_connected(sandbox)
    }

    fn keeps_time(&self, sandbox: &str) -> bool {
        matches!(self.resident.known(sandbox), Some(Presence::There { .. }))
    }

    fn output_file(&self, task: TaskId) -> String {
        self.direct.output_file(task)
    }

    async fn launch(
        &self,
        sandbox: &str,
        task: TaskId,
        nonce: Nonce,
        spec: &TaskSpec,
        settings: LaunchSettings,
    ) -> Result<Attachment, RuntimeError> {
        match self.choose(sandbox).await? {
            Chosen::Resident(bridge) => bridge.launch(sandbox, task, nonce, spec, settings).await,
            Chosen::Direct(bridge) => bridge.launch(sandbox, task, nonce, spec, settings).await,
        }
    }

    async fn attach(&self, sandbox: &str, task: TaskId, nonce: Nonce, from: u64) -> Result<Attachment, RuntimeError> {
        match self.choose(sandbox).await? {
            Chosen::Resident(bridge) => bridge.attach(sandbox, task, nonce, from).await,
            Chosen::Direct(bridge) => bridge.attach(sandbox, task, nonce, from).await,
        }
    }

    async fn probe(&self, sandbox: &str, tasks: &[(TaskId, Nonce)], fence: bool) -> Result<Vec<Finding>, RuntimeError> {
        match self.choose(sandbox).await? {
            Chosen::Resident(bridge) => bridge.probe(sandbox, tasks, fence).await,
            Chosen::Direct(bridge) => bridge.probe(sandbox, tasks, fence).await,
        }
    }

    async fn signal(
        &self,
        sandbox: &str,
        task: TaskId,
        process: Option<ProcessIdentity>,
        signal: Option<Signal>,
    ) -> Result<u32, RuntimeError> {
        let answer = match self.choose(sandbox).await {
            Ok(Chosen::Direct(bridge)) => return bridge.signal(sandbox, task, process, signal).await,
            Ok(Chosen::Resident(bridge)) => bridge.signal(sandbox, task, process, signal).await,
            Err(error) => Err(error),
        };
        match answer {
            // A command can stop the bridge process. Its processes can still be killed through the direct bridge.
            Err(error @ RuntimeError::Unavailable { .. }) if signal == Some(Signal::KILL) => {
                self.direct.signal(sandbox, task, process, signal).await.map_err(|_| error)
            }
            answer => answer,
        }
    }

    async fn write_input(&self, sandbox: &str, task: TaskId, input: Input) -> Result<InputTaken, InputError> {
        match self.choose(sandbox).await? {
            Chosen::Resident(bridge) => bridge.write_input(sandbox, task, input).await,
            Chosen::Direct(bridge) => bridge.write_input(sandbox, task, input).await,
        }
    }

    async fn resize_terminal(&self, sandbox: &str, task: TaskId, size: TerminalSize) -> Result<(), InputError> {
        match self.choose(sandbox).await? {
            Chosen::Resident(bridge) => bridge.resize_terminal(sandbox, task, size).await,
            Chosen::Direct(bridge) => bridge.resize_terminal(sandbox, task, size).await,
        }
    }

    async fn read(&self, sandbox: &str, task: TaskId, piece: Piece) -> Result<LogReader, ReadError> {
        match self.choose(sandbox).await? {
            Chosen::Resident(bridge) => bridge.read(sandbox, task, piece).await,
            Chosen::Direct(bridge) => bridge.read(sandbox, task, piece).await,
        }
    }

    async fn remove(&self, sandbox: &str, tasks: &[TaskId]) -> Result<(), RuntimeError> {
        match self.choose(sandbox).await? {
            Chosen::Resident(bridge) => bridge.remove(sandbox, tasks).await,
            Chosen::Direct(bridge) => bridge.remove(sandbox, tasks).await,
        }
    }
}
