//! Sandboxes: created as requested, found again, adopted, stopped, deleted; never left half-made.

use bollard::{Docker, query_parameters::StopContainerOptionsBuilder};
use errand_proto::v1::*;
use futures_util::future::join_all;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    on_both_images,
    support::{
        client::{Session, ended, refused},
        docker::{self, Image},
        ground::Ground,
        proxy::Proxy,
        server::Server,
    },
};

on_both_images!(a_sandbox_is_limited_as_asked, tmp_and_workspace_are_writable_for_any_user);

fn about(session: &Session) -> (StopSandboxRequest, DeleteSandboxRequest) {
    (StopSandboxRequest { bot_id: session.bot.clone() }, DeleteSandboxRequest { bot_id: session.bot.clone() })
}

/// Checks what the engine reports of a container that was created for a bot.
async fn check_container(docker: &Docker, session: &Session, sandbox: &Sandbox) {
    let found = docker.inspect_container(&sandbox.container_id, None).await.unwrap();
    let host = found.host_config.unwrap();
    assert_eq!((host.memory, host.memory_swap), (Some(96 << 20), Some(96 << 20)));
    assert_eq!((host.nano_cpus, host.pids_limit), (Some(500_000_000), Some(48)));
    assert_eq!((host.readonly_rootfs, host.init, host.privileged), (Some(true), Some(true), Some(false)));
    let bridge_only = ["KILL", "SETGID", "SETUID"].map(str::to_owned).to_vec();
    assert_eq!((host.cap_drop, host.cap_add), (Some(vec!["ALL".to_owned()]), Some(bridge_only)));
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    assert_eq!(host.network_mode.as_deref(), Some("none"));
    assert_eq!(host.binds, None);
    let labels = found.config.unwrap().labels.unwrap();
    assert_eq!((labels["errand.tenant"].as_str(), &labels["errand.bot"]), ("local", &session.bot));
    assert_eq!(labels["errand.sandbox"], sandbox.sandbox_id);
}

async fn a_sandbox_is_limited_as_asked(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let spec = SandboxSpec {
        image: server.ground.image(image),
        memory_bytes: 96 << 20,
        cpus: 0.5,
        pids_limit: 48,
        network_mode: "none".to_owned(),
        env: [("GREETING".to_owned(), "hello".to_owned())].into(),
        ..Default::default()
    };
    let sandbox = session.ensure(Some(spec.clone())).await.unwrap();
    assert_eq!((sandbox.state(), sandbox.adopted), (SandboxState::Running, false));
    assert_eq!((sandbox.runtime.as_str(), sandbox.bridge.as_str()), (server.ground.name(), "resident"));
    assert_eq!(sandbox.spec, Some(spec));

    if let Ground::Docker(docker) = &server.ground {
        check_container(docker, &session, &sandbox).await;
    }
    // What the kernel reports to a command.
    let command = "grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status | sort | tr -d '\\t'; echo $GREETING; \
                   touch /x 2>/dev/null || echo read-only; tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '";
    let task = session.run(command).await;
    let expected = "CapEff:0000000000000000\nCapPrm:0000000000000000\nNoNewPrivs:1\nhello\nread-only\nlo\n";
    assert_eq!(session.text(&task).await, expected);
    // A command that forks too many processes is limited, and its end is still known.
    let task = session.run("for i in $(seq 1 60); do sleep 5 & done 2>/dev/null; exit 3").await;
    assert!(ended(&task).starts_with("exited"), "{task:?}");
}

async fn tmp_and_workspace_are_writable_for_any_user(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    for (bot, user) in [("root", ""), ("named", "nobody"), ("numbered", "1234:5678")] {
        let session = server.session(bot, "session");
        session.ensure(Some(SandboxSpec { user: user.to_owned(), ..Default::default() })).await.unwrap();
        let task =
            session.run("id -u; echo a >/tmp/a && echo b >/workspace/b && cat /tmp/a b; touch /c || exit 5").await;
        assert_eq!(ended(&task), "exited 5", "{user}");
        let output = session.text(&task).await;
        let uid = output.lines().next().unwrap();
        // A sandbox whose image names no user has an ordinary user.
        assert_eq!(uid == server.ground.usual_uid(), user.is_empty(), "{user}: {output}");
        assert!(output.contains("a\nb\n"), "{user}: {output}");
        assert_eq!(ended(&session.stop(&session.running("sleep 300").await, None).await), "stopped request 15");
    }
}

