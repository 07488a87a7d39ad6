//! Files of a sandbox: read, written, listed and removed through the API, and from the command line.

use std::{collections::HashMap, process::Command, time::Duration};

use bollard::models::HostConfig;
use errand_proto::v1::*;
use futures_util::{Stream, StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    on_both_images,
    support::{
        client::Session,
        docker::{self, Image},
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(
    large_file_is_read_back_unchanged,
    interrupted_write_keeps_the_old_file,
    a_part_of_a_file_is_read,
    file_errors_have_code_and_reason,
    paths_never_leave_the_root,
    a_directory_comes_in_pages,
    a_removal_follows_no_link,
    a_full_disk_keeps_the_old_file,
    files_need_a_running_sandbox,
    the_command_line_copies_lists_and_removes,
);

/// The most bytes that a client puts into one message in these tests.
const PIECE: usize = 256 * 1024;

fn head(session: &Session, path: &str) -> WriteFileHead {
    WriteFileHead { bot_id: session.bot.clone(), path: path.to_owned(), ..Default::default() }
}

fn message(part: write_file_request::Part) -> WriteFileRequest {
    WriteFileRequest { part: Some(part) }
}

/// The messages of a complete write.
fn whole(head: WriteFileHead, content: &[u8]) -> impl Stream<Item = WriteFileRequest> + Send + 'static {
    use write_file_request::Part;
    let pieces: Vec<_> = content.chunks(PIECE).map(|piece| message(Part::Data(piece.to_vec().into()))).collect();
    let end = message(Part::End(WriteFileEnd {}));
    stream::iter([message(Part::Head(head))].into_iter().chain(pieces).chain([end]))
}

async fn write_as(session: &Session, head: WriteFileHead, content: &[u8]) -> Result<FileEntry, Status> {
    let messages = whole(head, content);
    let mut sandboxes = session.sandboxes();
    Ok(soon("a file is written", sandboxes.write_file(messages)).await?.into_inner().entry.unwrap())
}

async fn write(session: &Session, path: &str, content: &[u8]) -> Result<FileEntry, Status> {
    write_as(session, head(session, path), content).await
}

async fn read_as(session: &Session, request: ReadFileRequest) -> Result<(FileEntry, Vec<u8>), Status> {
    let request = ReadFileRequest { bot_id: session.bot.clone(), ..request };
    let mut messages = soon("a file opens", session.sandboxes().read_file(request)).await?.into_inner();
    let first = soon("the entry comes", messages.message()).await?.unwrap().part.unwrap();
    let read_file_response::Part::Entry(entry) = first else { panic!("the entry comes first") };
    let mut content = Vec::new();
    while let Some(message) = soon("a piece comes", messages.message()).await? {
        let Some(read_file_response::Part::Data(data)) = message.part else { panic!("an entry comes once") };
        assert!(!data.is_empty() && data.len() <= PIECE);
        content.extend(data);
    }
    Ok((entry, content))
}

async fn read(session: &Session, path: &str) -> Result<Vec<u8>, Status> {
    let request = ReadFileRequest { path: path.to_owned(), ..Default::default() };
    Ok(read_as(session, request).await?.1)
}

async fn stat(session: &Session, path: &str) -> Result<FileEntry, Status> {
    let request = StatFileRequest { bot_id: session.bot.clone(), path: path.to_owned(), ..Default::default() };
    Ok(soon("a file is described", session.sandboxes().stat_file(request)).await?.into_inner().entry.unwrap())
}

async fn list(session: &Session, request: ListDirectoryRequest) -> Result<ListDirectoryResponse, Status> {
    let request = ListDirectoryRequest { bot_id: session.bot.clone(), ..request };
    Ok(soon("a directory is listed", session.sandboxes().list_directory(request)).await?.into_inner())
}

async fn names(session: &Session, path: &str) -> Vec<String> {
    let request = ListDirectoryRequest { path: path.to_owned(), page_size: 1000, ..Default::default() };
    list(session, request).await.unwrap().entries.into_iter().map(|entry| entry.name).collect()
}

async fn remove(session: &Session, path: &str, recursive: bool) -> Result<(), Status> {
    let request =
        RemoveFileRequest { bot_id: session.bot.clone(), path: path.to_owned(), recursive, ..Default::default() };
    soon("a file is removed", session.sandboxes().remove_file(request)).await.map(drop)
}

/// Checks the code and the reason of a refusal, and that the message names the path.
#[track_caller]
fn reason<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: &str) {
    let status = result.unwrap_err();
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    assert_eq!((status.code(), info.reason.as_str(), info.domain.as_str()), (code, reason, "errand"), "{status:?}");
    assert!(status.message().contains('/') || status.message().contains('"'), "{}", status.message());
}

