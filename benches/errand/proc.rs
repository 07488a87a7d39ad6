//! Reads process figures from `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// Units of CPU time in `/proc` per second: the same on every current Linux.
const TICKS: u64 = 100;

/// Resident memory, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    kibibytes(&format!("/proc/{pid}/status"), "VmRSS")
}

/// Proportional memory (PSS) in bytes: shared pages count by their share.
pub fn proportional(pid: u32) -> Result<u64> {
    kibibytes(&format!("/proc/{pid}/smaps_rollup"), "Pss")
}

/// The parent process.
pub fn parent(pid: u32) -> Result<u32> {
    Ok(number(&format!("/proc/{pid}/status"), "PPid")?.try_into()?)
}

/// Resets the peak: later reads return the peak since this call.
pub fn forget_peak(pid: u32) -> Result<()> {
    // The value 5 resets the peak, see proc(5).
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("forget the peak of the memory")
}

/// The peak of resident memory in bytes. The kernel keeps it, so no peak between two reads is missed.
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

/// Voluntary context switches of all threads: how often they woke up.
pub fn context_switches(pid: u32) -> Result<u64> {
    let mut total = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // The thread may have ended meanwhile.
        total += number(&thread?.path().join("status").to_string_lossy(), "voluntary_ctxt_switches").unwrap_or(0);
    }
    Ok(total)
}

fn kibibytes(path: &str, name: &str) -> Result<u64> {
    Ok(number(path, name)? * 1024)
}

/// The number after a name in a file of `/proc`.
fn number(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path} has no {name}"))?;
    Ok(line.trim_start_matches(':').split_whitespace().next().unwrap_or_default().parse()?)
}
