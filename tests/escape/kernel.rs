//! The kernel's interfaces: mounts, namespaces, devices, modules and everything else that a command does not need.

use std::{fs, os::unix::fs::chown, process::Command};

use super::{
    calls::Call,
    pair::{USERS, can_as_root, pair, pair_as},
};

/// Flags of `clone` and `unshare`.
const NEW_USER: &str = "0x10000000";
const NEW_MOUNTS: &str = "0x00020000";
/// The number of the first loop device, as `mknod` takes it: 7, 0.
const BLOCK_DEVICE: (u32, u32) = (7, 0);

#[tokio::test]
async fn mounts_and_root_cannot_be_changed() {
    let calls: &[Call<'_>] = &[
        ("mount", libc::SYS_mount, "b'none', b'/workspace', b'tmpfs', 0, 0"),
        ("remount", libc::SYS_mount, "b'none', b'/usr', b'none', 0x1020, 0"),
        ("bind", libc::SYS_mount, "b'/usr', b'/workspace', b'none', 0x1000, 0"),
        ("umount", libc::SYS_umount2, "b'/usr', 2"),
        ("pivot_root", libc::SYS_pivot_root, "b'/workspace', b'/workspace'"),
        ("open_tree", libc::SYS_open_tree, "-100, b'/usr', 1"),
        ("move_mount", libc::SYS_move_mount, "-100, b'/usr', -100, b'/workspace', 0"),
        ("fsopen", libc::SYS_fsopen, "b'tmpfs', 0"),
        ("fspick", libc::SYS_fspick, "-100, b'/', 0"),
        ("mount_setattr", libc::SYS_mount_setattr, "-100, b'/', 0, 0, 0"),
        ("chroot", libc::SYS_chroot, "b'/workspace'"),
    ];
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        pair.are_refused(calls, "EPERM").await;
        pair.is_unharmed().await;
    }
}

#[tokio::test]
async fn no_namespace_can_be_made_or_entered() {
    let clone_user = format!("{NEW_USER} | 17, 0, 0, 0, 0");
    let clone_both = format!("{NEW_USER} | {NEW_MOUNTS} | 17, 0, 0, 0, 0");
    // Bits that the kernel ignores change nothing.
    let clone_wide = format!("{NEW_USER} | 17 | 1 << 40, 0, 0, 0, 0");
    let calls: &[Call<'_>] = &[
        ("unshare user", libc::SYS_unshare, NEW_USER),
        ("unshare mounts", libc::SYS_unshare, NEW_MOUNTS),
        ("unshare time", libc::SYS_unshare, "0x80"),
        ("clone user", libc::SYS_clone, &clone_user),
        ("clone both", libc::SYS_clone, &clone_both),
        ("clone wide", libc::SYS_clone, &clone_wide),
        ("setns own", libc::SYS_setns, "os.open('/proc/self/ns/user', os.O_RDONLY), 0"),
        ("setns mounts", libc::SYS_setns, "os.open('/proc/self/ns/mnt', os.O_RDONLY), 0"),
    ];
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        pair.are_refused(calls, "EPERM").await;
        pair.are_refused(&[("clone3", libc::SYS_clone3, "0, 0")], "ENOSYS").await;
        let said = pair.sh("unshare -Ur true 2>&1; nsenter --target 1 --all true 2>&1; echo; echo tried").await;
        assert!(said.contains("unshare: ") && said.contains("nsenter: ") && said.ends_with("tried\n"), "{said}");
        pair.is_unharmed().await;
    }
}

