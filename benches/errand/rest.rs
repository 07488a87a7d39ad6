//! Pauses between samples.

use std::time::Duration;

/// Longer than the engine needs to clean up after an exec.
const SAMPLE: Duration = Duration::from_millis(100);
/// Longer than the engine needs to clean up after many execs.
const BURST: Duration = Duration::from_secs(1);

/// Pauses before a sample, so that cleanup after the previous sample, on either side, does not slow it down.
pub async fn before_sample() {
    tokio::time::sleep(SAMPLE).await;
}

/// Pauses before a burst.
pub async fn before_burst() {
    tokio::time::sleep(BURST).await;
}
