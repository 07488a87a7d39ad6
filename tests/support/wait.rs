//! Waits for conditions, with a deadline.

use std::time::{Duration, Instant};

/// How long an operation may take on a busy machine before it counts as hung.
pub const LIMIT: Duration = Duration::from_secs(60);
/// How often a condition is checked.
const INTERVAL: Duration = Duration::from_millis(25);

/// Calls `look` until it returns a value.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    within(LIMIT, what, look).await
}

/// Calls `look` until it returns a value, for at most `limit`.
pub async fn within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Awaits work that must not take longer than [`LIMIT`].
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(value) => value,
        Err(_) => panic!("not within {LIMIT:?}: {what}"),
    }
}
