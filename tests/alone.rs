//! Tests that measure the server's memory or a tenant's waiting time. They run one at a time, with nothing else beside
//! them: `.config/nextest.toml` says so. With `cargo test`, add `-- --test-threads=1`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod alone {
    mod fairness;
    mod lies;
}
mod lying;
mod support;
