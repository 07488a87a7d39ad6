//! The shims of a spawner.

use std::collections::HashSet;

use rustix::process::{Signal, WaitOptions, wait};

use crate::process::{self, Stat};

/// The shims that have not been reaped, by pid; those without a request among them.
#[derive(Debug, Default)]
pub(super) struct Shims {
    pids: HashSet<i32>,
}

impl Shims {
    pub(super) fn insert(&mut self, pid: i32) {
        self.pids.insert(pid);
    }

    pub(super) fn contains(&self, pid: i32) -> bool {
        self.pids.contains(&pid)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    /// Reaps the children that have exited, and kills the processes left by a killed shim.
    pub(super) fn reap(&mut self) {
        let mut killed = false;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let was_shim = self.pids.remove(&pid.as_raw_nonzero().get());
            killed |= !was_shim || status.terminating_signal().is_some();
        }
        if killed {
            // Children of these orphans become children of this process in turn; the next call finds them.
            for orphan in self.orphans() {
                process::send(orphan.pid, Signal::KILL);
                for below in process::descendants(orphan.pid) {
                    process::send(below.pid, Signal::KILL);
                }
            }
        }
    }

    /// The children of this process that are not shims.
    fn orphans(&self) -> Vec<Stat> {
        let own = std::process::id();
        let mut all = process::all();
        all.retain(|stat| {
            stat.parent == own && stat.lives() && !i32::try_from(stat.pid).is_ok_and(|pid| self.contains(pid))
        });
        all
    }
}
