//! Directories of a sandbox: made, renamed, copied as archives and watched, through the API and from the command line.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use errand_proto::v1::*;
use futures_util::stream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::{
    on_both_images,
    support::{
        client::Session,
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(
    directories_are_made_and_renamed,
    tree_is_read_and_written_as_archive,
    interrupted_archive_changes_nothing,
    changes_in_a_sandbox_are_streamed,
    directory_that_appears_is_told_whole_and_stays_watched,
    watches_are_limited_and_end_with_the_sandbox,
    the_command_line_copies_and_watches_directories,
);

async fn sandbox(server: &Server) -> Session {
    let session = server.session("bot", "session");
    session.ensure(None).await.unwrap();
    session
}

#[track_caller]
fn reason<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: &str) {
    let status = result.unwrap_err();
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{status:?}");
}

async fn make(session: &Session, path: &str, make_parents: bool) -> Result<FileEntry, Status> {
    let (bot_id, path) = (session.bot.clone(), path.to_owned());
    let request = MakeDirectoryRequest { bot_id, path, make_parents, ..Default::default() };
    Ok(soon("a directory is made", session.sandboxes().make_directory(request)).await?.into_inner().entry.unwrap())
}

async fn rename(session: &Session, from: &str, to: &str) -> Result<FileEntry, Status> {
    let (bot_id, path, new_path) = (session.bot.clone(), from.to_owned(), to.to_owned());
    let request = RenameFileRequest { bot_id, path, new_path, ..Default::default() };
    Ok(soon("a file is renamed", session.sandboxes().rename_file(request)).await?.into_inner().entry.unwrap())
}

pub(super) async fn read_tree(session: &Session, path: &str) -> Result<Vec<u8>, Status> {
    let request = ReadTreeRequest { bot_id: session.bot.clone(), path: path.to_owned(), ..Default::default() };
    let mut messages = soon("a tree opens", session.sandboxes().read_tree(request)).await?.into_inner();
    let first = soon("the entry comes", messages.message()).await?.unwrap().part.unwrap();
    assert!(matches!(first, read_tree_response::Part::Entry(_)));
    let mut archive = Vec::new();
    while let Some(message) = soon("a piece comes", messages.message()).await? {
        let Some(read_tree_response::Part::Data(data)) = message.part else { panic!("an entry comes once") };
        archive.extend(data);
    }
    Ok(archive)
}

async fn write_tree(
    session: &Session,
    head: WriteTreeHead,
    archive: &[u8],
    ended: bool,
) -> Result<WriteTreeResponse, Status> {
    use write_tree_request::Part;
    let head = WriteTreeHead { bot_id: session.bot.clone(), ..head };
    let pieces = archive.chunks(100_000).map(|piece| Part::Data(piece.to_vec().into()));
    let end = ended.then_some(Part::End(WriteTreeEnd {}));
    let parts: Vec<_> = std::iter::once(Part::Head(head)).chain(pieces).chain(end).collect();
    let messages = stream::iter(parts.into_iter().map(|part| WriteTreeRequest { part: Some(part) }));
    Ok(soon("a tree is written", session.sandboxes().write_tree(messages)).await?.into_inner())
}

fn at(path: &str) -> WriteTreeHead {
    WriteTreeHead { path: path.to_owned(), ..Default::default() }
}

/// The files of an archive, with their content.
fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(Result::unwrap).filter(|entry| entry.header().entry_type().is_file());
    entries
        .map(|mut entry| {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        })
        .collect()
}

async fn read_file(session: &Session, path: &str) -> Vec<u8> {
    let request = ReadFileRequest { bot_id: session.bot.clone(), path: path.to_owned(), ..Default::default() };
    let mut messages = soon("a file opens", session.sandboxes().read_file(request)).await.unwrap().into_inner();
    let mut content = Vec::new();
    while let Some(message) = soon("a piece comes", messages.message()).await.unwrap() {
        if let Some(read_file_response::Part::Data(data)) = message.part {
            content.extend(data);
        }
    }
    content
}

