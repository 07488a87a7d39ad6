//! The result as one Markdown table: first rows with a ratio, then rows with a limit, then explanatory rows.

use std::{
    fmt, fs, thread,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use bollard::Docker;

/// Rows, and the goals of some of them.
#[derive(Default)]
pub struct Table {
    compared: Vec<Row>,
    limited: Vec<Row>,
    explaining: Vec<Row>,
}

/// One line.
struct Row {
    what: String,
    result: String,
    goal: Option<Goal>,
    ours: String,
    theirs: String,
}

/// The goal of a row.
struct Goal {
    rule: String,
    reached: bool,
}

impl Table {
    /// Adds a ratio of our figure to the other side's, inverted where less is better: more than 1 is always better. `least` is the goal.
    pub fn times(&mut self, what: &str, ratio: f64, least: Option<f64>, ours: String, theirs: String) {
        let goal = least.map(|least| Goal { rule: format!("≥ {least}×"), reached: ratio >= least });
        let result = if ratio < 10.0 { format!("{ratio:.2}×") } else { format!("{ratio:.1}×") };
        self.compared.push(Row { what: what.to_owned(), result, goal, ours, theirs });
    }

    /// Adds how many times faster than the bare exec we are, at the percentile `share`.
    pub fn faster(&mut self, what: &str, share: f64, ours: &[Duration], theirs: &[Duration], least: Option<f64>) {
        self.faster_than("docker exec", what, share, ours, theirs, least);
    }

    /// Like [`Self::faster`], compared with another side.
    pub fn faster_than(
        &mut self,
        other: &str,
        what: &str,
        share: f64,
        ours: &[Duration],
        theirs: &[Duration],
        least: Option<f64>,
    ) {
        let [ours, theirs] = [ours, theirs].map(|taken| percentile(taken, share));
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
        let theirs = format!("{}, {other}", milliseconds(theirs));
        self.times(&format!("{what}, p{:.0}", share * 100.0), ratio, least, milliseconds(ours), theirs);
    }

    /// Adds a figure that must stay below a limit.
    pub fn below(&mut self, what: &str, value: f64, unit: &str, limit: f64) {
        let goal = Some(Goal { rule: format!("< {limit} {unit}"), reached: value < limit });
        let result = format!("{value:.1} {unit}");
        self.limited.push(Row { what: what.to_owned(), result, goal, ours: String::new(), theirs: String::new() });
    }

    /// Adds a figure without a goal.
    pub fn note(&mut self, what: &str, result: String) {
        self.explaining.push(Row {
            what: what.to_owned(),
            result,
            goal: None,
            ours: String::new(),
            theirs: String::new(),
        });
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | result | goal | | Errand | against |\n|---|---:|---:|---|---:|---:|")?;
        for row in self.compared.iter().chain(&self.limited).chain(&self.explaining) {
            let Row { what, result, goal, ours, theirs } = row;
            let (rule, verdict) = match goal {
                Some(Goal { rule, reached: true }) => (rule.as_str(), "reached"),
                Some(Goal { rule, reached: false }) => (rule.as_str(), "**missed**"),
                None => ("", ""),
            };
            writeln!(f, "| {what} | {result} | {rule} | {verdict} | {ours} | {theirs} |")?;
        }
        Ok(())
    }
}

/// The smallest value that `share` of all values do not exceed.
pub fn percentile(values: &[Duration], share: f64) -> Duration {
    let mut values = values.to_vec();
    values.sort();
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).or(values.last()).copied().unwrap_or_default()
}

/// A duration with its unit.
pub fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1000.0;
    if milliseconds < 1.0 { format!("{milliseconds:.3} ms") } else { format!("{milliseconds:.1} ms") }
}

/// Describes the machine and the date of the measurement.
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
