//! Whether sandboxes can have a network of their own.

use std::path::Path;

use rustix::fs::Access;

use super::{
    Availability,
    remedy::{Distribution, Program},
};

/// The device with which pasta makes a network interface without being root.
pub(crate) const TUN: &str = "/dev/net/tun";

/// Whether this process may open [`TUN`]. A server that runs as root can also grant it to the user of a sandbox.
pub(crate) fn may_use_tun() -> bool {
    rustix::fs::access(TUN, Access::READ_OK | Access::WRITE_OK).is_ok()
}

/// The availability of the network mode `bridge`, which needs pasta and [`TUN`].
pub(super) fn availability(pasta: Option<&Path>, distribution: &Distribution) -> Availability {
    const LACK: &str = "sandboxes have no network (network mode none)";
    match pasta {
        Some(_) if !Path::new(TUN).exists() => {
            Availability::degraded(format!("{LACK}: {TUN} does not exist"), distribution.as_root("modprobe tun"))
        }
        Some(_) if !may_use_tun() => Availability::degraded(
            format!("{LACK}: this user may not open {TUN}"),
            distribution.as_root("chmod 666 /dev/net/tun"),
        ),
        Some(path) => Availability::ok(format!("pasta at {}", path.display())),
        None => Availability::degraded(format!("{LACK}: pasta is not installed"), distribution.install(Program::Pasta)),
    }
}
