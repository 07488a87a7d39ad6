#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use super::{
    remedy::{Distribution, Program, namespaces_switch},
    *,
};

#[test]
fn install_command_fits_the_distribution() {
    for (os_release, expected) in [
        ("NAME=\"Debian GNU/Linux\"\nID=debian\n", "apt-get install -y bubblewrap"),
        ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "apt-get install -y bubblewrap"),
        ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "dnf install -y bubblewrap"),
        ("ID=fedora\n", "dnf install -y bubblewrap"),
        ("ID=alpine\n", "apk add bubblewrap"),
        ("ID=arch\n", "pacman -S --noconfirm bubblewrap"),
        ("ID='opensuse-leap'\nID_LIKE='suse opensuse'\n", "zypper install -y bubblewrap"),
        ("ID=own\n", "install the package bubblewrap"),
        ("", "install the package bubblewrap"),
    ] {
        assert_eq!(Distribution::parse(os_release, true).install(Program::Bubblewrap), expected);
    }
    assert_eq!(Distribution::parse("ID=alpine", false).install(Program::Pasta), "sudo apk add passt");
}

#[test]
fn remedy_turns_on_the_disabled_switch() {
    let debian = Distribution::parse("ID=debian", true);
    assert_eq!(namespaces_switch(&debian, "0", "", ""), "sysctl -w user.max_user_namespaces=15000");
    assert_eq!(namespaces_switch(&debian, "96365", "0", ""), "sysctl -w kernel.unprivileged_userns_clone=1");
    assert_eq!(
        namespaces_switch(&debian, "96365", "1", "1"),
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    );
    assert!(namespaces_switch(&debian, "96365", "1", "0").contains("seccomp=unconfined"));
}

#[test]
fn every_missing_capability_has_a_remedy() {
    let host = HostCapabilities::detect();
    let names: Vec<_> = host.all().iter().map(|capability| capability.name).collect();
    let expected = [
        "bubblewrap",
        "user-namespaces",
        "proc",
        "seccomp",
        "memory-limit",
        "cpu-limit",
        "pids-limit",
        "disk-limit",
        "network",
    ];
    assert_eq!(names, expected);
    for capability in host.all() {
        match &capability.availability {
            Availability::Ok { detail } => assert!(!detail.is_empty(), "{capability:?}"),
            Availability::Degraded { why, remedy } | Availability::Missing { why, remedy } => {
                assert!(!why.is_empty() && !remedy.is_empty(), "{capability:?}");
            }
        }
    }
    assert_eq!(
        host.first_missing().is_none(),
        host.all()[..4].iter().all(|capability| matches!(capability.availability, Availability::Ok { .. }))
    );
}
