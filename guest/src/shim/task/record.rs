//! The files that record how a task ended.

use std::{
    fs::{self, File},
    io::Write as _,
};

use crate::{
    shim::memory::MemoryKills,
    task_dir::{ALONE, TaskDir, usage_line},
};
use errand_proto::bridge::Usage;

/// The files of one task, open from before its launch so that a full disk cannot keep the end from being recorded. Consumed by the record.
pub(in crate::shim) struct EndRecord {
    /// The exit file that is not complete yet.
    exit: File,
    /// None when a line could not be written: a later line would be read in its place.
    processes: Option<File>,
    memory: MemoryKills,
    /// The count of processes killed for lack of memory, from before the command.
    killed_before: Option<u64>,
}

/// What was recorded.
pub(super) struct Finished {
    /// What the task's processes have used.
    pub(super) usage: Usage,
    /// True when everything was written and no process was left: nothing will search for the task's processes below this shim any more.
    pub(super) clean: bool,
}

impl EndRecord {
    /// Takes the task's files and the count of kills with its value from before the command.
    pub(in crate::shim) fn new(
        exit: File,
        processes: Option<File>,
        memory: MemoryKills,
        killed_before: Option<u64>,
    ) -> Self {
        Self { exit, processes, memory, killed_before }
    }

    /// Records the usage, the result, and whether no process is left, in the order in which readers expect them.
    pub(super) fn finish(mut self, directory: &TaskDir, result: &str, mut usage: Usage, drained: bool) -> Finished {
        // A successful command was not killed for lack of memory: skipping the count saves a read.
        if result != "exited 0" {
            usage.oom_kills = self.memory.since(self.killed_before);
        }
        let used = note(&mut self.processes, &usage_line(&usage));
        let finished = finish(directory, self.exit, result);
        let clean = used && finished && drained && note(&mut self.processes, &format!("{ALONE}\n"));
        Finished { usage, clean }
    }
}

/// Writes a line about the task's processes. Returns false when this line or an earlier one could not be written.
fn note(processes: &mut Option<File>, line: &str) -> bool {
    let written = processes.as_mut().is_some_and(|file| file.write_all(line.as_bytes()).is_ok());
    if !written {
        *processes = None;
    }
    written
}

/// Completes the exit file. The exit file exists only when it is complete. Returns false when that fails.
pub(in crate::shim) fn finish(directory: &TaskDir, mut exit: File, result: &str) -> bool {
    let written = exit.write_all(format!("{result}\n").as_bytes());
    written.is_ok() && fs::rename(directory.file("exit.part"), directory.file("exit")).is_ok()
}
