//! Pauses between samples.

use std::time::Duration;

/// Longer than the engine takes to tidy up after an exec.
const SAMPLE: Duration = Duration::from_millis(100);
/// The same, after many of them.
const BURST: Duration = Duration::from_secs(1);

/// Before a sample: what the one before has left to do, on whichever side, must not fall on it.
pub async fn before_sample() {
    tokio::time::sleep(SAMPLE).await;
}

/// The same, before a burst.
pub async fn before_burst() {
    tokio::time::sleep(BURST).await;
}
