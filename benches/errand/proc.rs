//! What `/proc` says about processes of this machine.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// Units of CPU time in /proc, per second: fixed on every Linux of today.
const TICKS: u64 = 100;

/// Resident memory, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    kibibytes(&format!("/proc/{pid}/status"), "VmRSS")
}

/// Memory with a share of what others use too, in bytes.
pub fn proportional(pid: u32) -> Result<u64> {
    kibibytes(&format!("/proc/{pid}/smaps_rollup"), "Pss")
}

/// The process that it was started by, or that looks after it now.
pub fn parent(pid: u32) -> Result<u32> {
    Ok(number(&format!("/proc/{pid}/status"), "PPid")?.try_into()?)
}

/// From now on the peak is that of what comes.
pub fn forget_peak(pid: u32) -> Result<()> {
    // 5: the peak, see proc(5).
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("forget the peak of the memory")
}

/// The most resident memory, in bytes: as the kernel keeps it, which misses nothing between two looks.
pub fn peak(pid: u32) -> Result<u64> {
    kibibytes(&format!("/proc/{pid}/status"), "VmHWM")
}

/// CPU time of all threads.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Of all threads: how often they woke up.
pub fn context_switches(pid: u32) -> Result<u64> {
    let mut total = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended since.
        total += number(&thread?.path().join("status").to_string_lossy(), "voluntary_ctxt_switches").unwrap_or(0);
    }
    Ok(total)
}

fn kibibytes(path: &str, name: &str) -> Result<u64> {
    Ok(number(path, name)? * 1024)
}

/// The number behind a name in one of the files of /proc.
fn number(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path} has no {name}"))?;
    Ok(line.trim_start_matches(':').split_whitespace().next().unwrap_or_default().parse()?)
}
