//! Which limits of a sandbox the host can enforce.

use std::path::Path;

use super::{
    Availability, programs,
    remedy::{Distribution, Program},
};
use crate::cgroup::{Cgroups, Obstacle, Resource};

/// Delegates the controllers that systemd does not delegate to users by default.
const DELEGATE: &str = "sh -c 'mkdir -p /etc/systemd/system/user@.service.d && \
                        printf \"[Service]\\nDelegate=cpu memory pids\\n\" > /etc/systemd/system/user@.service.d/errand.conf && \
                        systemctl daemon-reload'";

/// Whether cgroups can limit a resource.
pub(super) fn cgroup(cgroups: &Cgroups, resource: Resource, distribution: &Distribution) -> Availability {
    match cgroups.obstacle(resource) {
        None => Availability::ok(cgroups.location(resource)),
        Some(obstacle) => {
            Availability::degraded(format!("not enforced: {obstacle}"), remedy(obstacle, resource, distribution))
        }
    }
}

fn remedy(obstacle: &Obstacle, resource: Resource, distribution: &Distribution) -> String {
    match obstacle {
        Obstacle::NotMounted => distribution.as_root("mount -t cgroup2 none /sys/fs/cgroup"),
        Obstacle::ReadOnly => {
            "limit the container that this server runs in, or make its /sys/fs/cgroup writable".to_owned()
        }
        Obstacle::NotPermitted { unified: true, .. } => {
            "start the server with: systemd-run --user --scope -p Delegate=yes errand serve".to_owned()
        }
        Obstacle::NotPermitted { unified: false, .. } => "run the server as root".to_owned(),
        Obstacle::NotOffered { .. } if !rustix::process::geteuid().is_root() => distribution.as_root(DELEGATE),
        Obstacle::NotOffered { .. } => format!("start the kernel with cgroup_enable={}", resource.controller()),
        Obstacle::Occupied { .. } => "make the server the only process of its cgroup".to_owned(),
        Obstacle::Failed { path, .. } => format!("make {} writable", path.display()),
    }
}

/// Whether each sandbox can have a disk image, so that it cannot fill the host's disk.
pub(super) fn disk(distribution: &Distribution) -> Availability {
    const LACK: &str = "the size of each file of a sandbox is limited, their sum is not";
    if !rustix::process::geteuid().is_root() {
        return Availability::degraded(format!("{LACK}: mounting disk images needs root"), "run the server as root");
    }
    if programs::find("mkfs.ext4").is_none() {
        let remedy = distribution.install(Program::Mkfs);
        return Availability::degraded(format!("{LACK}: mkfs.ext4 is not installed"), remedy);
    }
    if !Path::new("/dev/loop-control").exists() {
        let remedy = distribution.as_root("modprobe loop");
        return Availability::degraded(format!("{LACK}: the kernel offers no loop devices"), remedy);
    }
    Availability::ok("a disk image for each sandbox")
}
