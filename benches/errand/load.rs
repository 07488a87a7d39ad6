//! What many quiet tasks cost the server and the sandbox.

use std::{fs, time::Duration, time::Instant};

use anyhow::{Context as _, Result};
use bollard::{Docker, query_parameters::StatsOptionsBuilder};
use futures_util::StreamExt as _;

use crate::{
    server::Server,
    table::{Table, milliseconds},
};

/// How long CPU time is counted.
const SPAN: Duration = Duration::from_secs(10);
/// Units of CPU time in /proc, per second: fixed on every Linux of today.
const TICKS: u64 = 100;

/// Memory of the server, in KiB.
struct Memory {
    resident: u64,
    proportional: u64,
}

/// What was found.
pub struct Load {
    running: usize,
    idle: Memory,
    loaded: Memory,
    server: Duration,
    switches: u64,
    sandbox: Duration,
}

/// Starts `running` quiet tasks and looks at what they cost.
pub async fn measure(server: &Server, docker: &Docker, running: usize) -> Result<Load> {
    eprintln!("memory and CPU time with {running} running tasks");
    let mut client = server.client();
    // What every first task allocates is not counted.
    for _ in 0..5 {
        let notification = client.complete("true").await?;
        client.acknowledge(&notification).await?;
    }
    let pid = server.pid();
    let idle = memory(pid)?;
    let mut tasks = Vec::new();
    for _ in 0..running {
        tasks.push(client.start("sleep 600").await?);
    }
    for task in &tasks {
        client.running(task).await?;
    }
    // Until each has told that it is followed.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let loaded = memory(pid)?;

    let (cpu, switches, sandbox) =
        (cpu_time(pid)?, context_switches(pid)?, sandbox_time(docker, server.container()).await?);
    let begun = Instant::now();
    tokio::time::sleep(SPAN).await;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Load {
        running,
        idle,
        loaded,
        server: (cpu_time(pid)? - cpu).div_f64(seconds),
        switches: ((context_switches(pid)?.saturating_sub(switches)) as f64 / seconds) as u64,
        sandbox: (sandbox_time(docker, server.container()).await?.saturating_sub(sandbox)).div_f64(seconds),
    })
}

impl Load {
    /// Adds its rows.
    pub fn show(&self, table: &mut Table) {
        let mebibytes = |memory: &Memory| {
            format!("{:.1} / {:.1} MiB", kib(memory.resident) / 1024.0, kib(memory.proportional) / 1024.0)
        };
        let running = self.running;
        let each = |loaded: u64, idle: u64| kib(loaded.saturating_sub(idle)) / running as f64;
        table.alone("memory of the server, idle (RSS / PSS)", &mebibytes(&self.idle));
        table.alone(&format!("memory of the server, {running} running tasks (RSS / PSS)"), &mebibytes(&self.loaded));
        let resident = each(self.loaded.resident, self.idle.resident);
        let proportional = each(self.loaded.proportional, self.idle.proportional);
        table.alone("memory per running task (RSS / PSS)", &format!("{resident:.1} / {proportional:.1} KiB"));
        let per_second = |taken: Duration| format!("{} per second", milliseconds(taken));
        table.alone(&format!("CPU time of the server, {running} quiet tasks"), &per_second(self.server));
        table.alone(&format!("context switches of the server, {running} quiet tasks"), &format!("{}/s", self.switches));
        table.alone(&format!("CPU time of the sandbox, {running} quiet tasks"), &per_second(self.sandbox));
    }
}

fn kib(amount: u64) -> f64 {
    amount as f64
}

/// The number behind a name in one of the files of /proc.
fn number(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path} has no {name}"))?;
    Ok(line.trim_start_matches(':').split_whitespace().next().unwrap_or_default().parse()?)
}

fn memory(pid: u32) -> Result<Memory> {
    Ok(Memory {
        resident: number(&format!("/proc/{pid}/status"), "VmRSS")?,
        proportional: number(&format!("/proc/{pid}/smaps_rollup"), "Pss")?,
    })
}

fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Of all threads. How often the server woke up.
fn context_switches(pid: u32) -> Result<u64> {
    let mut total = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended since.
        total += number(&thread?.path().join("status").to_string_lossy(), "voluntary_ctxt_switches").unwrap_or(0);
    }
    Ok(total)
}

async fn sandbox_time(docker: &Docker, container: &str) -> Result<Duration> {
    let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
    let mut stats = Box::pin(docker.stats(container, Some(options)));
    let stats = stats.next().await.context("no statistics")??;
    let nanoseconds = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage).and_then(|usage| usage.total_usage);
    Ok(Duration::from_nanos(nanoseconds.context("no CPU time")?))
}