#[tokio::test]
async fn kernel_interfaces_are_refused() {
    let calls: &[Call<'_>] = &[
        ("init_module", libc::SYS_init_module, "b'x', 1, b''"),
        ("finit_module", libc::SYS_finit_module, "0, b'', 0"),
        ("delete_module", libc::SYS_delete_module, "b'loop', 0"),
        ("kexec_load", libc::SYS_kexec_load, "0, 0, 0, 0"),
        ("kexec_file_load", libc::SYS_kexec_file_load, "0, 0, 0, b'', 0"),
        ("reboot", libc::SYS_reboot, "0, 0, 0, 0"),
        ("bpf", libc::SYS_bpf, "0, 0, 0"),
        ("userfaultfd", libc::SYS_userfaultfd, "1"),
        ("io_uring_setup", libc::SYS_io_uring_setup, "1, b'\\0' * 120"),
        ("io_uring_enter", libc::SYS_io_uring_enter, "0, 0, 0, 0, 0, 0"),
        ("io_uring_register", libc::SYS_io_uring_register, "0, 0, 0, 0"),
        ("perf_event_open", libc::SYS_perf_event_open, "0, 0, -1, -1, 0"),
        ("keyctl", libc::SYS_keyctl, "0, -3, 1"),
        ("add_key", libc::SYS_add_key, "b'user', b'x', b'y', 1, -3"),
        ("request_key", libc::SYS_request_key, "b'user', b'x', 0, -3"),
        ("name_to_handle_at", libc::SYS_name_to_handle_at, "-100, b'/workspace', b'\\0' * 200, b'\\0' * 8, 0"),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, "-100, b'\\0' * 200, 0"),
        ("personality", libc::SYS_personality, "0x0400000"),
        ("settimeofday", libc::SYS_settimeofday, "b'\\0' * 16, 0"),
        ("sethostname", libc::SYS_sethostname, "b'x', 1"),
        ("swapon", libc::SYS_swapon, "b'/workspace/x', 0"),
        ("quotactl", libc::SYS_quotactl, "0, b'', 0, 0"),
        ("acct", libc::SYS_acct, "b'/workspace/x'"),
        ("syslog", libc::SYS_syslog, "3, b'\\0' * 100, 100"),
        ("vhangup", libc::SYS_vhangup, ""),
    ];
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        pair.are_refused(calls, "EPERM").await;
        pair.is_unharmed().await;
    }
}

/// Python that opens a terminal and types on it as if it were the terminal's user.
const TYPING: &str = "
import fcntl, pty
print(os.path.exists('/dev/console'))
try:
    os.open('/dev/tty', os.O_RDWR)
    print('a terminal')
except OSError as error:
    print(errno.errorcode[error.errno])
master, slave = pty.openpty()
for request in (0x5412, 0xdead00005412, 0x541c):
    call('type', IOCTL, slave, request, b'x')
";

#[tokio::test]
async fn terminal_input_cannot_be_injected() {
    let Some(mut pair) = pair().await else { return };
    let script = TYPING.replace("IOCTL", &libc::SYS_ioctl.to_string());
    assert_eq!(pair.calling(&script).await, "False\nENXIO\ntype EPERM\ntype EPERM\ntype EPERM\n");
    pair.is_unharmed().await;
}

#[tokio::test]
async fn only_harmless_devices_exist() {
    let (major, minor) = BLOCK_DEVICE;
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let there = pair.sh("cd /dev; stat -c '%F %n' * | grep special | sort | tr '\\n' ','").await;
        let character =
            ["full", "null", "random", "tty", "urandom", "zero"].map(|name| format!("character special file {name},"));
        assert_eq!(there, character.concat());
        let said = pair
            .sh(&format!(
                "for d in /workspace /tmp /dev/shm; do mknod $d/b b {major} {minor}; mknod $d/c c 1 1; done 2>&1 \
                 | grep -c 'Operation not permitted'; ls /workspace /tmp /dev/shm"
            ))
            .await;
        assert_eq!(said, "6\n/dev/shm:\n\n/tmp:\n\n/workspace:\n");
        pair.is_unharmed().await;
    }
}

#[tokio::test]
async fn planted_device_cannot_be_opened() {
    if !can_as_root("put a device into a sandbox") {
        return;
    }
    let Some(mut pair) = pair().await else { return };
    let (major, minor) = BLOCK_DEVICE;
    // From outside, and its own.
    let workspace = format!("/proc/{}/root/workspace", pair.init());
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&workspace).unwrap());
    for (name, kind, [major, minor]) in [("block", "b", [major, minor]), ("null", "c", [1, 3])] {
        let path = format!("{workspace}/{name}");
        let arguments = ["-m", "666", &path, kind, &major.to_string(), &minor.to_string()];
        assert!(Command::new("mknod").args(arguments).status().unwrap().success());
        chown(&path, Some(owner), Some(owner)).unwrap();
    }
    let said =
        pair.sh("cd /workspace; ls -l block null | cut -c 1; for d in block null; do head -c 1 $d; done 2>&1").await;
    assert_eq!(said.lines().take(2).collect::<String>(), "bc", "{said}");
    assert_eq!(said.matches("Permission denied").count(), 2, "{said}");
    pair.is_unharmed().await;
}
