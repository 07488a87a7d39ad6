//! The tokens file changes while the server runs.

use std::{fs, os::unix::fs::symlink, path::Path};

use errand_proto::v1::*;
use tonic::{Code, Status};

use super::tenants::{entry, server_with};
use crate::support::{
    client::{Session, duration, refused},
    server::Server,
    wait::{eventually, soon},
};

async fn two_tokens() -> Option<Server> {
    server_with(|_| [entry("red", "stays", ""), entry("red", "goes", "")].concat()).await
}

/// Replaces the server's tokens file atomically, as a careful operator does.
fn replace(server: &Server, text: &str) {
    let new = server.file("tokens.new", text);
    fs::rename(new, server.directory().join("tokens.toml")).unwrap();
}

async fn list(session: &Session) -> Result<(), Status> {
    session.tasks().list_tasks(ListTasksRequest::default()).await.map(|_| ())
}

/// Starts every long-lived call on a running command. Each handle returns the status that ends the call.
async fn lasting(session: &Session) -> Vec<(&'static str, tokio::task::JoinHandle<Status>)> {
    let task = session.running("echo begun; exec sleep 600").await;
    let (bot_id, task_id) = (session.bot.clone(), task.task_id.clone());
    let subscribe = SubscribeRequest { bot_id, ..Default::default() };
    let mut subscription = session.notifications().subscribe(subscribe).await.unwrap().into_inner();
    let stream = StreamOutputRequest { task_id: task_id.clone(), ..Default::default() };
    let mut output = session.tasks().stream_output(stream).await.unwrap().into_inner();
    output.message().await.unwrap();
    let watch = WatchTasksRequest { bot_id: session.bot.clone(), ..Default::default() };
    let mut watch = session.tasks().watch_tasks(watch).await.unwrap().into_inner();
    watch.message().await.unwrap();
    let run = RunTaskRequest { start: Some(session.request("exec sleep 600")), ..Default::default() };
    let mut run = session.tasks().run_task(run).await.unwrap().into_inner();
    run.message().await.unwrap();
    let (mut waiter, wait) =
        (session.tasks(), WaitTaskRequest { task_id, timeout: duration(600.0), ..Default::default() });
    async fn last<T>(stream: &mut tonic::Streaming<T>) -> Status {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("the stream ended"),
                Err(status) => return status,
            }
        }
    }
    vec![
        ("Subscribe", tokio::spawn(async move { last(&mut subscription).await })),
        ("StreamOutput", tokio::spawn(async move { last(&mut output).await })),
        ("WatchTasks", tokio::spawn(async move { last(&mut watch).await })),
        ("RunTask", tokio::spawn(async move { last(&mut run).await })),
        ("WaitTask", tokio::spawn(async move { waiter.wait_task(wait).await.unwrap_err() })),
    ]
}

#[tokio::test]
async fn revoked_token_ends_its_streams() {
    let Some(server) = two_tokens().await else { return };
    let (goes, stays) = (server.session_with("goes", "a", "session"), server.session_with("stays", "b", "session"));
    let (ending, lasting) = (lasting(&goes).await, lasting(&stays).await);
    replace(&server, &entry("red", "stays", ""));
    for (call, end) in ending {
        let status = soon("the call ends", end).await.unwrap();
        assert_eq!(status.code(), Code::Unauthenticated, "{call}: {status:?}");
        assert!(status.message().contains("revoked"), "{call}: {status:?}");
    }
    refused(list(&goes).await, Code::Unauthenticated);
    list(&stays).await.unwrap();
    for (call, end) in lasting {
        assert!(!end.is_finished(), "{call}");
        end.abort();
    }
    // The commands do not depend on the token, and run on.
    let running = ListTasksRequest { bot_id: goes.bot.clone(), ..Default::default() };
    let running = stays.listed(running).await;
    assert!(running.len() == 2 && running.iter().all(|task| task.outcome.is_none()), "{running:?}");
}

