//! The sizes of all measurements, and the choice of groups.

use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures Errand beside the bare `docker exec` API.
#[derive(Debug, Parser)]
pub struct Args {
    /// Run a few minutes only: the figures show that everything works, and little more.
    #[arg(long)]
    quick: bool,
    /// Run only these groups.
    #[arg(long, value_name = "GROUPS", value_delimiter = ',', value_enum)]
    only: Vec<Group>,
    /// An argument that cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A group of measurements. Each group runs on its own server, so that memory left by other groups does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Tasks per second. Runs first, because files that the execs of other groups leave on the disk slow it down.
    Throughput,
    /// The latency of one task.
    Latency,
    /// A large output.
    Output,
    /// Watches of output.
    Watches,
    /// The cost of silent tasks.
    Quiet,
    /// Many subscribers that wait for notifications.
    Subscribers,
    /// A server that is killed.
    Recovery,
    /// Embedded sandboxes.
    Embedded,
    /// Many embedded sandboxes, some of which do not answer.
    Hostile,
    /// A quiet tenant beside a greedy one.
    Fairness,
    /// Bridges that lie.
    Lies,
}

/// A number of tasks, with bounded concurrency.
pub struct Burst {
    pub at_a_time: usize,
    /// Errand's tasks per round.
    pub tasks: usize,
    /// The other side's execs per round: fewer, because the other side is slower.
    pub execs: usize,
}

/// The sizes of all measurements.
pub struct Plan {
    pub groups: Vec<Group>,
    /// Commands for each latency.
    pub latencies: usize,
    /// Rounds for each rate.
    pub rounds: usize,
    pub bursts: [Burst; 3],
    /// Commands of the fork loop per round.
    pub forks: usize,
    pub output_bytes: u64,
    /// The number of sandboxes for measurements with many of them.
    pub sandboxes: usize,
    /// Silent tasks in all these sandboxes together.
    pub quiet: usize,
    /// How long a task is silent before it is checked for a stall.
    pub stall_after: Duration,
    /// How long CPU time is measured.
    pub counting: Duration,
    pub subscribers: usize,
    /// Running tasks when the server is killed; as many others end while it is down.
    pub recovered: usize,
    /// Sandboxes of each kind that are created one after the other.
    pub made: usize,
    /// Sandboxes at the restart of a server, some of which do not answer.
    pub hostile_among: usize,
}

impl Plan {
    /// The rate per second of `count` per round, when all rounds together took `taken`.
    pub fn rate(&self, count: usize, taken: Duration) -> f64 {
        (self.rounds * count) as f64 / taken.as_secs_f64()
    }
}

impl Args {
    /// The sizes that the arguments select.
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
