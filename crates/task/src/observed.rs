//! What the server and the guest observe of a command: its output, its resource usage, and whether it waits for input.

use std::time::{Duration, SystemTime};

/// The stream that output was written to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output and standard error recorded together, or a terminal.
    #[default]
    Both,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Summary of a command's output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputSummary {
    /// Bytes of output, kept or not.
    pub bytes: u64,
    /// True if the log lacks output because writing it failed.
    pub incomplete: bool,
    /// The last 200 characters, without terminal escapes.
    pub preview: String,
    /// Output that was not kept because of the output limit.
    pub gap: Option<Gap>,
}

/// A range of output that was not kept. Positions count all output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Position of the first byte that was not kept.
    pub start: u64,
    /// Position of the next byte that was kept, or the end of all output.
    pub end: u64,
}

impl Gap {
    /// Moves a position inside the gap to the gap's end; returns any other position unchanged.
    pub fn past(&self, position: u64) -> u64 {
        if (self.start..self.end).contains(&position) { self.end } else { position }
    }
}

/// A command that is silent and seems to wait for input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// When the stall was found.
    pub since: SystemTime,
    /// How long the command had printed nothing by then.
    pub silent_for: Duration,
    /// The last line of output. It looks like a prompt, unless `waiting` is set.
    pub last_line: String,
    /// The process that waits for input; `None` if none was found.
    pub waiting: Option<Waiting>,
}

/// A process that is blocked until its terminal or its standard input can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its process id inside the sandbox.
    pub pid: u32,
    /// Its name, as in `/proc/PID/comm`.
    pub command: String,
    /// The input that it reads.
    pub reads: Reads,
}

/// The input that a process waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// The command's terminal.
    Terminal,
    /// Standard input.
    Stdin,
}

/// Processes that the kernel killed because the sandbox ran out of memory. The kernel counts them for the sandbox: a killed process may
/// belong to this command or to another one that ran at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryKills {
    /// The runtime's count when the command was launched; `None` if the runtime does not count.
    pub before: Option<u64>,
    /// How many processes were killed between the launch and the end of the command.
    pub count: u32,
    /// The sandbox's memory limit in bytes; `None`: unlimited or unknown.
    pub limit: Option<u64>,
}

/// Resources that a command used, including the processes it started that had ended by then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