#[tokio::test]
async fn a_writable_root_is_writable_where_asked() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    // The programs of this machine are never writable.
    let Some(_) = server.ground.docker() else { return };
    let session = server.session("bot", "session");
    let sandbox = Some(SandboxSpec { writable_root: true, ..Default::default() });
    let task = session.run_as(StartTaskRequest { sandbox, ..session.request("touch /x") }).await;
    assert_eq!(ended(&task), "exited 0");
}

#[tokio::test]
async fn concurrent_requests_make_one_sandbox() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let all = join_all((0..20).map(|number| {
        let session = &session;
        async move {
            if number % 2 == 0 {
                session.ensure(None).await.unwrap().sandbox_id
            } else {
                session.run("exit 0").await.sandbox_id
            }
        }
    }))
    .await;
    assert!(all.iter().all(|id| *id == all[0]));
    assert_eq!(server.containers().await.len(), 1);
    // A sandbox is found again.
    let before = session.sandbox().await.unwrap();
    server.restart().await;
    assert_eq!(session.ensure(None).await.unwrap(), before);
    assert_eq!(session.sandbox().await.unwrap(), before);
    let listed = session.sandboxes().list_sandboxes(ListSandboxesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.sandboxes, [before]);
}

#[tokio::test]
async fn conflicting_request_does_not_change_a_sandbox() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let sandbox = session.ensure(None).await.unwrap();
    let other = SandboxSpec { memory_bytes: 64 << 20, cpus: 0.25, ..sandbox.spec.clone().unwrap() };
    let words = refused(session.ensure(Some(other.clone())).await, Code::FailedPrecondition);
    assert!(words.contains("memory_bytes") && words.contains("cpus") && !words.contains("image"), "{words}");
    assert_eq!(session.ensure(sandbox.spec.clone()).await.unwrap(), sandbox);
    // The sandbox spec in a task request applies only to a bot without a sandbox.
    let task = session.run_as(StartTaskRequest { sandbox: Some(other), ..session.request("exit 2") }).await;
    assert_eq!((ended(&task), task.sandbox_id), ("exited 2".to_owned(), sandbox.sandbox_id));
}

#[tokio::test]
async fn failed_sandbox_gives_reason_and_leaves_nothing() {
    let networks = ["--allow-networks", "none, no-such-*"];
    let Some(server) = Server::on(Image::Busybox, &networks).await else { return };
    let session = server.session("bot", "session");
    let image = SandboxSpec { image: "no-such-image:ever".to_owned(), ..Default::default() };
    let network = SandboxSpec { network_mode: "no-such-network".to_owned(), ..Default::default() };
    let user = SandboxSpec { user: "no-such-user".to_owned(), ..Default::default() };
    for (spec, named) in [(image, "no-such-image:ever"), (network, "no-such-network"), (user, "no-such-user")] {
        let words = refused(session.ensure(Some(spec.clone())).await, Code::FailedPrecondition);
        assert!(words.contains(named), "{words}");
        let start = StartTaskRequest { sandbox: Some(spec), ..session.request("echo") };
        let words = refused(session.try_start(start).await, Code::FailedPrecondition);
        assert!(words.contains(named), "{words}");
        assert_eq!(server.containers().await, Vec::<String>::new(), "{named}");
        refused(session.sandbox().await, Code::NotFound);
    }
    assert_eq!(session.listed(ListTasksRequest::default()).await, [], "what was refused was not accepted");
    assert_eq!(ended(&session.run("exit 3").await), "exited 3");
}

#[tokio::test]
async fn sandbox_beyond_the_maxima_is_refused() {
    let flags = ["--max-cpus", "4", "--allow-images", "acme/*"];
    let Some(server) = Server::on(Image::Busybox, &flags).await else { return };
    let session = server.session("bot", "session");
    let huge = SandboxSpec {
        memory_bytes: 1 << 60,
        cpus: 1e12,
        pids_limit: 4_194_304,
        image: "debian:latest".to_owned(),
        network_mode: "my-network".to_owned(),
        ..Default::default()
    };
    let check = |status: tonic::Status, prefix: &str| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        let expected = [
            ("memory_bytes", "at most 17179869184"),
            ("cpus", "at most 4"),
            ("pids_limit", "at most 32768"),
            ("image", "one of acme/*"),
            ("network_mode", "one of bridge, none"),
        ];
        assert_eq!(violations.len(), expected.len(), "{violations:?}");
        for (violation, (field, rule)) in violations.iter().zip(expected) {
            assert_eq!(violation.field, format!("{prefix}.{field}"));
            assert!(violation.description.contains(rule), "{violation:?}");
        }
    };
    check(session.ensure(Some(huge.clone())).await.unwrap_err(), "spec");
    let start = StartTaskRequest { sandbox: Some(huge), ..session.request("echo") };
    check(session.try_start(start).await.unwrap_err(), "sandbox");
    assert_eq!(server.containers().await, Vec::<String>::new());
    // The server's own image is always allowed, even if the list lacks it.
    session.ensure(None).await.unwrap();
}

