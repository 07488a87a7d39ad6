//! The bridge of one sandbox: the resident bridge where the guest can run, otherwise the direct bridge. Both use the same task directories.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
};

use async_trait::async_trait;

use super::{
    Attachment, BridgeState, DirectBridge, FileChanges, FileEntries, FileError, FileReader, FileSource, Finding, Input,
    InputError, InputTaken, LaunchSettings, LogReader, Piece, ReadError, SandboxBridge, SandboxFiles, ScannedLog,
    bridges::Known,
    resident::{Presence, ResidentBridge},
};
use errand_reading::Scan;
use errand_runtime::{Runtime, RuntimeError, SandboxRef};
use errand_task::{
    ArmedWatch, FileEntry, FilePath, Nonce, ProcessIdentity, Signal, SignalTarget, TaskId, TaskSpec, TerminalSize,
    TreeOptions, TreeWritten, WriteOptions,
};

/// Passes each call to the bridge that can serve it at that time.
pub(super) struct ChosenBridge {
    sandbox: SandboxRef,
    resident: ResidentBridge,
    direct: Arc<DirectBridge>,
    /// Where the bridge is kept. A bridge whose sandbox does not exist removes itself.
    known: Weak<Known>,
}

impl ChosenBridge {
    /// A bridge to a sandbox of this runtime, with task directories below `root`, an absolute path inside the sandbox.
    pub(super) fn new(runtime: Arc<dyn Runtime>, sandbox: &SandboxRef, root: &Arc<str>, known: Weak<Known>) -> Self {
        Self {
            sandbox: sandbox.clone(),
            resident: ResidentBridge::new(Arc::clone(&runtime), sandbox, Arc::clone(root)),
            direct: Arc::new(DirectBridge::new(runtime, sandbox, Arc::clone(root))),
            known,
        }
    }

    /// A bridge to the next incarnation of the sandbox. It finds out anew whether the guest can run, and keeps the wait that earlier
    /// breaches have caused.
    pub(super) fn renewed(&self, sandbox: &SandboxRef) -> Self {
        Self {
            sandbox: sandbox.clone(),
            resident: self.resident.renewed(),
            direct: Arc::clone(&self.direct),
            known: Weak::clone(&self.known),
        }
    }

    async fn presence(&self) -> Result<Presence, RuntimeError> {
        let presence = self.resident.presence().await;
        if matches!(presence, Err(RuntimeError::NoSuchSandbox { .. }))
            && let Some(known) = self.known.upgrade()
        {
            known.forget_bridge(&self.sandbox, self);
        }
        presence
    }

    async fn choose(&self) -> Result<&dyn SandboxBridge, RuntimeError> {
        Ok(match self.presence().await? {
            Presence::There { .. } | Presence::Refused { .. } => &self.resident,
            Presence::Impossible { .. } => &*self.direct,
        })
    }
}

#[async_trait]
impl SandboxFiles for ChosenBridge {
    async fn stat_file(&self, path: &FilePath, follow: bool) -> Result<FileEntry, FileError> {
        self.choose().await?.stat_file(path, follow).await
    }

    async fn list_directory(&self, path: &FilePath) -> Result<FileEntries, FileError> {
        self.choose().await?.list_directory(path).await
    }

    async fn read_file(&self, path: &FilePath, offset: u64, limit: Option<u64>) -> Result<FileReader, FileError> {
        self.choose().await?.read_file(path, offset, limit).await
    }

    async fn write_file(
        &self,
        path: &FilePath,
        options: WriteOptions,
        content: FileSource,
    ) -> Result<FileEntry, FileError> {
        self.choose().await?.write_file(path, options, content).await
    }

    async fn remove_file(&self, path: &FilePath, recursive: bool) -> Result<(), FileError> {
        self.choose().await?.remove_file(path, recursive).await
    }

    async fn make_directory(&self, path: &FilePath, mode: Option<u32>, parents: bool) -> Result<FileEntry, FileError> {
        self.choose().await?.make_directory(path, mode, parents).await
    }