async fn directories_are_made_and_renamed(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    assert_eq!(make(&session, "/workspace/a/b", true).await.unwrap().kind(), FileKind::Directory);
    reason(make(&session, "/workspace/a", false).await, Code::AlreadyExists, "ALREADY_EXISTS");
    reason(make(&session, "/workspace/x/y", false).await, Code::NotFound, "NOT_FOUND");
    session.exec("echo content > /workspace/a/b/file").await;
    assert_eq!(rename(&session, "/workspace/a", "/workspace/z").await.unwrap().name, "z");
    assert_eq!(session.exec("cat /workspace/z/b/file").await, "content\n");
    reason(rename(&session, "/workspace/a", "/workspace/b").await, Code::NotFound, "NOT_FOUND");
    // Another file system of every sandbox.
    let other = rename(&session, "/workspace/z/b/file", "/dev/shm/file").await;
    reason(other, Code::FailedPrecondition, "OTHER_FILE_SYSTEM");
    let relative = rename(&session, "/workspace/z", "y").await.unwrap_err();
    assert_eq!(relative.code(), Code::InvalidArgument);
}

async fn tree_is_read_and_written_as_archive(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    session
        .exec("mkdir -p /workspace/t/empty /workspace/t/d && cd /workspace/t && echo one > d/one && ln -s ../d/one d/link &&
            head -c 3000000 /dev/zero > large && mkfifo pipe && chmod 750 d")
        .await;
    let archive = read_tree(&session, "/workspace/t").await.unwrap();
    let found = files(&archive);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["d/one", "large"]);
    assert_eq!((found["d/one"].as_slice(), found["large"].len()), (&b"one\n"[..], 3_000_000));
    let written = write_tree(&session, at("/workspace/copy"), &archive, true).await.unwrap();
    assert_eq!((written.unpacked, written.left_out), (5, 0));
    assert_eq!(
        session.exec("cd /workspace/copy && cat d/link && stat -c %a d && ls").await,
        "one\n750\nd\nempty\nlarge\n"
    );
    let exists = write_tree(&session, at("/workspace/copy"), &archive, true).await;
    reason(exists, Code::AlreadyExists, "ALREADY_EXISTS");
    session.exec("echo changed > /workspace/copy/d/one; echo mine > /workspace/copy/mine").await;
    let merged = WriteTreeHead { merge: true, ..at("/workspace/copy") };
    write_tree(&session, merged, &archive, true).await.unwrap();
    assert_eq!(session.exec("cd /workspace/copy && cat d/one mine").await, "one\nmine\n");
    // What the sandbox's own tar writes is read too.
    session.exec("tar -C /workspace/copy -cf /tmp/own.tar .").await;
    let own = read_file(&session, "/tmp/own.tar").await;
    let written = write_tree(&session, at("/workspace/own"), &own, true).await.unwrap();
    assert_eq!((written.unpacked, written.left_out), (6, 0));
    assert_eq!(session.exec("cd /workspace/own && cat d/link mine && stat -c %s large").await, "one\nmine\n3000000\n");
    reason(read_tree(&session, "/workspace/copy/mine").await, Code::FailedPrecondition, "NOT_A_DIRECTORY");
    reason(read_tree(&session, "/workspace/none").await, Code::NotFound, "NOT_FOUND");
}

