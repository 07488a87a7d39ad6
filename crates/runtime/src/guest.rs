//! The program that lives in sandboxes, as its bytes.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// The guest: one program, whose processes connect to the bridge, keep tasks, and are the first process of a sandbox. The server brings it
/// along and puts it into each sandbox.
#[derive(Debug, Clone)]
pub struct GuestProgram {
    name: Arc<str>,
    bytes: &'static [u8],
}

impl GuestProgram {
    /// A program for the architecture of the sandboxes, statically linked.
    pub fn new(bytes: &'static [u8]) -> Self {
        let digest = hex::encode(&Sha256::digest(bytes)[..6]);
        Self { name: format!("errand-bridge-{digest}").into(), bytes }
    }

    /// Its file name, which holds a digest of its bytes: another build is another file, and a running one is never overwritten.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes.
    pub fn bytes(&self) -> &'static [u8] {
        self.bytes
    }
}
