//! What was seen of a command from the outside: what it printed, what it used, whether it waits.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Where output comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output and standard error, not told apart, or a terminal.
    #[default]
    Both,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a command has printed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSummary {
    /// Bytes that were printed, whether they were kept or not.
    pub bytes: u64,
    /// True when the log lacks output because it could not be written.
    pub incomplete: bool,
    /// The last 200 characters, without terminal escapes.
    pub preview: String,
    /// What was not kept because of the output limit.
    #[serde(default)]
    pub gap: Option<Gap>,
}

/// Output that was not kept. Positions count all output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first byte that is missing.
    pub start: u64,
    /// The first byte after it that is there, or the end of all output.
    pub end: u64,
}

impl Gap {
    /// Where to go on from `position`: past the gap for a position in it, else there.
    pub fn past(&self, position: u64) -> u64 {
        if (self.start..self.end).contains(&position) { self.end } else { position }
    }
}

/// A silent command that seems to want input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// When it was found.
    pub since: SystemTime,
    /// How long there had been no output by then.
    pub silent_for: Duration,
    /// The last line of output. It looks like a prompt, unless a process was seen waiting.
    pub last_line: String,
    /// The process that was seen waiting for input.
    #[serde(default)]
    pub waiting: Option<Waiting>,
}

/// A process that is blocked until its terminal or its standard input can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Process id inside the sandbox.
    pub pid: u32,
    /// Its name, as in `/proc/PID/comm`.
    pub command: String,
    /// What it reads.
    pub reads: Reads,
}

/// What a waiting process reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reads {
    /// Its terminal.
    Terminal,
    /// Its standard input.
    Stdin,
}

/// Processes of the sandbox that the kernel killed because its memory ran out. They are counted for the sandbox: it happened while the
/// command ran, to the command itself or to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryKills {
    /// What the runtime had counted when the command was launched; none where it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// How many were killed from then on until the command's end.
    pub count: u32,
    /// The sandbox's memory limit in bytes; none: there is none, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl MemoryKills {
    /// True when there is nothing to be said.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a command used, with every process that it started and that was over by then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceUsage {
    /// CPU time in user mode.
    pub user_cpu: Duration,
    /// CPU time in kernel mode.
    pub system_cpu: Duration,
    /// The most resident memory of any one process, in bytes.
    pub peak_memory_bytes: u64,
    /// Bytes read from storage.
    pub read_bytes: u64,
    /// Bytes written to storage.
    pub written_bytes: u64,
}
