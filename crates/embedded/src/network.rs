//! What a sandbox may reach over the network.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    machine::{Machine, TUN, may_use_tun},
    proto::Fence,
};
use errand_runtime::RuntimeError;

/// What connects a network of a sandbox's own with the machine's.
const CONNECTOR: &str = "pasta";
/// How it is told to: the ways lead out only, and none to the machine's own loopback, nor from there in.
const OPTIONS: [&str; 13] = [
    "--config-net",
    "--quiet",
    "--foreground",
    "--no-map-gw",
    "--tcp-ports",
    "none",
    "--udp-ports",
    "none",
    "--tcp-ns",
    "none",
    "--udp-ns",
    "none",
    "--dns-forward",
];
/// Where questions about names go inside. The connector passes them to the machine's own name server, wherever that listens.
const RESOLVER: &str = "169.254.1.1";
/// Lines of the machine's `resolv.conf` that hold inside as well.
const KEPT: [&str; 3] = ["search", "domain", "options"];

/// The network of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Network {
    /// Nothing but itself.
    None,
    /// The world, through this program, and neither this machine nor private networks.
    Bridge(PathBuf),
    /// The machine's own network: its loopback and its abstract sockets too.
    Host,
}

impl Network {
    /// The network that is asked for.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] for one that there is not.
    pub(super) fn of(mode: &str) -> Result<Self, RuntimeError> {
        match mode {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            "bridge" => match Machine::program(CONNECTOR) {
                Some(program) if may_use_tun() => Ok(Self::Bridge(program)),
                Some(_) if Path::new(TUN).exists() => refuse(&format!(
                    "\"bridge\" needs {TUN}, which this user may not use (chmod 666 {TUN}); \"none\" works without"
                )),
                Some(_) => refuse(&format!(
                    "\"bridge\" needs {TUN}, which is not there (modprobe tun); \"none\" works without"
                )),
                None => refuse(&format!(
                    "\"bridge\" needs {CONNECTOR}, which is not there (install the package passt); \"none\" works without"
                )),
            },
            other => {
                refuse(&format!("{other:?} is not known to the embedded runtime; use \"none\", \"bridge\" or \"host\""))
            }
        }
    }

    /// The program that connects it, with its arguments.
    pub(super) fn connector(&self) -> Vec<String> {
        let Self::Bridge(program) = self else { return Vec::new() };
        let mut words = vec![program.to_string_lossy().into_owned()];
        words.extend(OPTIONS.map(str::to_owned));
        words.push(RESOLVER.to_owned());
        words
    }

    /// What it may reach beside the world.
    pub(super) fn fence(&self, allowed: &[String]) -> Fence {
        Fence { allowed: allowed.to_vec(), resolvers: vec![RESOLVER.to_owned()] }
    }

    /// How names are resolved in it: the content of `resolv.conf`.
    pub(super) fn resolver(&self) -> String {
        let machine = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        match self {
            Self::None => String::new(),
            Self::Host => machine,
            Self::Bridge(_) => inside(&machine),
        }
    }
}

fn refuse(why: &str) -> Result<Network, RuntimeError> {
    Err(RuntimeError::Refused { detail: format!("network_mode: {why}") })
}

fn inside(machine: &str) -> String {
    let kept = machine.lines().filter(|line| line.split_whitespace().next().is_some_and(|word| KEPT.contains(&word)));
    kept.chain([&*format!("nameserver {RESOLVER}")]).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_of_the_connector() {
        let machine = "# by hand\nnameserver 127.0.0.53\nsearch example.org\noptions edns0\n";
        assert_eq!(inside(machine), "search example.org\noptions edns0\nnameserver 169.254.1.1\n");
        assert_eq!(inside(""), "nameserver 169.254.1.1\n");
    }
}
