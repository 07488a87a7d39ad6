#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use super::{
    remedy::{Distribution, Program, switch},
    trial::parse_version,
    *,
};

#[test]
fn the_command_is_that_of_the_distribution() {
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
        assert_eq!(Distribution::of(os_release, true).install(Program::Bubblewrap), expected);
    }
    assert_eq!(Distribution::of("ID=alpine", false).install(Program::Pasta), "sudo apk add passt");
}

#[test]
fn the_switch_that_is_off_is_the_one_to_switch_on() {
    let here = Distribution::of("ID=debian", true);
    assert_eq!(switch(&here, "0", "", ""), "sysctl -w user.max_user_namespaces=15000");
    assert_eq!(switch(&here, "96365", "0", ""), "sysctl -w kernel.unprivileged_userns_clone=1");
    assert_eq!(switch(&here, "96365", "1", "1"), "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
    assert!(switch(&here, "96365", "1", "0").contains("seccomp=unconfined"));
}

#[test]
fn a_version_is_read_or_not_but_never_guessed() {
    assert_eq!(parse_version("bubblewrap 0.8.0\n"), Some([0, 8, 0]));
    assert_eq!(parse_version("bubblewrap 1.2"), Some([1, 2, 0]));
    for said in ["", "bubblewrap", "bubblewrap x.y.z", "something 0.8.0", "bubblewrap 0"] {
        assert_eq!(parse_version(said), None, "{said:?}");
    }
    assert!([0, 11, 0] > trial::LEAST);
}

#[test]
fn whatever_a_machine_lacks_has_a_remedy() {
    let machine = Machine::look();
    let names: Vec<_> = machine.parts().iter().map(|part| part.name).collect();
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
    for part in machine.parts() {
        match &part.verdict {
            Verdict::Ok { detail } => assert!(!detail.is_empty(), "{part:?}"),
            Verdict::Degraded { why, remedy } | Verdict::Missing { why, remedy } => {
                assert!(!why.is_empty() && !remedy.is_empty(), "{part:?}");
            }
        }
    }
    assert_eq!(
        machine.missing().is_none(),
        machine.parts()[..4].iter().all(|part| matches!(part.verdict, Verdict::Ok { .. }))
    );
}