#[track_caller]
fn field<T: std::fmt::Debug>(result: Result<T, Status>, field: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let violations = status.get_details_bad_request().expect("the violations are listed").field_violations;
    assert!(violations.iter().any(|violation| violation.field == field), "{field}: {violations:?}");
}

async fn sandbox(server: &Server) -> Session {
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    session
}

/// 1 MiB of content that differs for each number.
fn block(number: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number + 1);
    let mut block = Vec::with_capacity(1 << 20);
    while block.len() < 1 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    block
}

async fn large_file_is_read_back_unchanged(image: Image) {
    use write_file_request::Part;
    const BLOCKS: u64 = 100;
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    let mut sent = Sha256::new();
    (0..BLOCKS).for_each(|number| sent.update(block(number)));
    let sent = hex::encode(sent.finalize());

    let data = stream::iter(0..BLOCKS).flat_map(|number| {
        let pieces: Vec<_> = block(number).chunks(PIECE).map(<[u8]>::to_vec).collect();
        stream::iter(pieces).map(|piece| message(Part::Data(piece.into())))
    });
    let head = head(&session, "/workspace/large");
    let messages = stream::iter([message(Part::Head(head))])
        .chain(data)
        .chain(stream::iter([message(Part::End(WriteFileEnd {}))]));
    let written = soon("a large file is written", session.sandboxes().write_file(messages)).await.unwrap();
    let size = i64::try_from(BLOCKS << 20).unwrap();
    assert_eq!(written.into_inner().entry.unwrap().size_bytes, size);
    assert!(session.exec("sha256sum /workspace/large").await.starts_with(&sent));

    let request =
        ReadFileRequest { bot_id: session.bot.clone(), path: "/workspace/large".to_owned(), ..Default::default() };
    let mut messages = session.sandboxes().read_file(request).await.unwrap().into_inner();
    let (mut came, mut bytes) = (Sha256::new(), 0);
    while let Some(message) = soon("a piece comes", messages.message()).await.unwrap() {
        if let Some(read_file_response::Part::Data(data)) = message.part {
            bytes += i64::try_from(data.len()).unwrap();
            came.update(data);
        }
    }
    assert_eq!((bytes, hex::encode(came.finalize())), (size, sent));
}

