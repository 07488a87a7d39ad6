//! The program that lives in sandboxes. It is part of the server.

use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

/// The bridge, for the architecture of the server.
pub static BRIDGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/errand-bridge"));
/// Its file name holds what it is made of: another build is another file, and a running one is never overwritten.
pub static BRIDGE_NAME: LazyLock<String> = LazyLock::new(|| {
    let digest: String = Sha256::digest(BRIDGE).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("errand-bridge-{digest}")
});
