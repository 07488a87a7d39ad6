//! How much of the server a tenant may use at a time, and that the rest stays available to other tenants.

use std::time::{Duration, Instant};

use errand_proto::v1::*;
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, Status, transport::Endpoint};
use tonic_types::StatusExt as _;

use super::tenants::{entry, server_with};
use crate::support::{
    client::{Session, duration, refused},
    docker::Image,
    server::Server,
    wait::{eventually, soon},
};

async fn list(session: &Session) -> Result<(), Status> {
    session.tasks().list_tasks(ListTasksRequest::default()).await.map(|_| ())
}

fn exhausted(status: &Status, subject: &str) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(status.get_details_quota_failure().unwrap().violations[0].subject, subject, "{status:?}");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some(), "{status:?}");
}

#[tokio::test]
async fn requests_beyond_the_tenant_rate_are_refused() {
    let tokens = |_: &Server| {
        let limit = "[tenants.greedy]\nmax_requests_per_second = 5\n";
        entry("greedy", "greedy", "") + &entry("quiet", "quiet", "") + limit
    };
    let Some(server) = server_with(tokens).await else { return };
    let (greedy, quiet) = (server.session_with("greedy", "a", "session"), server.session_with("quiet", "a", "session"));
    let begun = Instant::now();
    let answers = join_all((0..200).map(|_| list(&greedy))).await;
    let passed = answers.iter().filter(|answer| answer.is_ok()).count();
    let most = 10 + 5 * (begun.elapsed().as_secs() + 1);
    assert!(passed >= 10 && passed as u64 <= most, "{passed} of at most {most}");
    exhausted(answers.iter().find_map(|answer| answer.as_ref().err()).unwrap(), "tenant");
    for _ in 0..50 {
        list(&quiet).await.unwrap();
    }
    eventually("the greedy one may go on", async || list(&greedy).await.ok()).await;
}

#[tokio::test]
async fn ended_calls_and_subscriptions_free_their_permits() {
    let flags = ["--max-calls-per-tenant", "6", "--max-subscriptions-per-bot", "2"];
    let Some(server) = Server::on(Image::Busybox, &flags).await else { return };
    let (one, two) = (server.session("one", "session"), server.session("two", "session"));
    let subscribe = async |session: &Session| {
        let request = SubscribeRequest { bot_id: session.bot.clone(), ..Default::default() };
        session.notifications().subscribe(request).await.map(|answer| answer.into_inner())
    };
    let mut streams = vec![subscribe(&one).await.unwrap(), subscribe(&one).await.unwrap()];
    exhausted(&subscribe(&one).await.unwrap_err(), "bot");
    // Waits count as calls too, and so do two more subscriptions.
    streams.extend([subscribe(&two).await.unwrap(), subscribe(&two).await.unwrap()]);
    let task = two.running("exec sleep 600").await;
    let wait = || {
        let (session, task_id) = (two.clone(), task.task_id.clone());
        let request = WaitTaskRequest { task_id, timeout: duration(600.0), ..Default::default() };
        // A list call may hold the last free slot, so the wait is retried.
        tokio::spawn(async move { while session.tasks().wait_task(request.clone()).await.is_err() {} })
    };
    let waits = [wait(), wait()];
    let refusal = eventually("the tenant has no place", async || list(&one).await.err()).await;
    exhausted(&refusal, "tenant");
    waits.iter().for_each(tokio::task::JoinHandle::abort);
    streams.truncate(1);
    eventually("places are free again", async || subscribe(&one).await.ok()).await;
    eventually("places are free again", async || list(&two).await.ok()).await;
}

#[tokio::test]
async fn connections_of_server_and_tenant_are_limited() {
    let tokens = |_: &Server| {
        let limit = "[tenants.greedy]\nmax_connections = 2\n";
        entry("greedy", "greedy", "") + &entry("quiet", "quiet", "") + limit
    };
    let Some(server) = server_with(tokens).await else { return };
    let call = async |token: &str, channel: &tonic::transport::Channel| {
        let mut request = tonic::Request::new(ListTasksRequest::default());
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        task_service_client::TaskServiceClient::new(channel.clone()).list_tasks(request).await.map(|_| ())
    };
    let connect = || Endpoint::from_shared(server.url()).unwrap().connect_lazy();
    let mut channels = vec![connect(), connect(), connect()];
    for channel in &channels[..2] {
        call("greedy", channel).await.unwrap();
        call("greedy", channel).await.unwrap();
    }
    exhausted(&call("greedy", &channels[2]).await.unwrap_err(), "tenant");
    call("quiet", &channels[2]).await.unwrap();
    channels.remove(0);
    eventually("a place is free again", async || call("greedy", &connect()).await.ok()).await;
}