async fn interrupted_write_keeps_the_old_file(image: Image) {
    use write_file_request::Part;
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    let path = "/workspace/d/file";
    let parents = WriteFileHead { make_parents: true, ..head(&session, path) };
    write_as(&session, parents, b"old").await.unwrap();
    let begin = || [message(Part::Head(head(&session, path))), message(Part::Data(block(1).into()))];
    let untouched = async |what: &str| {
        eventually(what, async || (names(&session, "/workspace/d").await == ["file"]).then_some(())).await;
        assert!(read(&session, path).await.unwrap() == b"old", "{what}");
    };

    // The client cancels the write between two messages, several times: to the server, that can look like the end of the stream.
    for _ in 0..10 {
        let mut sandboxes = session.sandboxes();
        let call = sandboxes.write_file(stream::iter(begin()).chain(stream::pending()));
        let cut = tokio::time::timeout(Duration::from_millis(300), call).await;
        assert!(cut.is_err(), "it waits for the rest: {cut:?}");
    }
    untouched("cancelled").await;
    // The client ends its stream without the message that marks the end.
    field(session.sandboxes().write_file(stream::iter(begin())).await, "end");
    untouched("without an end").await;
    // The client sends a second head.
    let again = stream::iter(begin()).chain(stream::iter(begin()));
    field(session.sandboxes().write_file(again).await, "head");
    untouched("with two heads").await;
    field(session.sandboxes().write_file(stream::iter(begin().into_iter().skip(1))).await, "head");
    let nothing = stream::iter(begin()).chain(stream::iter([WriteFileRequest { part: None }]));
    field(session.sandboxes().write_file(nothing).await, "part");
    untouched("without a part").await;

    // The server is killed.
    let mut server = server;
    let mut sandboxes = session.sandboxes();
    let messages = stream::iter(begin()).chain(stream::pending());
    let call = tokio::spawn(async move { sandboxes.write_file(messages).await.map(drop) });
    eventually("the write has begun", async || (names(&session, "/workspace/d").await.len() == 2).then_some(())).await;
    server.restart().await;
    assert!(soon("the call ends", call).await.unwrap().is_err());
    untouched("the server was killed").await;
}

async fn a_part_of_a_file_is_read(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    let name = "/tmp/a\n b'\"$(x) ü";
    let entry = write_as(&session, WriteFileHead { mode: 0o600, ..head(&session, name) }, b"0123456789").await.unwrap();
    assert_eq!((entry.name.as_str(), entry.size_bytes, entry.mode), (&name[5..], 10, 0o600));
    assert!(!entry.name_is_inexact && entry.modified_at.is_some() && entry.kind() == FileKind::File);
    for (offset, limit, expected) in
        [(0, 0, "0123456789"), (3, 4, "3456"), (8, 100, "89"), (10, 1, ""), (i64::MAX, 0, "")]
    {
        let request = ReadFileRequest { path: name.to_owned(), offset, limit, ..Default::default() };
        let (entry, content) = read_as(&session, request).await.unwrap();
        assert_eq!((entry.size_bytes, content.as_slice()), (10, expected.as_bytes()), "{offset} {limit}");
    }
    // A reader that stops in the middle blocks no other call.
    write(&session, "/tmp/large", &block(7).repeat(4)).await.unwrap();
    let request = ReadFileRequest { bot_id: session.bot.clone(), path: "/tmp/large".to_owned(), ..Default::default() };
    let mut slow = session.sandboxes().read_file(request).await.unwrap().into_inner();
    slow.message().await.unwrap();
    assert_eq!(read(&session, name).await.unwrap(), b"0123456789");
    drop(slow);
}