#[tokio::test]
async fn sandboxes_of_a_tenant_are_capped() {
    let Some(server) = Server::on(Image::Busybox, &["--max-sandboxes-per-tenant", "2"]).await else { return };
    let sessions: Vec<_> = (0..6).map(|number| server.session(&format!("bot-{number}"), "session")).collect();
    let made = join_all(sessions.iter().map(|session| session.ensure(None))).await;
    let (has, refusals): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    assert_eq!((has.len(), server.containers().await.len()), (2, 2), "{refusals:?}");
    for refusal in refusals {
        let status = refusal.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        let violation = &status.get_details_quota_failure().unwrap().violations[0];
        assert_eq!((violation.subject.as_str(), violation.description.contains('2')), ("tenant", true));
    }
    // An existing sandbox is reused, and makes room when it is deleted.
    let bot = has[0].as_ref().unwrap().bot_id.clone();
    let session = sessions.iter().find(|session| session.bot == bot).unwrap();
    session.run("exit 0").await;
    session.sandboxes().delete_sandbox(about(session).1).await.unwrap();
    let other = sessions.iter().find(|session| !has.iter().any(|made| made.as_ref().unwrap().bot_id == session.bot));
    other.unwrap().ensure(None).await.unwrap();
}

#[tokio::test]
async fn waiting_for_a_slow_create_is_bounded() {
    let Some(mut server) = Server::prepare(Image::Busybox).await else { return };
    let Some(_) = server.ground.docker() else { return };
    let proxy = Proxy::open();
    server.flags.extend(["--docker-host".to_owned(), proxy.url()]);
    server.launch().await;
    let session = server.session("bot", "session");
    // The engine accepts the request and never answers, for longer than the other caller waits.
    proxy.black_hole();
    let (one, two) = (session.ensure(None), session.ensure(None));
    let (first, _) = futures_util::future::select(Box::pin(one), Box::pin(two)).await.factor_first();
    let status = first.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("another call") && status.message().contains(&session.bot), "{status:?}");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
}

#[tokio::test]
async fn adopted_container_is_never_removed() {
    let Some(mut server) = Server::on(Image::Debian, &[]).await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let (by_name, by_id) = (server.session("by-name", "session"), server.session("by-id", "session"));
    for (session, short) in [(&by_name, false), (&by_id, true)] {
        let container = docker::container(&docker, Image::Debian, |_| {}).await;
        let name = if short { &container.id[..12] } else { &container.name };
        let sandbox = session.adopt(name).await.unwrap();
        assert_eq!((&sandbox.container_id, &sandbox.container_name), (&container.id, &container.name));
        assert_eq!((sandbox.adopted, sandbox.state()), (true, SandboxState::Running));
        assert_eq!(sandbox.spec.unwrap().image, Image::Debian.name());
        // Adopting the same container twice is no error; adopting another container is.
        assert_eq!(session.adopt(&container.name).await.unwrap().sandbox_id, sandbox.sandbox_id);
        let another = docker::container(&docker, Image::Debian, |_| {}).await;
        refused(session.adopt(&another.name).await, Code::AlreadyExists);

        assert_eq!(ended(&session.run("touch /by-a-task; exit 4").await), "exited 4");
        let task = session.running("sleep 300").await;
        server.restart().await;
        assert_eq!(session.get(&task).await.status(), TaskStatus::Running);
        // Stopping the sandbox stops its tasks, and nothing that Errand did not create.
        let (stop, delete) = about(session);
        let stopped = session.sandboxes().stop_sandbox(stop).await.unwrap().into_inner().sandbox.unwrap();
        assert_eq!(stopped.state(), SandboxState::Running);
        assert_eq!(ended(&session.get(&task).await), "stopped sandbox_stopped 15");
        session.sandboxes().delete_sandbox(delete).await.unwrap();
        refused(session.sandbox().await, Code::NotFound);
        assert_eq!(server.ground.exec(&container.id, "ls /by-a-task").await, "/by-a-task\n");
    }
}