#[tokio::test]
async fn bad_tokens_file_is_ignored() {
    let Some(server) = two_tokens().await else { return };
    let session = server.session_with("goes", "a", "session");
    for text in ["[[tokens]\n", "", "[[tokens]]\ntenant = \"red\"\nsha256 = \"abc\"\n"] {
        let before = server.log().matches("the tokens stay as they were").count();
        replace(&server, text);
        eventually("the file is refused", async || {
            (server.log().matches("the tokens stay as they were").count() > before).then_some(())
        })
        .await;
        list(&session).await.unwrap();
    }
    fs::remove_file(server.directory().join("tokens.toml")).unwrap();
    eventually("its absence is logged", async || server.log().contains("cannot be read").then_some(())).await;
    list(&session).await.unwrap();
    replace(&server, &entry("red", "stays", ""));
    eventually("the token goes", async || list(&session).await.is_err().then_some(())).await;
}

#[tokio::test]
async fn sighup_reloads_the_tokens_file() {
    let Some(server) = two_tokens().await else { return };
    let session = server.session_with("new", "a", "session");
    refused(list(&session).await, Code::Unauthenticated);
    replace(&server, &entry("red", "new", ""));
    server.signal("HUP");
    eventually("the token comes", async || list(&session).await.ok()).await;
    server.signal("HUP");
    list(&session).await.unwrap();
}

#[tokio::test]
async fn replaced_symlink_reloads_the_tokens_file() {
    let mut directory = None;
    let server = server_with(|server| {
        directory = Some(server.directory().to_owned());
        entry("red", "old", "")
    });
    let Some(server) = server.await else { return };
    let directory = directory.unwrap();
    // As Kubernetes mounts a secret: the file is a link into a linked directory, and that link is swapped.
    let link = |target: &str, name: &Path| {
        let fresh = directory.join("fresh-link");
        symlink(target, &fresh).unwrap();
        fs::rename(fresh, name).unwrap();
    };
    for (version, token) in [("one", "old"), ("two", "new")] {
        fs::create_dir(directory.join(version)).unwrap();
        fs::write(directory.join(version).join("tokens.toml"), entry("red", token, "")).unwrap();
    }
    link("one", &directory.join("data-link"));
    link("data-link/tokens.toml", &directory.join("tokens.toml"));
    list(&server.session_with("old", "a", "session")).await.unwrap();
    link("two", &directory.join("data-link"));
    let session = server.session_with("new", "a", "session");
    eventually("the token comes", async || list(&session).await.ok()).await;
    refused(list(&server.session_with("old", "a", "session")).await, Code::Unauthenticated);
}

#[tokio::test]
async fn changed_permissions_apply_without_a_restart() {
    let bots = |server: &Server, name: &str| format!("bots = [\"{}\"]", server.bot(name));
    let Some(server) = server_with(|server| entry("red", "token", &bots(server, "a"))).await else { return };
    let (a, b) = (server.session_with("token", "a", "session"), server.session_with("token", "b", "session"));
    a.ensure(None).await.unwrap();
    refused(b.ensure(None).await, Code::PermissionDenied);
    let tenant = "[tenants.red]\nmax_cpus = 0.5\nallow_networks = [\"none\"]\nmax_sandboxes = 2\n";
    replace(&server, &(entry("red", "token", &bots(&server, "b")) + tenant));
    eventually("the other bot may be used", async || match b.sandbox().await {
        Err(status) if status.code() == Code::NotFound => Some(()),
        _ => None,
    })
    .await;
    refused(a.sandbox().await, Code::PermissionDenied);
    // The tenant's own limits change too.
    let more = SandboxSpec { cpus: 1.0, network_mode: "bridge".to_owned(), ..Default::default() };
    let said = refused(b.ensure(Some(more)).await, Code::InvalidArgument);
    assert!(said.contains("cpus must be at most 0.5"), "{said}");
    assert_eq!(b.ensure(None).await.unwrap().spec.unwrap().cpus, 0.5);
}
