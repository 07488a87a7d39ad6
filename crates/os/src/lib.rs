//! What the server and the guest both ask of the kernel: sockets in deep directories, descriptors passed over sockets, the removal of whole
//! trees, and the meaning of the kernel's errors about files.
//!
//! Blocking calls only, and no runtime: the guest's shims have none. It knows nothing of sandboxes.

pub mod file_problem;
pub mod remove;
pub mod rights;
pub mod socket;

use std::time::Instant;

use rustix::event::Timespec;

/// The time from now until `due`, as poll(2) takes it; 0 when `due` has passed.
pub fn until(due: Instant) -> Timespec {
    let forever = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
    due.saturating_duration_since(Instant::now()).try_into().unwrap_or(forever)
}
