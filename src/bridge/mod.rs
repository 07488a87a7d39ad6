//! How a command is launched, followed, signalled and read back inside any sandbox, given nothing but what a runtime offers.
//!
//! [`ExecBridge`] is the contract; [`DirectBridge`] keeps it with a shell and what every sandbox has. A bridge owns the task directory and
//! decides nothing: what an ending means for a task is for the engine to say.

mod direct;
mod files;
mod resident;

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    runtime::{Exec, RuntimeError},
    task::{Ending, Nonce, ProcessIdentity, Signal, TaskId, TaskSpec, sentinel::Sentinel},
};

pub use direct::{Attachment, DirectBridge};
pub use files::{Abandoned, FileContent, FileEntries, FileError, FileReader, FileSource, SandboxFiles};
pub use resident::ResidentFiles;

/// Runs commands in running sandboxes. Every method names the sandbox by its runtime's id.
#[async_trait]
pub trait ExecBridge: SandboxFiles {
    /// Its name in the API, such as `direct`.
    fn name(&self) -> &'static str;

    /// Path of a task's log in the sandbox.
    fn output_file(&self, task: TaskId) -> String;

    /// Launches a command and follows it. At most one launch of a task ever runs, however often this is called; the others report
    /// [`Report::Claimed`]. The command does not notice when the attachment is dropped.
    ///
    /// # Errors
    /// [`RuntimeError::Uncertain`] when nobody knows whether it was launched; every other error is certain that it was not.
    async fn launch(
        &self,
        sandbox: &str,
        task: TaskId,
        nonce: Nonce,
        spec: &TaskSpec,
    ) -> Result<Attachment, RuntimeError>;

    /// Follows a command that was launched before, with its output from byte `from` on.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    async fn attach(&self, sandbox: &str, task: TaskId, from: u64) -> Result<Attachment, RuntimeError>;

    /// Says what is known of tasks. With `fence`, a task that was not launched never will be afterwards.
    /// The answers come in the order of the questions.
    ///
    /// # Errors
    /// When the sandbox cannot be reached, or its answer cannot be understood.
    async fn probe(&self, sandbox: &str, tasks: &[(TaskId, Nonce)], fence: bool) -> Result<Vec<Finding>, RuntimeError>;

    /// Signals every process of a task, wherever in the sandbox it has gone, and returns how many there were. SIGKILL is repeated until
    /// none is left. Without a signal they are only counted.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    async fn signal(
        &self,
        sandbox: &str,
        task: TaskId,
        process: Option<ProcessIdentity>,
        signal: Option<Signal>,
    ) -> Result<u32, RuntimeError>;

    /// Opens a piece of a task's log.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when there is no log any more.
    async fn read(&self, sandbox: &str, task: TaskId, piece: Piece) -> Result<LogReader, ReadError>;

    /// Removes task directories.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    async fn remove(&self, sandbox: &str, tasks: &[TaskId]) -> Result<(), RuntimeError>;
}

/// What an attachment reports, in the order in which it was found. Output is in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The task directory was there already: another launch has the task. The attachment ends.
    Claimed,
    /// The command's first process exists.
    Started(ProcessIdentity),
    /// More of the log.
    Output(Bytes),
    /// The command is over, or never ran. Some of its output may still be on its way.
    Ended(Ending),
    /// Nothing more will be written to the log, but for what daemons may add that the command left behind.
    Over {
        /// Size of the log then, in bytes.
        bytes: u64,
        /// True when the log lacks output because it could not be written.
        incomplete: bool,
    },
    /// The attachment broke off, which says nothing about the command.
    Broken,
}

/// What is known of a task in its sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether its directory is there.
    pub directory: bool,
    /// Whether the command was launched. False after a fence: it never was and never will be.
    pub started: bool,
    /// The command's first process and when it was made, as far as it is recorded.
    pub process: Option<(ProcessIdentity, SystemTime)>,
    /// Whether that process lives.
    pub alive: bool,
    /// Whether the process lives that writes the exit file.
    pub supervised: bool,
    /// What the exit file says.
    pub sentinel: Sentinel,
    /// Size of the log in bytes.
    pub output_bytes: u64,
    /// True when the log lacks output because it could not be written.
    pub incomplete: bool,
}

/// Which piece of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// From a byte on.
    From {
        /// The first byte.
        offset: u64,
        /// The most bytes.
        limit: u64,
    },
    /// The end.
    Tail {
        /// The most bytes.
        limit: u64,
    },
}

/// A piece of a log, as it was when it was opened.
#[derive(Debug)]
pub struct LogReader {
    /// Size of the whole log in bytes.
    pub size: u64,
    /// The first byte of the piece.
    pub start: u64,
    exec: Exec,
    first: Option<Bytes>,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was removed.
    #[error("the log is gone")]
    Gone,
    /// The sandbox cannot be reached.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
