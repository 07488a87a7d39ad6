//! What the machine's cgroups can limit, as a verdict.

use super::{Verdict, remedy::Distribution};
use crate::cgroup::{Cgroups, Hindrance, Resource};

/// Hands users the controllers that systemd keeps from them.
const DELEGATE: &str = "sh -c 'mkdir -p /etc/systemd/system/user@.service.d && \
                        printf \"[Service]\\nDelegate=cpu memory pids\\n\" > /etc/systemd/system/user@.service.d/errand.conf && \
                        systemctl daemon-reload'";

/// Whether a resource can be limited, and what to do when not.
pub(super) fn verdict(cgroups: &Cgroups, resource: Resource, here: &Distribution) -> Verdict {
    match cgroups.hindrance(resource) {
        None => Verdict::ok(cgroups.whereabouts(resource)),
        Some(hindrance) => Verdict::degraded(format!("not enforced: {hindrance}"), remedy(hindrance, resource, here)),
    }
}

fn remedy(hindrance: &Hindrance, resource: Resource, here: &Distribution) -> String {
    match hindrance {
        Hindrance::NotMounted => here.as_root("mount -t cgroup2 none /sys/fs/cgroup"),
        Hindrance::ReadOnly => "limit the container that this runs in, or make its /sys/fs/cgroup writable".to_owned(),
        Hindrance::NotPermitted { unified: true, .. } => {
            "start the server with: systemd-run --user --scope -p Delegate=yes errand serve".to_owned()
        }
        Hindrance::NotPermitted { unified: false, .. } => "run the server as root".to_owned(),
        Hindrance::NotOffered { .. } if !rustix::process::geteuid().is_root() => here.as_root(DELEGATE),
        Hindrance::NotOffered { .. } => format!("start the kernel with cgroup_enable={}", resource.controller()),
        Hindrance::Occupied { .. } => "let the server be the only process of its cgroup".to_owned(),
        Hindrance::Failed { path, .. } => format!("make {} writable", path.display()),
    }
}
