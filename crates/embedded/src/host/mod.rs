//! What the host offers for embedded sandboxes, what is missing, and how to fix each problem.
//!
//! Owns the probes of bubblewrap, the kernel, cgroups, disks and the network. Changes nothing on the host. Everything here blocks for as
//! long as a few processes take to run.

mod bubblewrap;
mod limits;
mod network;
mod probe;
mod programs;
mod remedy;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use super::cgroup::{Cgroups, Resource};
use bubblewrap::Bubblewrap;
pub(super) use network::{TUN, may_use_tun};
pub(super) use programs::find as find_program;
use remedy::{Distribution, Program};

/// One thing that embedded sandboxes, or one of their limits, depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCapability {
    /// Its name, for people and programs, such as `user-namespaces`.
    pub name: &'static str,
    /// Whether the host has it.
    pub availability: Availability,
}

/// Whether the host has a capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// The host has it.
    Ok {
        /// Its version or its location.
        detail: String,
    },
    /// Sandboxes work without it, but lack a limit or the network.
    Degraded {
        /// What sandboxes lack, and why.
        why: String,
        /// How to fix it: one command, or one sentence.
        remedy: String,
    },
    /// No sandbox works without it.
    Missing {
        /// What is missing, and why.
        why: String,
        /// How to fix it: one command, or one sentence.
        remedy: String,
    },
}

impl Availability {
    fn ok(detail: impl Into<String>) -> Self {
        Self::Ok { detail: detail.into() }
    }

    fn missing(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Missing { why: why.into(), remedy: remedy.into() }
    }

    fn degraded(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Degraded { why: why.into(), remedy: remedy.into() }
    }
}

/// All capabilities of the host, as one probe found them.
#[derive(Debug, Clone)]
pub struct HostCapabilities {
    all: Vec<HostCapability>,
    bubblewrap: Option<Bubblewrap>,
    pasta: Option<PathBuf>,
}

impl HostCapabilities {
    /// Probes the host with the rights of this process.
    pub fn detect() -> Self {
        let distribution = Distribution::detect();
        let (bubblewrap, availability) = Bubblewrap::find(&distribution);
        let mut all = vec![HostCapability { name: "bubblewrap", availability }];
        match &bubblewrap {
            Some(bubblewrap) => all.extend(probe::kernel(&bubblewrap.path, &distribution)),
            None => all.extend(probe::KERNEL.map(|name| {
                let remedy = distribution.install(Program::Bubblewrap);
                let availability = Availability::missing("cannot be tried without bubblewrap", remedy);
                HostCapability { name, availability }
            })),
        }
        let cgroups = Cgroups::detect();
        let limited =
            [("memory-limit", Resource::Memory), ("cpu-limit", Resource::Cpu), ("pids-limit", Resource::Pids)];
        for (name, resource) in limited {
            all.push(HostCapability { name, availability: limits::cgroup(&cgroups, resource, &distribution) });
        }
        all.push(HostCapability { name: "disk-limit", availability: limits::disk(&distribution) });
        let pasta = find_program("pasta");
        let availability = network::availability(pasta.as_deref(), &distribution);
        all.push(HostCapability { name: "network", availability });
        Self { all, bubblewrap, pasta }
    }

    /// Every capability that was probed, in the order of display.
    pub fn all(&self) -> &[HostCapability] {
        &self.all
    }

    /// The first missing capability without which no sandbox works; none when sandboxes work.
    pub fn first_missing(&self) -> Option<&HostCapability> {
        self.all.iter().find(|capability| matches!(capability.availability, Availability::Missing { .. }))
    }

    /// Whether a sandbox can reach the internet without reaching the host.
    pub fn has_network(&self) -> bool {
        self.pasta.is_some() && may_use_tun()
    }

    /// The path of bubblewrap, if a usable one is installed.
    pub(super) fn bubblewrap(&self) -> Option<&Path> {
        self.bubblewrap.as_ref().map(|bubblewrap| bubblewrap.path.as_path())
    }

    /// Whether this bubblewrap can limit the size of a tmpfs.
    pub(super) fn limits_tmpfs(&self) -> bool {
        self.bubblewrap.as_ref().is_some_and(Bubblewrap::limits_tmpfs)
    }
}