async fn interrupted_archive_changes_nothing(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    session.exec("mkdir /workspace/t && head -c 500000 /dev/zero > /workspace/t/file").await;
    let archive = read_tree(&session, "/workspace/t").await.unwrap();
    let unended = write_tree(&session, at("/workspace/new"), &archive, false).await.unwrap_err();
    assert_eq!(unended.code(), Code::InvalidArgument, "{unended:?}");
    for broken in [&archive[..archive.len() / 2], b"not an archive".as_slice(), b""] {
        let refused = write_tree(&session, at("/workspace/new"), broken, true).await;
        reason(refused, Code::InvalidArgument, "INVALID_ARCHIVE");
    }
    let outside = {
        let mut head = tar::Header::new_gnu();
        head.set_size(1);
        head.set_mode(0o644);
        head.as_gnu_mut().unwrap().name[..6].copy_from_slice(b"../out");
        head.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&head, &b"x"[..]).unwrap();
        builder.into_inner().unwrap()
    };
    reason(write_tree(&session, at("/workspace/new"), &outside, true).await, Code::InvalidArgument, "INVALID_ARCHIVE");
    // The unpacked part is removed in the background.
    eventually("only the old directory is left", async || {
        (session.exec("ls -A /workspace").await == "t\n").then_some(())
    })
    .await;
}

async fn watch(session: &Session, path: &str, recursive: bool) -> Result<Streaming<WatchFilesResponse>, Status> {
    let (bot_id, path) = (session.bot.clone(), path.to_owned());
    let request = WatchFilesRequest { bot_id, path, recursive, ..Default::default() };
    let mut changes = soon("the watch begins", session.sandboxes().watch_files(request)).await?.into_inner();
    let first = soon("the first response comes", changes.message()).await?.unwrap();
    assert_eq!(first.change, None);
    Ok(changes)
}

/// Reads changes until one of this kind and path.
async fn until(changes: &mut Streaming<WatchFilesResponse>, kind: FileChangeKind, path: &str) -> FileChange {
    loop {
        let message = soon("a change comes", changes.message()).await.unwrap().unwrap();
        let change = message.change.unwrap();
        if change.kind() == kind && change.path == path {
            return change;
        }
    }
}

async fn changes_in_a_sandbox_are_streamed(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    let mut changes = watch(&session, "/workspace", true).await.unwrap();
    session.exec("mkdir -p /workspace/src && echo x > /workspace/src/main").await;
    until(&mut changes, FileChangeKind::Created, "src/main").await;
    session.exec("echo y >> /workspace/src/main").await;
    until(&mut changes, FileChangeKind::Modified, "src/main").await;
    session.exec("mv /workspace/src /workspace/lib").await;
    let renamed = until(&mut changes, FileChangeKind::Renamed, "lib").await;
    assert_eq!((renamed.old_path.as_str(), renamed.is_directory), ("src", true));
    session.exec("rm -r /workspace/lib").await;
    until(&mut changes, FileChangeKind::Removed, "lib/main").await;
    until(&mut changes, FileChangeKind::Removed, "lib").await;
    reason(watch(&session, "/workspace/none", true).await.map(drop), Code::NotFound, "NOT_FOUND");
}

async fn directory_that_appears_is_told_whole_and_stays_watched(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    session.exec("mkdir -p /workspace/away/big /workspace/top/a && cd /workspace/away/big && for i in $(seq 700); do >f$i; done").await;
    let mut changes = watch(&session, "/workspace/top", true).await.unwrap();
    // More than one message between bridge and server holds.
    session.exec("mv /workspace/away/big /workspace/top/").await;
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 701 {
        let change = soon("a change comes", changes.message()).await.unwrap().unwrap().change.unwrap();
        assert_eq!(change.kind(), FileChangeKind::Created, "{change:?}");
        told.insert(change.path);
    }
    // Another directory takes the place of one that leaves.
    session.exec("cd /workspace/top && mv a ../away/ && mkdir a").await;
    until(&mut changes, FileChangeKind::Created, "a").await;
    session.exec("echo x > /workspace/top/a/file").await;
    until(&mut changes, FileChangeKind::Created, "a/file").await;
    session.exec("cd /workspace/top && mv a ../away/b && mv big a").await;
    until(&mut changes, FileChangeKind::Renamed, "a").await;
    session.exec("echo x > /workspace/top/a/other").await;
    until(&mut changes, FileChangeKind::Created, "a/other").await;
}