#[tokio::test]
async fn connections_beyond_the_servers_limit_are_closed() {
    let Some(server) = Server::on(Image::Busybox, &["--max-connections", "2"]).await else { return };
    // The test's own connection counts too.
    let session = server.session("bot", "session");
    list(&session).await.unwrap();
    let address = server.url().replace("http://", "");
    let kept = TcpStream::connect(&address).await.unwrap();
    let closed = async || {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        matches!(tokio::time::timeout(Duration::from_secs(1), stream.read(&mut [0; 64])).await, Ok(Ok(0) | Err(_)))
    };
    eventually("one more is closed", async || closed().await.then_some(())).await;
    list(&session).await.unwrap();
    drop(kept);
    eventually("there is room again", async || (!closed().await).then_some(())).await;
}

#[tokio::test]
async fn a_connection_without_a_valid_token_is_closed() {
    let Some(server) = server_with(|_| entry("red", "red", "")).await else { return };
    let address = server.url().replace("http://", "");
    let begun = Instant::now();
    let mut silent = TcpStream::connect(&address).await.unwrap();
    let mut stranger = TcpStream::connect(&address).await.unwrap();
    stranger.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut rest = Vec::new();
    for stream in [&mut silent, &mut stranger] {
        // A reset counts as closing too.
        let _ = soon("the server closes it", stream.read_to_end(&mut rest)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
    // An authenticated connection may stay silent.
    let session = server.session_with("red", "a", "session");
    // The first call may run on the closing connection that asked for the server's health without a token.
    eventually("one who is known is answered", async || list(&session).await.ok()).await;
}

#[tokio::test]
async fn metadata_beyond_its_limit_is_refused() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let mut request = tonic::Request::new(ListTasksRequest::default());
    request.metadata_mut().insert("x-large", "x".repeat(64 << 10).parse().unwrap());
    let mut tasks = task_service_client::TaskServiceClient::new(server.channel());
    soon("an answer", tasks.list_tasks(request)).await.unwrap_err();
    list(&session).await.unwrap();
}

#[tokio::test]
async fn stuck_uploads_leave_room_on_the_connection() {
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    session.run("exit 0").await;
    let bridge = "$(grep -lx errand-bridge /proc/[0-9]*/comm | cut -d/ -f3)";
    session.exec(&format!("kill -STOP {bridge}")).await;
    let upload = |number: usize| {
        let (mut sandboxes, bot_id) = (session.sandboxes(), session.bot.clone());
        let head = WriteFileHead { bot_id, path: format!("/workspace/{number}"), ..Default::default() };
        let part = |part| WriteFileRequest { part: Some(part) };
        let data = bytes::Bytes::from(vec![0_u8; 256 << 10]);
        let parts: Vec<_> = std::iter::once(part(write_file_request::Part::Head(head)))
            .chain((0..8).map(|_| part(write_file_request::Part::Data(data.clone()))))
            .chain([part(write_file_request::Part::End(WriteFileEnd {}))])
            .collect();
        tokio::spawn(async move { sandboxes.write_file(futures_util::stream::iter(parts)).await.map(|_| ()) })
    };
    let uploads: Vec<_> = (0..100).map(upload).collect();
    let answers = async {
        for _ in 0..200 {
            session.told().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answers).await.expect("other calls are answered");
    let ended = async || uploads.iter().filter(|upload| upload.is_finished()).count();
    eventually("uploads beyond the limit are refused", async || (ended().await == 52).then_some(())).await;
    session.exec(&format!("kill -CONT {bridge}")).await;
    let mut written = 0;
    for upload in uploads {
        match soon("an upload ends", upload).await.unwrap() {
            Ok(()) => written += 1,
            Err(status) => exhausted(&status, "connection"),
        }
    }
    assert_eq!(written, 48);
}

#[tokio::test]
async fn sandboxes_of_one_tenant_leave_room_for_others() {
    let tokens = |_: &Server| entry("greedy", "greedy", "") + &entry("quiet", "quiet", "");
    let Some(server) = server_with(tokens).await else { return };
    let quiet = server.session_with("quiet", "quiet", "session");
    quiet.run("exit 0").await;
    let flood: Vec<_> = (0..500)
        .map(|number| {
            let session = server.session_with("greedy", &format!("bot-{number}"), "session");
            let request = EnsureSandboxRequest { bot_id: session.bot.clone(), spec: None };
            tokio::spawn(async move { session.sandboxes().ensure_sandbox(request).await.map(|_| ()) })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for number in 0..10 {
        let begun = Instant::now();
        quiet.run("exit 0").await;
        if number == 5 {
            server.session_with("quiet", "another", "session").ensure(None).await.unwrap();
        }
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
    // Sandboxes that cannot be created in time are refused, not forgotten.
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    refused(list(&server.session_with("wrong", "a", "session")).await, Code::Unauthenticated);
}
