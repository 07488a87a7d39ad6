//! Sandboxes that this program makes itself.

#[allow(dead_code, reason = "what runs in sandboxes comes next")]
mod cgroup;
mod machine;
#[allow(dead_code, reason = "what runs in sandboxes comes next")]
mod seccomp;

pub use machine::{Machine, Part, Verdict};
