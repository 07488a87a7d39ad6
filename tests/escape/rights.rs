//! Gaining privileges, and raising limits.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
};

use errand_embedded::{Availability, HostCapabilities};
use errand_runtime::{Asked, CreateSandbox, Runtime as _, RuntimeError};

use super::{
    calls::Call,
    pair::{USERS, can_as_root, pair, pair_as},
};
use crate::support::embedded;

#[tokio::test]
async fn capabilities_are_absent_and_unobtainable() {
    let calls: &[Call<'_>] = &[
        ("setgroups", libc::SYS_setgroups, "0, 0"),
        ("capset", libc::SYS_capset, "b'\\x22\\x05\\x08\\x20\\0\\0\\0\\0', b'\\xff' * 24"),
        // PR_CAP_AMBIENT_RAISE, PR_SET_SECUREBITS and PR_CAPBSET_DROP.
        ("ambient", libc::SYS_prctl, "47, 2, 21, 0, 0"),
        ("securebits", libc::SYS_prctl, "28, 1, 0, 0, 0"),
        ("bounding", libc::SYS_prctl, "24, 21, 0, 0, 0"),
        (
            "capabilities",
            libc::SYS_setxattr,
            "b'/workspace', b'security.capability', b'\\1\\0\\0\\2' + b'\\xff' * 16, 20, 0",
        ),
    ];
    // Only the sandbox's own user id exists inside: no other user can even be named.
    let nameless: &[Call<'_>] = &[
        ("setuid", libc::SYS_setuid, "4711"),
        ("setgid", libc::SYS_setgid, "4711"),
        ("setresuid", libc::SYS_setresuid, "4711, 4711, 4711"),
        ("chown", libc::SYS_fchownat, "-100, b'/workspace', 4711, 4711, 0"),
        // Unset PR_SET_NO_NEW_PRIVS, and remove the filter.
        ("privileges", libc::SYS_prctl, "38, 0, 0, 0, 0"),
        ("filter", libc::SYS_prctl, "22, 0, 0, 0, 0"),
    ];
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        pair.are_refused(calls, "EPERM").await;
        pair.are_refused(nameless, "EINVAL").await;
        let status = pair.sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t'").await;
        let none = "0000000000000000";
        let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:{none}\n")).concat();
        assert_eq!(status, format!("{sets}NoNewPrivs:1\nSeccomp:2\n"), "as {user:?}");
        pair.is_unharmed().await;
    }
}

#[tokio::test]
async fn setuid_programs_change_no_user() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let script = "cp /usr/bin/id /workspace/own; chmod 6755 /workspace/own; \
                      for p in 'su -c id' 'su root -c id' 'sudo -n id' 'pkexec id' 'newgrp root' /workspace/own; do \
                      timeout 10 $p </dev/null 2>/dev/null; done | sort -u; id";
        let said = pair.sh(script).await;
        let own: Vec<&str> = said.lines().collect();
        assert!(own.iter().all(|line| *line == own[0]), "as {user:?}: {said}");
        assert!(!own[0].contains("euid") && !own[0].contains("egid"), "as {user:?}: {said}");
        pair.is_unharmed().await;
    }
}

#[tokio::test]
async fn planted_setuid_program_gives_no_rights() {
    if !can_as_root("put a program of root into a sandbox") {
        return;
    }
    let Some(mut pair) = pair().await else { return };
    let path = format!("/proc/{}/root/workspace/id", pair.init());
    fs::copy("/usr/bin/id", &path).unwrap();
    chown(&path, Some(0), Some(0)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    assert_eq!(
        pair.sh("ls -n /workspace/id | cut -c 1-10; /workspace/id -u; /workspace/id -g").await,
        "-rwsr-sr-x\n1000\n1000\n"
    );
    pair.is_unharmed().await;
}

/// Python that tries to raise each of its own limits.
const RAISING: &str = "
import os, resource
for name in sorted(name for name in dir(resource) if name.startswith('RLIMIT_')):
    number = getattr(resource, name)
    soft, hard = resource.getrlimit(number)
    if hard == resource.RLIM_INFINITY:
        continue
    for wanted in (hard + 1, resource.RLIM_INFINITY):
        try:
            resource.setrlimit(number, (soft, wanted))
            print('raised', name)
        except (ValueError, PermissionError):
            pass
for what in (lambda: os.nice(-1), lambda: os.setpriority(os.PRIO_USER, 0, -1),
             lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
             lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))):
    try:
        what()
        print('raised a priority')
    except PermissionError:
        pass
print('tried')
";

#[tokio::test]
async fn process_limits_cannot_be_raised() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        assert_eq!(pair.python(RAISING).await, "tried\n", "as {user:?}");
        let adjust = "before=$(cat /proc/self/oom_score_adj); for v in -1000 -1 $((before - 1)); do \
                      (echo $v >/proc/self/oom_score_adj) 2>/dev/null && echo lowered; done; echo tried";
        assert_eq!(pair.sh(adjust).await, "tried\n", "as {user:?}");
        pair.is_unharmed().await;
    }
}

#[tokio::test]
async fn sandbox_limits_and_kernel_settings_are_unreachable() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let before = settings();
        let script = "find / -name 'cgroup.procs' -o -name 'memory.max' -o -name 'pids.max' 2>/dev/null | head -3; ls -A /sys 2>/dev/null; \
                      grep -c cgroup /proc/self/mountinfo; \
                      for f in kernel/core_pattern kernel/modprobe kernel/hostname kernel/domainname kernel/shmmax kernel/msgmax \
                      kernel/pid_max vm/overcommit_memory fs/file-max fs/mqueue/queues_max net/ipv4/ip_forward user/max_user_namespaces; do \
                      (cat /proc/sys/$f >/proc/sys/$f) 2>/dev/null && echo /proc/sys/$f; done; \
                      for f in /proc/sysrq-trigger /proc/irq/default_smp_affinity /proc/self/uid_map \
                      /proc/self/gid_map /proc/self/setgroups /proc/self/loginuid; do (echo 1 >$f) 2>/dev/null && echo $f; done; \
                      find /proc/sys -type f -writable 2>/dev/null; echo tried";
        assert_eq!(pair.sh(script).await, "0\ntried\n", "as {user:?}");
        assert_eq!(settings(), before);
        pair.is_unharmed().await;
    }
}

/// Kernel settings of the machine that past sandbox escapes used.
fn settings() -> [String; 3] {
    ["core_pattern", "modprobe", "hostname"]
        .map(|name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default())
}

#[tokio::test]
async fn requested_limit_is_enforced_or_refused() {
    let Some(machine) = embedded::machine().await else { return };
    let is_kept = |name: &str| {
        let host = HostCapabilities::detect();
        let degraded = |availability: &Availability| matches!(availability, Availability::Degraded { .. });
        !host.all().iter().any(|capability| capability.name == name && degraded(&capability.availability))
    };
    let memory = Asked { memory: true, ..Asked::default() };
    let cpus = Asked { cpus: true, ..Asked::default() };
    for (asked, part, field) in [(memory, "memory-limit", "memory_bytes"), (cpus, "cpu-limit", "cpus")] {
        let request = CreateSandbox { asked, ..embedded::request("host".to_owned()) };
        let made = machine.runtime().create(&request).await;
        machine.remove(&request.name);
        match made {
            Ok(_) => assert!(is_kept(part), "{part} is not enforced, and nothing was said"),
            Err(RuntimeError::Refused { detail }) => {
                assert!(!is_kept(part) && detail.contains(field) && detail.contains("errand doctor"), "{detail}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
