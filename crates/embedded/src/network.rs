//! The network of a sandbox: none, the host's, or one of its own that leads to the internet.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    host::{TUN, find_program, may_use_tun},
    proto::Fence,
};
use errand_runtime::RuntimeError;

/// The program that connects a sandbox's own network with the host's.
const CONNECTOR: &str = "pasta";
/// Its options: it forwards no ports in either direction and maps no address to the host's loopback. `--dns-forward` takes [`RESOLVER`].
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
/// The resolver's address inside. The connector forwards requests to the host's resolver, even if that listens on the host's loopback.
const RESOLVER: &str = "169.254.1.1";
/// The settings of the host's `resolv.conf` that sandboxes keep.
const KEPT: [&str; 3] = ["search", "domain", "options"];

/// The network of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Network {
    /// Only a loopback interface of its own.
    None,
    /// The internet, through the connector at this path. The host and private networks are fenced off.
    Bridge(PathBuf),
    /// The host's network, with the host's loopback and abstract sockets.
    Host,
}

impl Network {
    /// The network for a `network_mode`.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] for an unknown mode, and for `bridge` when the host lacks what it needs.
    pub(super) fn of(mode: &str) -> Result<Self, RuntimeError> {
        match mode {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            "bridge" => match find_program(CONNECTOR) {
                Some(program) if may_use_tun() => Ok(Self::Bridge(program)),
                Some(_) if Path::new(TUN).exists() => refuse(&format!(
                    "\"bridge\" needs {TUN}, which this user may not open; run: chmod 666 {TUN}; or use \"none\""
                )),
                Some(_) => {
                    refuse(&format!("\"bridge\" needs {TUN}, which does not exist; run: modprobe tun; or use \"none\""))
                }
                None => refuse(&format!(
                    "\"bridge\" needs {CONNECTOR}, which is not installed; install the package passt; or use \"none\""
                )),
            },
            other => {
                refuse(&format!("the embedded runtime has no mode {other:?}; use \"none\", \"bridge\" or \"host\""))
            }
        }
    }

    /// The connector's command line; empty when the network needs none.
    pub(super) fn connector(&self) -> Vec<String> {
        let Self::Bridge(program) = self else { return Vec::new() };
        let mut words = vec![program.to_string_lossy().into_owned()];
        words.extend(OPTIONS.map(str::to_owned));
        words.push(RESOLVER.to_owned());
        words
    }

    /// The rules for what the sandbox may reach. `allowed`: ranges of private addresses.
    pub(super) fn fence(&self, allowed: &[String]) -> Fence {
        Fence { allowed: allowed.to_vec(), resolvers: vec![RESOLVER.to_owned()] }
    }

    /// The content of `/etc/resolv.conf` inside.
    pub(super) fn resolv_conf(&self) -> String {
        let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        match self {
            Self::None => String::new(),
            Self::Host => host,
            Self::Bridge(_) => behind_connector(&host),
        }
    }
}

fn refuse(why: &str) -> Result<Network, RuntimeError> {
    Err(RuntimeError::Refused { detail: format!("network_mode: {why}") })
}

/// The host's `resolv.conf` with the connector's resolver instead of the host's.
fn behind_connector(host: &str) -> String {
    let kept = host.lines().filter(|line| line.split_whitespace().next().is_some_and(|word| KEPT.contains(&word)));
    kept.chain([&*format!("nameserver {RESOLVER}")]).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_resolve_names_through_the_connector() {
        let host = "# by hand\nnameserver 127.0.0.53\nsearch example.org\noptions edns0\n";
        assert_eq!(behind_connector(host), "search example.org\noptions edns0\nnameserver 169.254.1.1\n");
        assert_eq!(behind_connector(""), "nameserver 169.254.1.1\n");
    }
}
