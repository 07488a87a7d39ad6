//! A sandbox as seen by the engine and the machine.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use bollard::{
    Docker,
    query_parameters::{RemoveContainerOptionsBuilder, StatsOptionsBuilder, TopOptionsBuilder},
};
use futures_util::StreamExt as _;

use crate::{bare::Bare, proc};

/// Killed containers that are removed at the end.
static ENDED: Mutex<Vec<(Docker, String)>> = Mutex::new(Vec::new());

/// A container, killed when dropped.
pub struct Sandbox {
    docker: Docker,
    container: String,
}

/// Memory of a sandbox's processes in bytes; shared pages count by their share.
#[derive(Default, Clone, Copy)]
pub struct Memory {
    /// All processes.
    pub all: u64,
    /// Only Errand's own processes.
    pub own: u64,
}

impl Sandbox {
    pub fn new(docker: Docker, container: String) -> Self {
        Self { docker, container }
    }

    /// Runs commands in the sandbox without Errand.
    pub fn bare(&self) -> Bare {
        Bare::new(self.docker.clone(), self.container.clone())
    }

    /// CPU time of everything that ever ran in the sandbox.
    pub async fn cpu_time(&self) -> Result<Duration> {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut stats = Box::pin(self.docker.stats(&self.container, Some(options)));
        let stats = stats.next().await.context("no statistics")??;
        let nanoseconds = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage).and_then(|usage| usage.total_usage);
        Ok(Duration::from_nanos(nanoseconds.context("no CPU time")?))
    }

    /// Memory of the sandbox's processes. Needs an engine on this machine, and permission to read about its processes.
    pub async fn memory(&self) -> Result<Memory> {
        let options = TopOptionsBuilder::default().ps_args("-eo pid,comm").build();
        let top = self.docker.top_processes(&self.container, Some(options)).await?;
        let mut memory = Memory::default();
        for process in top.processes.unwrap_or_default() {
            let [pid, name] = &process[..] else { continue };
            // A process that has ended meanwhile counts as no memory.
            let Ok(bytes) = proc::proportional(pid.parse()?) else { continue };
            memory.all += bytes;
            memory.own += if name.starts_with("errand-") { bytes } else { 0 };
        }
        Ok(memory)
    }

    /// Memory of the engine's shim process for the sandbox.
    pub async fn shim(&self) -> Result<u64> {
        let state = self.docker.inspect_container(&self.container, None).await?.state;
        let first = state.and_then(|state| state.pid).context("no first process")?;
        proc::proportional(proc::parent(first.try_into()?)?)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let (docker, container) = (self.docker.clone(), self.container.clone());
        let ended = apart(async move { docker.kill_container(&container, None).await });
        if !ended {
            eprintln!("the container {} still runs", self.container);
        }
        ENDED.lock().unwrap_or_else(PoisonError::into_inner).push((self.docker.clone(), self.container.clone()));
    }
}

/// Removes the killed containers. Not earlier: for minutes after a deletion, ext4 without a journal skips every deleted inode when it
/// searches for a free one, which slows down every process that creates files.
pub fn remove_ended() {
    for (docker, container) in ENDED.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let name = container.clone();
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        if !apart(async move { docker.remove_container(&name, Some(options)).await }) {
            eprintln!("the container {container} is left");
        }
    }
}

/// Runs work on another thread, for callers that cannot block on their async runtime. Returns false when the work failed.
fn apart(work: impl Future<Output = Result<(), bollard::errors::Error>> + Send + 'static) -> bool {
    let done = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        anyhow::Ok(runtime.block_on(work)?)
    });
    matches!(done.join(), Ok(Ok(())))
}
