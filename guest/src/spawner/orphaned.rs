//! The spawner after its bridge process has gone: it forks nothing any more, and stays for the shims that still have tasks.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};

use super::shims::Shims;
use crate::shim;

/// The phase.
pub(super) struct Orphaned {
    /// Becomes readable when a child changes state.
    signals: OwnedFd,
    shims: Shims,
}

impl Orphaned {
    pub(super) fn new(signals: OwnedFd, shims: Shims) -> Self {
        Self { signals, shims }
    }

    /// Returns when the last shim has exited.
    pub(super) fn stay(mut self) {
        while !self.shims.is_empty() {
            if poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], None).is_ok() {
                shim::drain(&self.signals);
                self.shims.reap();
            }
        }
    }
}