async fn file_errors_have_code_and_reason(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    session.ensure(Some(SandboxSpec { user: "1234:5678".to_owned(), ..Default::default() })).await.unwrap();
    write(&session, "/tmp/file", b"x").await.unwrap();
    assert_eq!(stat(&session, "/tmp/file").await.unwrap().uid, 1234);
    session
        .exec("mkdir -p /tmp/full/x; ln -s /tmp/loop /tmp/loop; : >/tmp/shut; mkdir -m 0 /tmp/dark; chmod 0 /tmp/shut")
        .await;
    let failed = Code::FailedPrecondition;
    reason(read(&session, "/tmp").await, failed, "IS_A_DIRECTORY");
    reason(write(&session, "/tmp", b"").await, failed, "IS_A_DIRECTORY");
    reason(read(&session, "/tmp/file/x").await, failed, "NOT_A_DIRECTORY");
    reason(read(&session, "/dev/null").await, failed, "NOT_A_FILE");
    reason(read(&session, "/tmp/loop").await, failed, "TOO_MANY_LINKS");
    reason(remove(&session, "/tmp/full", false).await, failed, "NOT_EMPTY");
    reason(stat(&session, "/tmp/none").await, Code::NotFound, "NOT_FOUND");
    reason(read(&session, "/tmp/none/x").await, Code::NotFound, "NOT_FOUND");
    reason(read(&session, "/tmp/shut").await, Code::PermissionDenied, "NOT_PERMITTED");
    reason(read(&session, "/tmp/dark/x").await, Code::PermissionDenied, "NOT_PERMITTED");
    reason(names_of(&session, "/tmp/dark").await, Code::PermissionDenied, "NOT_PERMITTED");
    reason(read(&session, "/proc/kmsg").await, Code::PermissionDenied, "NOT_PERMITTED");
    // No user may write there.
    let read_only = write(&session, "/etc/file", b"").await;
    assert!(read_only.as_ref().unwrap_err().message().contains("Read-only"), "{read_only:?}");
    reason(read_only, Code::PermissionDenied, "NOT_PERMITTED");
    reason(remove(&session, "/etc/passwd", false).await, Code::PermissionDenied, "NOT_PERMITTED");
    let new = WriteFileHead { must_not_exist: true, ..head(&session, "/tmp/file") };
    reason(write_as(&session, new, b"").await, Code::AlreadyExists, "ALREADY_EXISTS");
    let long = format!("/tmp/{}", "x".repeat(256));
    reason(read(&session, &long).await, Code::InvalidArgument, "INVALID_PATH");

    field(read(&session, "relative").await, "path");
    field(read(&session, "").await, "path");
    field(read(&session, "/a\0").await, "path");
    field(write(&session, "relative", b"").await, "head.path");
    field(write_as(&session, WriteFileHead { mode: 0o10000, ..head(&session, "/tmp/m") }, b"").await, "head.mode");
    let request = |offset, limit| ReadFileRequest { path: "/tmp/file".to_owned(), offset, limit, ..Default::default() };
    field(read_as(&session, request(-1, 0)).await, "offset");
    field(read_as(&session, request(0, -1)).await, "limit");
    let page = ListDirectoryRequest { path: "/tmp".to_owned(), page_size: 1001, ..Default::default() };
    field(list(&session, page).await, "page_size");
    let page = ListDirectoryRequest { path: "/tmp".to_owned(), page_token: "?".to_owned(), ..Default::default() };
    field(list(&session, page).await, "page_token");
}

async fn names_of(session: &Session, path: &str) -> Result<ListDirectoryResponse, Status> {
    list(session, ListDirectoryRequest { path: path.to_owned(), ..Default::default() }).await
}

async fn paths_never_leave_the_root(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    session
        .exec(
            "cd /workspace && mkdir -p root/d beside && printf secret >beside/secret && printf in >root/f && cd root &&
        ln -s ../beside out && ln -s /etc/passwd absolute && ln -s ../f d/back && ln -s ../beside/new fresh",
        )
        .await;
    let root = "/workspace/root".to_owned();
    let request = |path: &str| ReadFileRequest { path: path.to_owned(), root: root.clone(), ..Default::default() };
    let (bot_id, failed) = (session.bot.clone(), Code::FailedPrecondition);
    assert_eq!(read_as(&session, request("d/back")).await.unwrap().1, b"in");
    for out in ["out/secret", "absolute", "../beside/secret", "d/../../beside/secret", "..", "fresh"] {
        reason(read_as(&session, request(out)).await, failed, "OUTSIDE_ROOT");
        if out != ".." {
            let head = WriteFileHead { root: root.clone(), ..head(&session, out) };
            reason(write_as(&session, head, b"x").await, failed, "OUTSIDE_ROOT");
        }
        let stat = StatFileRequest { bot_id: bot_id.clone(), path: out.to_owned(), root: root.clone(), follow: true };
        reason(session.sandboxes().stat_file(stat).await, failed, "OUTSIDE_ROOT");
    }
    let out = |recursive| RemoveFileRequest {
        bot_id: bot_id.clone(),
        path: "out/secret".to_owned(),
        root: root.clone(),
        recursive,
    };
    reason(session.sandboxes().remove_file(out(true)).await, failed, "OUTSIDE_ROOT");
    let listing = ListDirectoryRequest { path: "out".to_owned(), root: root.clone(), ..Default::default() };
    reason(list(&session, listing).await, failed, "OUTSIDE_ROOT");
    field(read_as(&session, request("/f")).await, "path");
    let relative = ReadFileRequest { path: "f".to_owned(), root: "root".to_owned(), ..Default::default() };
    field(read_as(&session, relative).await, "root");
    assert_eq!(session.exec("cat /workspace/beside/*").await, "secret");
}

