//! The guest that is embedded in this server, built by `build.rs` for the server's own architecture.

use std::sync::LazyLock;

use errand_runtime::GuestProgram;

static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/errand-bridge"));

/// The program that lives in sandboxes.
pub fn program() -> GuestProgram {
    static PROGRAM: LazyLock<GuestProgram> = LazyLock::new(|| GuestProgram::new(BYTES));
    PROGRAM.clone()
}
