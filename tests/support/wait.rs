//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before it counts as never.
pub const LIMIT: Duration = Duration::from_secs(60);
/// How often to look.
const INTERVAL: Duration = Duration::from_millis(25);

/// Looks until there is something.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    within(LIMIT, what, look).await
}

/// Looks until there is something, for at most `limit`.
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

/// Awaits something that must not take longer than [`LIMIT`].
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(value) => value,
        Err(_) => panic!("not within {LIMIT:?}: {what}"),
    }
}