async fn watches_are_limited_and_end_with_the_sandbox(image: Image) {
    let Some(server) = Server::on(image, &["--max-subscriptions-per-bot", "1"]).await else { return };
    let session = sandbox(&server).await;
    let mut changes = watch(&session, "/workspace", false).await.unwrap();
    let second = watch(&session, "/workspace", false).await.map(drop).unwrap_err();
    assert_eq!(second.code(), Code::ResourceExhausted, "{second:?}");
    let bot_id = session.bot.clone();
    soon("the sandbox stops", session.sandboxes().stop_sandbox(StopSandboxRequest { bot_id })).await.unwrap();
    let ended = loop {
        match soon("the stream ends", changes.message()).await {
            Ok(message) => assert!(message.is_some(), "an end without an error"),
            Err(status) => break status,
        }
    };
    assert!(matches!(ended.code(), Code::Unavailable | Code::FailedPrecondition), "{ended:?}");
}

async fn the_command_line_copies_and_watches_directories(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = sandbox(&server).await;
    let local = |name: &str| server.directory().join(name).display().to_string();
    let remote = |path: &str| format!("{}:{path}", session.bot);
    std::fs::create_dir_all(local("from/d")).unwrap();
    std::fs::write(local("from/d/file"), "content").unwrap();
    std::os::unix::fs::symlink("d/file", local("from/link")).unwrap();
    let url = server.url();
    let command = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_errand"));
        command.args(["--server", &url, "files"]).args(words);
        command
    };
    let run = |words: &[&str]| {
        let output = command(words).output().unwrap();
        (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let silent = (Some(0), Vec::new(), String::new());
    assert_eq!(run(&["mkdir", "-p", &remote("/workspace/a/b")]), silent);
    assert_eq!(run(&["cp", "-r", &local("from"), &remote("/workspace/a/b/")]), silent);
    assert_eq!(session.exec("cat /workspace/a/b/from/link").await, "content");
    assert_eq!(run(&["mv", &remote("/workspace/a/b/from"), "/workspace/moved"]), silent);
    assert_eq!(run(&["cp", "-r", &remote("/workspace/moved"), &local("to")]), silent);
    assert_eq!(std::fs::read_to_string(local("to/link")).unwrap(), "content");
    let again = run(&["cp", "-r", &local("from"), &remote("/workspace/moved")]);
    assert_eq!((again.0, again.2.contains("already exists")), (Some(1), true), "{}", again.2);
    std::fs::write(local("from/d/file"), "newer").unwrap();
    assert_eq!(run(&["cp", "-r", "--merge", &local("from"), &remote("/workspace/moved")]), silent);
    assert_eq!(run(&["cp", "-r", "--merge", &remote("/workspace/moved"), &local("to")]), silent);
    assert_eq!(std::fs::read_to_string(local("to/d/file")).unwrap(), "newer");
    let archive = run(&["cp", "-r", &remote("/workspace/moved"), "-"]);
    assert_eq!(files(&archive.1)["d/file"], b"newer", "{}", archive.2);
    let missing = run(&["cp", "-r", &remote("/workspace/none"), &local("none")]);
    assert_eq!((missing.0, missing.2.contains("no such file")), (Some(1), true), "{}", missing.2);
    assert!(!std::path::Path::new(&local("none")).exists());
    assert_eq!(run(&["mv", &remote("/workspace/moved"), "other:/x"]).0, Some(64));

    let mut watching = command(&["watch", &remote("/workspace")]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let seen = std::thread::spawn(move || lines.map_while(Result::ok).find(|line| line == "created   ready"));
    eventually("the watch shows a new file", async || {
        session.exec("rm -f /workspace/ready; echo x > /workspace/ready").await;
        seen.is_finished().then_some(())
    })
    .await;
    assert!(seen.join().unwrap().is_some());
    watching.kill().unwrap();
    watching.wait().unwrap();
}
