//! The memory of another process.

use std::fs;

/// What a process had, and the most that it has had since.
pub struct Memory {
    pid: u32,
    before: u64,
}

impl Memory {
    /// From now on.
    pub fn of(pid: u32) -> Self {
        // The kernel then forgets what the most was before.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        Self { pid, before: bytes(pid, "VmRSS:") }
    }

    /// By how many bytes it was larger since, at most.
    pub fn growth(&self) -> u64 {
        bytes(self.pid, "VmHWM:").saturating_sub(self.before)
    }
}

fn bytes(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let size = status.lines().find_map(|told| told.strip_prefix(line)).expect("a process has memory");
    size.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}
