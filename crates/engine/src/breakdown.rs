//! Panics in parts of the engine: each is counted and logged, and the part is started again.

use std::{any::Any, panic::AssertUnwindSafe, sync::atomic::Ordering, time::Duration};

use futures_util::FutureExt as _;

use super::Inner;

/// How long to wait before a part that panicked is started again.
const PAUSE: Duration = Duration::from_secs(1);

impl Inner {
    /// Counts and logs a breakdown.
    pub(super) fn broke_down(&self, part: &str, reason: &str) {
        let breakdowns = self.breakdowns.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(part, reason, breakdowns, "a part of the engine broke down");
    }

    /// Runs a part of the engine to completion, and from the start again whenever it panics.
    pub(super) async fn keep_running<F: Future<Output = ()>>(&self, part: &str, mut run: impl FnMut() -> F) {
        while let Err(panic) = AssertUnwindSafe(run()).catch_unwind().await {
            self.broke_down(part, &panic_message(panic));
            tokio::select! {
                () = self.leave.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// The message of a panic.
pub(super) fn panic_message(panic: Box<dyn Any + Send>) -> String {
    let text = match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or_else(|| "no message".to_owned(), |text| (*text).to_owned()),
    };
    format!("it panicked: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_messages_are_kept() {
        let panics: [(fn(), &str); 3] = [
            (|| panic!("words"), "it panicked: words"),
            (|| panic!("words {}", std::process::id()), &format!("it panicked: words {}", std::process::id())),
            (|| std::panic::panic_any(7), "it panicked: no message"),
        ];
        for (panicking, message) in panics {
            let panic = AssertUnwindSafe(async move { panicking() }).catch_unwind().await.expect_err("it panics");
            assert_eq!(panic_message(panic), message);
        }
    }
}
