//! Memory use of another process.

use std::fs;

/// The memory of a process at the start, and its peak since then.
pub struct Memory {
    pid: u32,
    before: u64,
}

impl Memory {
    /// Starts measuring now.
    pub fn of(pid: u32) -> Self {
        // Resets the peak, see proc(5).
        fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        Self { pid, before: bytes(pid, "VmRSS:") }
    }

    /// How many bytes the peak lies above the start.
    pub fn growth(&self) -> u64 {
        bytes(self.pid, "VmHWM:").saturating_sub(self.before)
    }
}

fn bytes(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let size = status.lines().find_map(|told| told.strip_prefix(line)).expect("a process has memory");
    size.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}
