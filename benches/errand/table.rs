//! The result as Markdown: first what has a ratio.

use std::{
    fmt, fs, thread,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use bollard::Docker;

/// Rows, and goals that were set for some of them.
#[derive(Default)]
pub struct Table {
    compared: Vec<[String; 4]>,
    alone: Vec<[String; 2]>,
    goals: Vec<String>,
}

impl Table {
    /// Median and 99th percentile of both sides. `most`: the goal for the ratio of the medians.
    pub fn latency(&mut self, what: &str, ours: &[Duration], theirs: &[Duration], most: Option<f64>) {
        for (name, share) in [("p50", 0.50), ("p99", 0.99)] {
            let [ours, theirs] = [ours, theirs].map(|taken| percentile(taken, share));
            let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
            let what = format!("{what}, {name}");
            if let Some(most) = most.filter(|_| name == "p50") {
                self.goal(&what, ratio, ratio <= most, &format!("at most {most:.2}"));
            }
            self.compared.push([what, milliseconds(ours), milliseconds(theirs), format!("{ratio:.2}")]);
        }
    }

    /// How much of something per second. `least`: the goal for the ratio.
    pub fn rate(&mut self, what: &str, ours: f64, theirs: f64, unit: &str, least: f64) {
        let ratio = ours / theirs;
        self.goal(what, ratio, ratio >= least, &format!("at least {least:.2}"));
        let [ours, theirs] = [ours, theirs].map(|rate| format!("{rate:.1}{unit}"));
        self.compared.push([what.to_owned(), ours, theirs, format!("{ratio:.2}")]);
    }

    /// What only Errand has.
    pub fn alone(&mut self, what: &str, ours: &str) {
        self.alone.push([what.to_owned(), ours.to_owned()]);
    }

    fn goal(&mut self, what: &str, ratio: f64, reached: bool, rule: &str) {
        let verdict = if reached { "reached" } else { "**missed**" };
        self.goals.push(format!("- {what}: {ratio:.2}, goal {rule}: {verdict}"));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | errand | bare docker exec | ratio |\n|---|---:|---:|---:|")?;
        for [what, ours, theirs, ratio] in &self.compared {
            writeln!(f, "| {what} | {ours} | {theirs} | {ratio} |")?;
        }
        for [what, ours] in &self.alone {
            writeln!(f, "| {what} | {ours} | | |")?;
        }
        write!(f, "\n{}", self.goals.join("\n"))
    }
}

/// The smallest value that `share` of all values do not exceed.
fn percentile(values: &[Duration], share: f64) -> Duration {
    let mut values = values.to_vec();
    values.sort();
    let rank = (values.len() as f64 * share).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

/// A duration with its unit.
pub fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// What it was measured on, and when.
pub async fn machine(docker: &Docker) -> Result<String> {
    let cores = thread::available_parallelism()?.get();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let engine = docker.version().await?.version.unwrap_or_default();
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    Ok(format!(
        "Errand {} ({profile}), {cores} cores, Linux {}, Docker {engine}, {}",
        env!("CARGO_PKG_VERSION"),
        kernel.trim(),
        &date[..10],
    ))
}