async fn a_directory_comes_in_pages(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    session
        .exec("mkdir /tmp/many && cd /tmp/many && for i in $(seq 1 4999); do : >f$i; done; : >\"$(printf 'a\\377')\"")
        .await;
    let request = |page_token| ListDirectoryRequest {
        path: "/tmp/many".to_owned(),
        page_size: 999,
        page_token,
        ..Default::default()
    };
    let (mut entries, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = list(&session, request(page_token)).await.unwrap();
        assert!(page.entries.len() <= 999);
        entries.extend(page.entries);
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((pages, entries.len()), (6, 5000));
    assert_eq!((entries[0].name.as_str(), entries[0].name_is_inexact), ("a\u{FFFD}", true));
    assert!(entries.windows(2).all(|pair| pair[0].name < pair[1].name || pair[0].name_is_inexact));
    let first = list(&session, ListDirectoryRequest { page_size: 0, ..request(String::new()) }).await.unwrap();
    assert_eq!(first.entries.len(), 50);
    session.exec("mkdir /tmp/none").await;
    let none = names_of(&session, "/tmp/none").await.unwrap();
    assert!(none.entries.is_empty() && none.next_page_token.is_empty());
}

async fn a_removal_follows_no_link(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    session.exec("cd /workspace && mkdir -p tree/a/b keep && : >keep/file && : >tree/a/f && ln -s /workspace/keep tree/a/b/l && ln -s keep l").await;
    remove(&session, "/workspace/tree", true).await.unwrap();
    remove(&session, "/workspace/l", true).await.unwrap();
    assert_eq!(session.exec("cd /workspace && find . | sort").await, ".\n./keep\n./keep/file\n");
    reason(remove(&session, "/workspace/tree", true).await, Code::NotFound, "NOT_FOUND");
}

async fn a_full_disk_keeps_the_old_file(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let Some(docker) = server.ground.docker() else { return };
    let container = docker::container(&docker, image, |body| {
        let tmpfs = HashMap::from([("/small".to_owned(), "size=1m,mode=1777".to_owned())]);
        body.host_config = Some(HostConfig { tmpfs: Some(tmpfs), ..docker::host_config() });
    })
    .await;
    let session = server.session("bot", "session");
    session.adopt(&container.name).await.unwrap();
    write(&session, "/small/file", b"old").await.unwrap();
    // Much more than fits: the server answers before all of it was sent.
    let large = block(3).repeat(8);
    reason(write(&session, "/small/file", &large).await, Code::ResourceExhausted, "NO_SPACE");
    assert_eq!(
        (read(&session, "/small/file").await.unwrap(), names(&session, "/small").await),
        (b"old".to_vec(), vec!["file".to_owned()])
    );
    reason(remove(&session, "/small", true).await, Code::FailedPrecondition, "BUSY");
}

async fn files_need_a_running_sandbox(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    assert_eq!(read(&session, "/etc/hosts").await.unwrap_err().code(), Code::NotFound);
    session.ensure(None).await.unwrap();
    write(&session, "/workspace/file", b"kept").await.unwrap();
    let request = StopSandboxRequest { bot_id: session.bot.clone() };
    session.sandboxes().stop_sandbox(request).await.unwrap();
    let codes = [
        read(&session, "/workspace/file").await.unwrap_err(),
        write(&session, "/workspace/file", b"").await.unwrap_err(),
        stat(&session, "/workspace/file").await.unwrap_err(),
        names_of(&session, "/workspace").await.unwrap_err(),
        remove(&session, "/workspace/file", false).await.unwrap_err(),
    ];
    for status in codes {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert!(status.message().contains("not running"), "{}", status.message());
    }
    session.ensure(None).await.unwrap();
    assert_eq!(read(&session, "/workspace/file").await.unwrap(), b"kept");
}

#[tokio::test]
async fn stuck_file_writes_block_no_other_call() {
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let session = sandbox(&server).await;
    let bridge = "$(grep -lx errand-bridge /proc/[0-9]*/comm | cut -d/ -f3)";
    session.exec(&format!("kill -STOP {bridge}")).await;
    let content = block(3);
    let mut written: Vec<_> = (0..16)
        .map(|number| {
            let (session, content) = (session.clone(), content.repeat(2));
            tokio::spawn(async move { write(&session, &format!("/workspace/{number}"), &content).await })
        })
        .collect();
    // Sooner than the server gives up on the silent bridge and on the calls that wait for it.
    let answers = async {
        for _ in 0..500 {
            session.told().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), answers).await.expect("other calls are answered");
    assert!(written.iter_mut().all(|write| !write.is_finished()));
    session.exec(&format!("kill -CONT {bridge}")).await;
    for write in written {
        assert_eq!(write.await.unwrap().unwrap().size_bytes, 2 << 20);
    }
}

async fn the_command_line_copies_lists_and_removes(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    let local = |name: &str| server.directory().join(name).display().to_string();
    let remote = |path: &str| format!("{}:{path}", session.bot);
    let content = block(5);
    std::fs::write(local("from"), &content).unwrap();
    let url = server.url();
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_errand")).args(["--server", &url, "files"]).args(words).output();
        let output = output.unwrap();
        (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let silent = (Some(0), Vec::new(), String::new());
    assert_eq!(run(&["cp", "-p", "--mode", "750", &local("from"), &remote("/workspace/a/")]), silent);
    assert_eq!(session.exec("stat -c '%a %s' /workspace/a/from").await, "750 1048576\n");
    assert_eq!(run(&["cp", &remote("/workspace/a/from"), &local("to")]), silent);
    assert!(std::fs::read(local("to")).unwrap() == content);
    let printed = run(&["cp", &remote("/workspace/a/from"), "-"]);
    assert!(printed.0 == Some(0) && printed.1 == content, "{}", printed.2);
    let listed = run(&["ls", &remote("/workspace/a")]);
    let shown = String::from_utf8(listed.1).unwrap();
    assert!(
        shown.lines().nth(1).is_some_and(|line| line.starts_with("-rwxr-x---") && line.ends_with("from")),
        "{shown}"
    );
    let described = run(&["--json", "stat", &remote("/workspace")]);
    let json: serde_json::Value = serde_json::from_slice(&described.1).unwrap();
    assert_eq!((json["kind"].as_str(), json["name"].as_str()), (Some("FILE_KIND_DIRECTORY"), Some("workspace")));
    let refused = run(&["rm", &remote("/workspace/a")]);
    assert_eq!((refused.0, refused.2.contains("not empty")), (Some(1), true), "{}", refused.2);
    assert_eq!(run(&["rm", "-r", &remote("/workspace/a")]), silent);
    let gone = run(&["cp", &remote("/workspace/a/from"), &local("other")]);
    assert_eq!((gone.0, gone.2.contains("no such file")), (Some(1), true), "{}", gone.2);
    let left: Vec<_> = std::fs::read_dir(server.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name == "other" || name.to_string_lossy().ends_with(".part")), "{left:?}");
    let missing = run(&["cp", &local("none"), &remote("/workspace/x")]);
    assert_eq!((missing.0, missing.2.contains("No such file")), (Some(1), true), "{}", missing.2);
    assert_eq!(run(&["cp", &local("a"), &local("b")]).0, Some(64));
    assert_eq!(run(&["cp", "-n", &local("from"), &remote("/workspace/once")]), silent);
    assert_eq!(run(&["cp", "-n", &local("from"), &remote("/workspace/once")]).0, Some(1));
}