#[tokio::test]
async fn only_running_unowned_containers_are_adopted() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let (session, other) = (server.session("bot", "session"), server.session("other", "session"));
    let words = refused(session.adopt("no-such-container").await, Code::NotFound);
    assert!(words.contains("no-such-container"), "{words}");

    let container = docker::container(&docker, Image::Busybox, |_| {}).await;
    let options = StopContainerOptionsBuilder::default().t(0).build();
    docker.stop_container(&container.id, Some(options)).await.unwrap();
    let words = refused(session.adopt(&container.name).await, Code::FailedPrecondition);
    assert!(words.contains("not running"), "{words}");

    // Sandboxes of another bot, both created and adopted.
    let made = other.ensure(None).await.unwrap().container_name;
    refused(session.adopt(&made).await, Code::NotFound);
    let third = server.session("third", "session");
    let container = docker::container(&docker, Image::Busybox, |_| {}).await;
    third.adopt(&container.name).await.unwrap();
    refused(session.adopt(&container.id).await, Code::FailedPrecondition);
    refused(session.sandbox().await, Code::NotFound);
}

#[tokio::test]
async fn stopped_adopted_container_is_not_started() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let session = server.session("bot", "session");
    let container = docker::container(&docker, Image::Busybox, |_| {}).await;
    session.adopt(&container.name).await.unwrap();
    let options = StopContainerOptionsBuilder::default().t(0).build();
    docker.stop_container(&container.id, Some(options)).await.unwrap();
    assert_eq!(session.sandbox().await.unwrap().state(), SandboxState::Stopped);
    let words = refused(session.try_start(session.request("echo")).await, Code::FailedPrecondition);
    assert!(words.contains(&container.name) && words.contains("not running"), "{words}");
}

#[tokio::test]
async fn sandbox_stop_and_delete_stop_tasks_first() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let (session, other) = (server.session("bot", "session"), server.session("other", "session"));
    let bystander = other.running("sleep 300").await;
    let task = session.running("sleep 300").await;
    session.run("echo kept >/workspace/kept").await;
    let (stop, delete) = about(&session);
    let stopped = session.sandboxes().stop_sandbox(stop).await.unwrap().into_inner().sandbox.unwrap();
    assert_eq!(stopped.state(), SandboxState::Stopped);
    assert_eq!(ended(&session.get(&task).await), "stopped sandbox_stopped 15");
    assert_eq!(session.told_of(&task).await, ["completed"]);
    // The next task starts it again, with its files.
    let kept = session.run("cat /workspace/kept").await;
    assert_eq!(session.text(&kept).await, "kept\n");

    let task = session.running("trap '' TERM; while :; do sleep 1; done").await;
    session.sandboxes().delete_sandbox(delete.clone()).await.unwrap();
    assert_eq!(ended(&session.get(&task).await), "stopped sandbox_deleted 9");
    refused(session.sandbox().await, Code::NotFound);
    refused(session.sandboxes().delete_sandbox(delete).await, Code::NotFound);
    let read = ReadOutputRequest { task_id: task.task_id.clone(), ..Default::default() };
    assert_eq!(session.try_read(read).await.unwrap(), ReadOutputResponse::default(), "it printed nothing");
    assert_eq!(server.containers().await.len(), 1, "only the other bot's is left");
    let fresh = session.run("cat /workspace/kept").await;
    assert_eq!(ended(&fresh), "exited 1", "a new sandbox has no old files");
    assert_eq!(other.get(&bystander).await.status(), TaskStatus::Running);
    other.stop(&bystander, Some(0.0)).await;
}

#[tokio::test]
async fn vanished_sandbox_is_recreated_for_next_task() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let first = session.ensure(None).await.unwrap();
    server.ground.remove(&first.container_id).await;
    assert_eq!(session.sandbox().await.unwrap().state(), SandboxState::Gone);
    let task = session.run("exit 3").await;
    let second = session.sandbox().await.unwrap();
    assert_eq!((ended(&task).as_str(), task.sandbox_id), ("exited 3", second.sandbox_id.clone()));
    assert_ne!(second.container_id, first.container_id);
    assert_eq!(second.state(), SandboxState::Running);
}
