//! Tests that measure the server's memory or a tenant's waiting time. They run one at a time, with nothing else beside them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod alone {
    mod fairness;
    mod lies;

    /// Held by the test that measures.
    pub static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
}
mod lying;
mod support;
