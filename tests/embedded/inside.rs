//! What a sandbox looks like from inside.

use std::fs;

use errand_runtime::{Runtime as _, RuntimeError};

use crate::support::embedded::{Root, machine, request, sandbox, tuned};

#[tokio::test]
async fn files_of_the_machine_are_invisible() {
    let Some(sandbox) = sandbox(Root::Host).await else { return };
    let data = sandbox.machine.data_dir().display().to_string();
    for path in [
        "/root",
        "/home",
        "/etc/shadow",
        "/etc/ssl/private",
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/var/lib",
        "/boot",
        &data,
    ] {
        assert_eq!(sandbox.sh(&format!("ls -d {path} 2>/dev/null")).await, "", "{path}");
    }
    let secret = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    fs::write(&secret, "secret").unwrap();
    assert_eq!(sandbox.sh(&format!("cat {} 2>/dev/null", secret.path().display())).await, "", "/tmp is its own");
    for process in sandbox.sh("cat /proc/[0-9]*/comm 2>/dev/null").await.lines() {
        assert!(["errand-init", "sh", "cat"].contains(&process), "{process}");
    }
    assert_eq!(sandbox.sh("env | grep -c -i errand").await, "0\n", "nothing of the server's environment");
}

#[tokio::test]
async fn commands_run_as_a_user_that_is_listed() {
    let Some(sandbox) = sandbox(Root::Host).await else { return };
    assert_eq!(
        sandbox.sh("id -un; id -gn; id -u; echo $HOME; hostname").await,
        "errand\nerrand\n1000\n/workspace\nbot\n"
    );
    let Some(numbered) = tuned(Root::Host, |spec| spec.user = Some("4711:12".to_owned())).await else { return };
    assert_eq!(
        numbered.sh("id -u; id -g; id -un; touch /workspace/x && echo written").await,
        "4711\n12\nerrand-4711\nwritten\n"
    );
    let Some(root) = tuned(Root::Host, |spec| spec.user = Some("root".to_owned())).await else { return };
    let said =
        root.sh("id -u; touch /workspace/x && echo written; touch /usr/x /etc/x 2>&1 | grep -c 'Read-only'").await;
    assert_eq!(said, "0\nwritten\n2\n");
}

#[tokio::test]
async fn each_root_sandbox_has_its_own_user_outside() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (Some(one), Some(other)) = (sandbox(Root::Host).await, sandbox(Root::Host).await) else { return };
    let owner = |sandbox: &crate::support::embedded::Sandbox| {
        let info = fs::read_to_string(sandbox.directory().join("init.json")).unwrap();
        let pid: serde_json::Value = serde_json::from_str(&info).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", pid["child-pid"])).unwrap();
        status.lines().find(|line| line.starts_with("Uid:")).unwrap().to_owned()
    };
    let (one, other) = (owner(&one), owner(&other));
    assert_ne!(one, other);
    assert!(!one.contains("\t0\t") && !other.contains("\t0\t"), "{one} {other}");
}

#[tokio::test]
async fn environment_is_as_requested_and_private() {
    let name = "secret".to_owned();
    let Some(sandbox) = tuned(Root::Host, |spec| drop(spec.env.insert(name, "do-not-tell".to_owned()))).await else {
        return;
    };
    assert_eq!(sandbox.sh("echo $secret").await, "do-not-tell\n");
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&arguments).contains("do-not-tell"), "{entry:?}");
    }
}

#[tokio::test]
async fn only_allowed_images_are_used() {
    let Some(machine) = machine().await else { return };
    let runtime = machine.runtime();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = machine.data_dir().join("link");
    std::os::unix::fs::symlink("/", &link).unwrap();
    for image in ["/", "/root", elsewhere.path().to_str().unwrap(), link.to_str().unwrap(), "../x", "debian:12"] {
        let refused = runtime.create(&request(image.to_owned())).await;
        assert!(matches!(refused, Err(RuntimeError::NoSuchImage { .. })), "{image}: {refused:?}");
    }
}

#[tokio::test]
async fn image_becomes_the_root() {
    let Some(sandbox) = sandbox(Root::Busybox).await else { return };
    assert_eq!(sandbox.sh("ls /usr/bin/bash /etc/debian_version 2>/dev/null").await, "");
    assert_eq!(
        sandbox.sh("id -un; busybox | head -c 7; touch /bin/x 2>/dev/null || echo kept").await,
        "errand\nBusyBoxkept\n"
    );
}

#[tokio::test]
async fn disk_size_is_limited_as_root() {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/loop-control").exists() {
        return;
    }
    let Some(mut machine) = machine().await else { return };
    machine.disk_bytes = 32 << 20;
    let runtime = machine.runtime();
    let found = runtime.create(&request("host".to_owned())).await.unwrap();
    let sandbox = crate::support::embedded::Sandbox { machine, runtime, found };
    let fill = "for d in /tmp /workspace; do head -c 100M /dev/zero 2>&1 >$d/big; done; du -msc /tmp /workspace | tail -1 | cut -f1";
    let said = sandbox.sh(fill).await;
    let held: u64 = said.lines().last().unwrap().parse().unwrap();
    assert!(said.contains("No space left") && held <= 32, "{said}");
    assert_eq!(sandbox.sh("rm /tmp/big /workspace/big; echo x >/workspace/y && echo written").await, "written\n");
}

#[tokio::test]
async fn unknown_network_and_user_are_refused_by_name() {
    let Some(machine) = machine().await else { return };
    let runtime = machine.runtime();
    let mut wanted = request("host".to_owned());
    wanted.spec.network_mode = "my-net".to_owned();
    match runtime.create(&wanted).await {
        Err(RuntimeError::Refused { detail }) => {
            assert!(detail.contains("network_mode") && detail.contains("my-net"), "{detail}")
        }
        other => panic!("{other:?}"),
    }
    wanted.spec.network_mode = "none".to_owned();
    wanted.spec.user = Some("joe".to_owned());
    match runtime.create(&wanted).await {
        Err(RuntimeError::Refused { detail }) => assert!(detail.contains("user") && detail.contains("joe"), "{detail}"),
        other => panic!("{other:?}"),
    }
}
