//! How much of everything, and which parts.

use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures Errand beside the bare `docker exec` API.
#[derive(Debug, Parser)]
pub struct Args {
    /// A few minutes' worth: figures that show that everything works, and little more.
    #[arg(long)]
    quick: bool,
    /// Only these.
    #[arg(long, value_name = "GROUPS", value_delimiter = ',', value_enum)]
    only: Vec<Group>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured on a server of its own: what other measurements leave in memory must not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Tasks per second. Before what the execs of the others leave on the disk.
    Throughput,
    /// How long one task takes.
    Latency,
    /// Much output.
    Output,
    /// What tasks cost that do nothing.
    Quiet,
    /// Many who wait for notifications.
    Subscribers,
    /// A server that is killed.
    Recovery,
    /// Sandboxes without a container engine.
    Embedded,
    /// Many of those, some of which do not answer.
    Hostile,
    /// A quiet tenant beside a greedy one.
    Fairness,
    /// Bridges that lie.
    Lies,
}

/// So many tasks, this many at any moment.
pub struct Burst {
    pub at_a_time: usize,
    /// In a round, of ours.
    pub tasks: usize,
    /// In a round, of the other side's, which is slower.
    pub execs: usize,
}

/// How much of everything.
pub struct Plan {
    pub groups: Vec<Group>,
    /// Commands for each latency.
    pub latencies: usize,
    /// Turns of each rate.
    pub rounds: usize,
    pub bursts: [Burst; 3],
    /// Commands of the fork loop in a round.
    pub forks: usize,
    pub output_bytes: u64,
    /// Sandboxes of what is done in many.
    pub sandboxes: usize,
    /// Quiet tasks in all of them.
    pub quiet: usize,
    /// How long they are silent before they are looked at for a stall.
    pub stall_after: Duration,
    /// How long CPU time is counted.
    pub counting: Duration,
    pub subscribers: usize,
    /// Running tasks, and as many that end meanwhile, when the server is killed.
    pub recovered: usize,
    /// Sandboxes that are made, of each kind, one after the other.
    pub made: usize,
    /// Sandboxes at a restart of the server, some of which do not answer.
    pub hostile_among: usize,
}

impl Plan {
    /// So many in each round, when all rounds together took so long: per second.
    pub fn rate(&self, count: usize, taken: Duration) -> f64 {
        (self.rounds * count) as f64 / taken.as_secs_f64()
    }
}

impl Args {
    /// What they ask for.
    pub fn plan(self) -> Plan {
        let groups = if self.only.is_empty() { Group::value_variants().to_vec() } else { self.only };
        let burst = |at_a_time, tasks, execs| Burst { at_a_time, tasks, execs };
        if self.quick {
            Plan {
                groups,
                latencies: 20,
                rounds: 1,
                bursts: [burst(1, 50, 10), burst(8, 100, 24), burst(32, 320, 64)],
                forks: 1000,
                output_bytes: 100_000_000,
                sandboxes: 2,
                quiet: 100,
                stall_after: Duration::from_secs(2),
                counting: Duration::from_secs(5),
                subscribers: 100,
                recovered: 100,
                made: 10,
                hostile_among: 40,
            }
        } else {
            Plan {
                groups,
                latencies: 200,
                rounds: 3,
                bursts: [burst(1, 200, 20), burst(8, 800, 64), burst(32, 3200, 160)],
                forks: 5000,
                output_bytes: 1_000_000_000,
                sandboxes: 10,
                quiet: 1000,
                // The default.
                stall_after: Duration::from_secs(45),
                counting: Duration::from_secs(30),
                subscribers: 1000,
                recovered: 1000,
                made: 100,
                hostile_among: 1000,
            }
        }
    }
}
