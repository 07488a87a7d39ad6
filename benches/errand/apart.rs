//! Work of clients that must not take the time of the one that measures.

use anyhow::{Context as _, Result};

/// The lowest priority of a thread: it takes only processor time that nothing else wants. A client with it stands for one on another machine.
pub const ELSEWHERE: i32 = 19;

/// Runs a future to its end on a thread of its own. What it spawns runs on threads with this niceness.
pub async fn apart<T, F>(niceness: i32, future: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let running = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || {
                // Raising the niceness is always permitted.
                let _ = rustix::process::setpriority_process(None, niceness);
            })
            .enable_all()
            .build()?;
        Ok::<_, std::io::Error>(runtime.block_on(future()))
    });
    Ok(running.await.context("it panicked")??)
}
