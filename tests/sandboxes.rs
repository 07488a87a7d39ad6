//! Sandboxes and bridges without a server: on a real Docker engine and on embedded sandboxes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap fails the test")]

mod conformance {
    pub mod bridge;
    pub mod files;
    pub mod runtime;
}
mod embedded;
mod escape;
mod isolation;
mod resident;
mod sandboxes {
    mod bridge;
    mod files;
    mod runtime;
}
mod support;
