//! Reading data of the machine or of another sandbox.

use std::fs;

use super::pair::{USERS, pair, pair_as};

/// Paths that must not be visible: users' files, system secrets, state of programs, and control sockets.
const HIDDEN: &str = "/root/* /root/.[a-z]* /home/* /etc/shadow /etc/shadow- /etc/gshadow /etc/sudoers /etc/sudoers.d /etc/ssh \
                      /etc/ssl/private /etc/cron* /etc/machine-id /etc/environment /etc/docker /etc/kubernetes /var/* /run/docker* \
                      /run/containerd /run/dbus /run/systemd /run/user /run/secrets /var/run/* /boot /mnt /media /opt /srv /sys/* \
                      /dev/mem /dev/kmem /dev/kmsg /dev/sd* /dev/vd* /dev/nvme* /dev/loop* /dev/dm-* /dev/mapper /dev/net /dev/vsock \
                      /dev/fuse /dev/kvm /dev/vhost* /dev/input /lost+found";

#[tokio::test]
async fn secret_paths_are_absent() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        assert_eq!(pair.sh(&format!("ls -d {HIDDEN} 2>/dev/null")).await, "", "as {user:?}");
        let said = pair.sh("ls -A /run /run/errand | sed 's/^errand-bridge-[0-9a-f]*$/its own program/'").await;
        assert_eq!(said, "/run:\nerrand\n\n/run/errand:\nits own program\ninit\n", "as {user:?}");
        pair.is_unharmed().await;
    }
}

#[tokio::test]
async fn machine_secret_is_found_nowhere() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        // The secret is in a world-readable file, in another sandbox, and in the environment of a process.
        let secret = pair.secret().to_owned();
        let (file, process) = (pair.secret_file(), pair.process());
        let environ = fs::read(format!("/proc/{process}/environ")).unwrap();
        assert!(String::from_utf8_lossy(&environ).contains(&secret));
        let said = pair
            .sh(&format!(
                "cat {} /proc/{process}/environ /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'",
                file.display()
            ))
            .await;
        assert!(!said.contains(&secret), "as {user:?}: {said}");
        // In two parts, so that the search does not find its own arguments.
        let (first, second) = secret.split_at(secret.len() / 2);
        let script = format!(
            "a={first}; grep -rlsF \"$a{second}\" / --exclude-dir=proc --exclude-dir=usr --exclude-dir=dev; echo tried"
        );
        assert_eq!(pair.sh(&script).await, "tried\n", "as {user:?}");
        pair.is_unharmed().await;
    }
}

#[tokio::test]
async fn kernel_memory_and_messages_are_unreadable() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let script = "for f in /proc/kcore /proc/kmsg /proc/kpagecount /proc/kpageflags /proc/vmallocinfo /proc/slabinfo \
                      /proc/sys/kernel/cad_pid /proc/iomem; do head -c 64 $f 2>/dev/null | grep -q '[1-9a-f]' && echo $f; done; \
                      grep -c -v '^0000000000000000 ' /proc/kallsyms; dmesg >/dev/null 2>&1 && echo dmesg; echo tried";
        let said = pair.sh(script).await;
        assert!(said == "0\ntried\n" || said == "/proc/iomem\n0\ntried\n", "as {user:?}: {said}");
        let addresses = pair.sh("grep -v '00000000-00000000' /proc/iomem").await;
        assert!(!addresses.contains('-'), "where what is in memory: {addresses}");
        pair.is_unharmed().await;
    }
}

#[tokio::test]
async fn the_servers_environment_and_descriptors_stay_outside() {
    let Some(mut pair) = pair().await else { return };
    // The program that runs the tests sets further variables; none of them may appear inside.
    assert_eq!(pair.sh("env | cut -d= -f1 | sort | tr '\\n' ' '").await, "HOME LANG PATH PWD ");
    // The last one is the open directory itself.
    assert_eq!(pair.sh("exec ls /proc/self/fd").await, "0\n1\n2\n3\n");
    pair.is_unharmed().await;
}
