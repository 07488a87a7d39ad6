//! Sandboxes that this program makes itself.

#[allow(dead_code, reason = "what runs in sandboxes comes next")]
mod cgroup;
#[allow(dead_code, reason = "what runs in sandboxes comes next")]
mod seccomp;
