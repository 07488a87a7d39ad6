//! Client work that must not take CPU time from the client that measures.

use anyhow::{Context as _, Result};

/// Runs a future to its end on a thread of its own.
pub async fn apart<T, F>(future: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let running = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok::<_, std::io::Error>(runtime.block_on(future()))
    });
    Ok(running.await.context("it panicked")??)
}
