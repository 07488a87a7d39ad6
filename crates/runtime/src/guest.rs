//! The guest's binary.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// The guest: one program, whose processes serve the bridge, keep running tasks, and are the first process of a sandbox. The server carries
/// it and puts it into each sandbox.
#[derive(Debug, Clone)]
pub struct GuestProgram {
    name: Arc<str>,
    bytes: &'static [u8],
}

impl GuestProgram {
    /// A statically linked program for the sandboxes' architecture.
    pub fn new(bytes: &'static [u8]) -> Self {
        let digest = hex::encode(&Sha256::digest(bytes)[..6]);
        Self { name: format!("errand-bridge-{digest}").into(), bytes }
    }

    /// The file name. It contains a digest of the bytes, so that another build never overwrites a running one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes.
    pub fn bytes(&self) -> &'static [u8] {
        self.bytes
    }
}
