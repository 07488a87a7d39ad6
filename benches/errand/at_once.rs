//! Runs the same work many times with bounded concurrency.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::task::JoinSet;

/// Runs `work` with the numbers up to `count`, `at_a_time` of them concurrently. Returns the time it took and the results in any order.
pub async fn at_once<W, T>(
    at_a_time: usize,
    count: usize,
    work: impl Fn(usize) -> W + Clone + Send + 'static,
) -> Result<(Duration, Vec<T>)>
where
    W: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..at_a_time {
        let (next, work) = (Arc::clone(&next), work.clone());
        workers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(done);
                }
                done.push(work(number).await?);
            }
        });
    }
    let mut all = Vec::new();
    while let Some(worker) = workers.join_next().await {
        all.extend(worker??);
    }
    Ok((begun.elapsed(), all))
}