    async fn rename_file(&self, path: &FilePath, to: &str, must_not_exist: bool) -> Result<FileEntry, FileError> {
        self.choose().await?.rename_file(path, to, must_not_exist).await
    }

    async fn read_tree(&self, path: &FilePath) -> Result<FileReader, FileError> {
        self.choose().await?.read_tree(path).await
    }

    async fn write_tree(
        &self,
        path: &FilePath,
        options: TreeOptions,
        archive: FileSource,
    ) -> Result<TreeWritten, FileError> {
        self.choose().await?.write_tree(path, options, archive).await
    }

    async fn watch_files(&self, path: &FilePath, recursive: bool) -> Result<FileChanges, FileError> {
        self.choose().await?.watch_files(path, recursive).await
    }
}

#[async_trait]
impl SandboxBridge for ChosenBridge {
    async fn prepare(&self) -> Result<BridgeState, RuntimeError> {
        self.presence().await.map(Presence::state)
    }

    fn state(&self) -> Option<BridgeState> {
        self.resident.state()
    }

    fn is_connected(&self) -> bool {
        self.resident.is_connected()
    }

    fn enforces_timeout(&self) -> bool {
        self.resident.enforces_timeout()
    }

    fn output_file(&self, task: TaskId) -> String {
        self.direct.output_file(task)
    }

    async fn launch(
        &self,
        task: TaskId,
        nonce: Nonce,
        spec: &TaskSpec,
        settings: LaunchSettings,
        watches: &[ArmedWatch],
    ) -> Result<Attachment, RuntimeError> {
        self.choose().await?.launch(task, nonce, spec, settings, watches).await
    }

    async fn attach(
        &self,
        task: TaskId,
        nonce: Nonce,
        from: u64,
        watches: &[ArmedWatch],
    ) -> Result<Attachment, RuntimeError> {
        self.choose().await?.attach(task, nonce, from, watches).await
    }

    async fn probe(&self, tasks: &[(TaskId, Nonce)], fence: bool) -> Result<Vec<Finding>, RuntimeError> {
        self.choose().await?.probe(tasks, fence).await
    }

    async fn signal(
        &self,
        task: TaskId,
        process: Option<ProcessIdentity>,
        signal: Option<Signal>,
    ) -> Result<u32, RuntimeError> {
        let answer = match self.choose().await {
            Ok(bridge) => bridge.signal(task, process, signal).await,
            Err(error) => Err(error),
        };
        match answer {
            // A command can stop the bridge process. Its processes can still be killed through the direct bridge.
            Err(error @ RuntimeError::Unavailable { .. }) if signal == Some(Signal::KILL) => {
                self.direct.signal(task, process, signal).await.map_err(|_| error)
            }
            answer => answer,
        }
    }

    async fn send_signal(
        &self,
        task: TaskId,
        leader: ProcessIdentity,
        signal: Signal,
        target: SignalTarget,
    ) -> Result<u32, RuntimeError> {
        self.choose().await?.send_signal(task, leader, signal, target).await
    }

    async fn listening(&self, known: Option<&BTreeSet<u16>>) -> Result<BTreeSet<u16>, RuntimeError> {
        self.choose().await?.listening(known).await
    }

    async fn write_input(&self, task: TaskId, input: Input) -> Result<InputTaken, InputError> {
        self.choose().await?.write_input(task, input).await
    }

    async fn resize_terminal(&self, task: TaskId, size: TerminalSize) -> Result<(), InputError> {
        self.choose().await?.resize_terminal(task, size).await
    }

    async fn read(&self, task: TaskId, piece: Piece) -> Result<LogReader, ReadError> {
        self.choose().await?.read(task, piece).await
    }

    async fn scan(&self, task: TaskId, scan: &Scan) -> Result<Option<ScannedLog>, ReadError> {
        self.choose().await?.scan(task, scan).await
    }

    async fn remove(&self, tasks: &[TaskId]) -> Result<(), RuntimeError> {
        self.choose().await?.remove(tasks).await
    }
}
