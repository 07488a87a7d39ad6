//! Sandboxes whose disk is full or not writable.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig};
use errand_proto::v1::outcome::Kind;

use crate::{
    on_both_images,
    support::{
        client::ended,
        docker::{self, Image},
        server::Server,
    },
};

on_both_images!(
    full_disk_prevents_a_start_with_reason,
    filling_disk_does_not_change_the_exit_code,
    unwritable_sandbox_prevents_a_start,
    only_tmp_and_workspace_are_writable_by_default,
);

fn small_tmp(body: &mut ContainerCreateBody) {
    let tmpfs = HashMap::from([("/tmp".to_owned(), "size=1m,mode=1777".to_owned())]);
    body.host_config = Some(HostConfig { tmpfs: Some(tmpfs), ..docker::host_config() });
}

async fn full_disk_prevents_a_start_with_reason(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let container = docker::container(&docker, image, small_tmp).await;
    let session = server.session("bot", "session");
    session.adopt(&container.name).await.unwrap();
    session.exec("cat /dev/zero >/tmp/fill 2>/dev/null").await;
    for command in ["echo ran >/ran".to_owned(), format!("echo ran >/ran # {}", "x".repeat(200_000))] {
        let task = session.run(&command).await;
        assert_eq!(ended(&task), "failed_to_start NO_SPACE", "{task:?}");
        let Some(Kind::FailedToStart(failed)) = task.outcome.clone().unwrap().kind else { unreachable!() };
        assert!(failed.message.to_lowercase().contains("no space"), "{}", failed.message);
        assert_eq!(session.told_of(&task).await, ["completed"]);
    }
    assert_eq!(session.exec("cat /ran 2>/dev/null").await, "");
    // Once there is room, the sandbox works again.
    session.exec("rm /tmp/fill").await;
    assert_eq!(ended(&session.run("exit 3").await), "exited 3");
}

async fn filling_disk_does_not_change_the_exit_code(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let container = docker::container(&docker, image, small_tmp).await;
    let session = server.session("bot", "session");
    session.adopt(&container.id).await.unwrap();
    for (command, end) in [
        ("head -c 3000000 /dev/zero; exit 9", "exited 9"),
        ("cat /dev/zero >/tmp/fill 2>/dev/null; echo words; exit 4", "exited 4"),
    ] {
        let task = session.run(command).await;
        assert_eq!(ended(&task), end, "{task:?}");
        assert!(task.output_incomplete, "{task:?}");
        assert_eq!(session.told_of(&task).await, ["completed"]);
        session.exec("rm -rf /tmp/*").await;
    }
    let task = session.run("echo words").await;
    assert!(!task.output_incomplete);
}

async fn unwritable_sandbox_prevents_a_start(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let read_only = |body: &mut ContainerCreateBody| {
        let host = HostConfig { readonly_rootfs: Some(true), ..docker::host_config() };
        body.host_config = Some(host);
    };
    let container = docker::container(&docker, image, read_only).await;
    let session = server.session("bot", "session");
    session.adopt(&container.id).await.unwrap();
    let task = session.run("echo ran").await;
    assert_eq!(ended(&task), "failed_to_start NO_SPACE", "{task:?}");
    let Some(Kind::FailedToStart(failed)) = task.outcome.unwrap().kind else { unreachable!() };
    assert!(failed.message.to_lowercase().contains("read-only"), "{}", failed.message);
}

async fn only_tmp_and_workspace_are_writable_by_default(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let script = "for d in / /etc /tmp /workspace /root /var/tmp; do touch $d/probe 2>/dev/null && echo $d; done; true";
    let task = session.run(script).await;
    assert_eq!(session.text(&task).await, "/tmp\n/workspace\n");
}
