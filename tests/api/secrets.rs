//! Secrets reach their command, and nothing else that a caller, a log or a database shows.

use std::fs;

use errand_proto::v1::{read_output_request::Selection, stream_output_response::Event, *};
use sha2::{Digest as _, Sha256};
use tonic::Code;

use super::tenants::{entry, server_with};
use crate::{
    on_both_images,
    support::{
        client::{Session, bytes, duration, ended, refused},
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(
    secret_reaches_its_command_and_no_text,
    secret_is_hidden_in_a_live_stream,
    stalls_and_matches_show_no_secret,
    secret_stays_in_no_file_of_the_sandbox,
);

/// A part of each value below, which stands in no other text.
const MARK: &str = "s3cr3t";

/// A value that no shell, protocol or log should change or show.
fn value(name: &str) -> String {
    format!("{MARK}-{name}'\"$HOME\\n%s\nsecond {MARK} line é")
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

pub fn with_secrets(request: StartTaskRequest, secrets: &[(&str, &str)]) -> StartTaskRequest {
    let secret_env = secrets.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    StartTaskRequest { secret_env, ..request }
}

/// Everything that the API shows about a task of a session, apart from its output.
async fn shown(session: &Session, task: &Task) -> String {
    let summary = SummarizeTasksRequest { bot_id: session.bot.clone(), ..Default::default() };
    let summary = session.tasks().summarize_tasks(summary).await.unwrap().into_inner();
    let watch = WatchTasksRequest { bot_id: session.bot.clone(), ..Default::default() };
    let mut watch = session.tasks().watch_tasks(watch).await.unwrap().into_inner();
    let mut snapshot = Vec::new();
    loop {
        let message = soon("a snapshot comes", watch.message()).await.unwrap().unwrap();
        let is_last = matches!(message.event, Some(watch_tasks_response::Event::SnapshotComplete(_)));
        snapshot.push(message);
        if is_last {
            break;
        }
    }
    let listed = session.listed(ListTasksRequest { bot_id: session.bot.clone(), ..Default::default() }).await;
    format!("{:?} {listed:?} {summary:?} {snapshot:?} {:?}", session.get(task).await, session.told().await)
}

/// The server's log and its database, also what was deleted in it and not overwritten yet.
pub fn kept(server: &Server) -> String {
    let mut kept = server.log();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let path = format!("{}{suffix}", server.database().display());
        kept.push_str(&String::from_utf8_lossy(&fs::read(path).unwrap_or_default()));
    }
    kept
}

/// Output as StreamOutput sends it, from an offset on.
async fn streamed(session: &Session, task: &Task, offset: i64) -> Vec<u8> {
    let request = StreamOutputRequest { task_id: task.task_id.clone(), offset, ..Default::default() };
    let mut stream = session.tasks().stream_output(request).await.unwrap().into_inner();
    let (mut all, mut position) = (Vec::new(), offset);
    while let Some(message) = soon("more of a stream comes", stream.message()).await.unwrap() {
        if let Some(Event::Output(part)) = message.event {
            assert_eq!(part.offset, position);
            position = part.next_offset;
            all.extend(bytes(&part));
        }
    }
    all
}

async fn range(session: &Session, task: &Task, offset: i64, limit: i64) -> Vec<u8> {
    let selection = Some(Selection::Range(OutputRange { offset, limit }));
    let request = ReadOutputRequest { task_id: task.task_id.clone(), selection, ..Default::default() };
    let read = session.try_read(request).await.unwrap();
    read.parts.iter().flat_map(bytes).collect()
}

/// Starts a command that has a secret, holds it, and prints it, on a server that logs everything.
pub async fn secret_is_shown_nowhere(server: &Server, session: &Session) {
    let (key, token) = (value("key"), format!("{MARK}-token"));
    let go = "until [ -e /workspace/go ]; do sleep 0.1; done";
    let command = format!(
        "printf %s \"$API_KEY\" | sha256sum | head -c 64; echo; echo \"held {token}\"; printf 'got <%s>\\n' \"$API_KEY\"; \
         printf %s \"$TOKEN\" | base64; echo \"x$PLAIN\"; {go}; exit 3"
    );
    let request = StartTaskRequest {
        description: format!("uses {token}"),
        labels: [("token".to_owned(), token.clone())].into(),
        env: [("PLAIN".to_owned(), format!("plain {token}"))].into(),
        ..with_secrets(session.request(&command), &[("API_KEY", &key), ("TOKEN", &token)])
    };
    let started = session.try_start(request.clone()).await.unwrap();
    let task = started.task.clone().unwrap();
    assert_eq!(task.secret_env_names, ["API_KEY", "TOKEN"]);
    assert!(task.command.contains("held [masked]") && task.command.ends_with("exit 3"), "{}", task.command);
    assert_eq!((task.description.as_str(), task.labels["token"].as_str()), ("uses [masked]", "[masked]"));
    session.until_output(&task, "xplain").await;
    let running = shown(session, &task).await;
    session.exec("touch /workspace/go").await;
    let task = session.finished(&task).await;
    assert_eq!(ended(&task), "exited 3");
    let stopped = session.start_as(with_secrets(session.request("sleep 600"), &[("TOKEN", &token)])).await;
    let reason = format!("it used {token}");
    let stop = StopTaskRequest { task_id: stopped.task_id.clone(), reason, ..Default::default() };
    let stopped = session.tasks().stop_task(stop).await.unwrap().into_inner().task.unwrap();
    assert!(format!("{stopped:?}").contains("it used [masked]"), "{stopped:?}");
    let program = format!("/bin/{token}");
    let missing = session.run_as(with_secrets(session.argv(&[&program]), &[("TOKEN", &token)])).await;
    assert_eq!(ended(&missing), "failed_to_start NOT_FOUND");

    let output = session.output(&task).await;
    let text = String::from_utf8_lossy(&output).into_owned();
    assert!(text.starts_with(&hash(&key)), "the command had its secret: {text}");
    let stars = "*".repeat(token.len());
    assert!(text.contains(&format!("held {stars}\n")) && text.ends_with(&format!("xplain {stars}\n")), "{text}");
    assert!(text.contains(&format!("got <{}>", "*".repeat(key.len()))), "{text}");
    assert_eq!(i64::try_from(output.len()).unwrap(), task.output_bytes, "positions stay what they were");
    assert_eq!(streamed(session, &task, 0).await, output);
    for offset in [70, 75, 80, 100, 140] {
        let from = usize::try_from(offset).unwrap();
        assert_eq!(streamed(session, &task, offset).await, output[from..]);
        assert_eq!(range(session, &task, offset, 7).await, output[from..from + 7]);
    }
    let ended = shown(session, &task).await;
    let encoded = "czNjcjN0";
    for (what, text) in [
        ("the answer", format!("{started:?} {stopped:?} {missing:?}")),
        ("what is shown of a running task", running),
        ("what is shown of a finished task", ended),
        ("the output", text),
        ("what the server keeps", kept(server)),
        ("the request's debug text", format!("{request:?}")),
    ] {
        for secret in [MARK, encoded] {
            let at = text.find(secret).map(|at| text[at.saturating_sub(200)..].chars().take(400).collect::<String>());
            assert_eq!(at, None, "{what} shows the secret");
        }
    }
}

async fn secret_reaches_its_command_and_no_text(image: Image) {
    let Some(server) = Server::on(image, &["--log-level", "trace"]).await else { return };
    secret_is_shown_nowhere(&server, &server.session("bot", "session")).await;
}

/// Runs a command that has a secret and does not print it. Neither a command line nor a file of the sandbox shows it.
pub async fn secret_is_left_nowhere(session: &Session) {
    let key = value("held");
    let command = "cat /proc/[0-9]*/cmdline >/workspace/seen; printf %s \"$API_KEY\" | sha256sum | head -c 64";
    let task = session.run_as(with_secrets(session.request(command), &[("API_KEY", &key), ("i", "other value")])).await;
    assert_eq!(session.text(&task).await, hash(&key));
    let left = session.exec("cat /workspace/seen; cd /; cat $(find /tmp /workspace -type f) | tr '\\0' '\\n'").await;
    assert!(left.contains("sha256sum"), "the command lines were seen");
    assert_eq!(left.lines().filter(|line| line.contains(MARK)).collect::<Vec<_>>(), Vec::<&str>::new());
}

async fn secret_stays_in_no_file_of_the_sandbox(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    secret_is_left_nowhere(&server.session("bot", "session")).await;
}

async fn secret_is_hidden_in_a_live_stream(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let gate = |name: &str| format!("until [ -e /workspace/{name} ]; do sleep 0.1; done");
    let command = format!(
        "printf 'begin\\nkey hunter2-'; {}; printf 'abcdef rest\\n'; {}; printf 'hunter2-abcdef'; printf '\\nend\\n'",
        gate("1"),
        gate("2")
    );
    let task = session.start_as(with_secrets(session.request(&command), &[("KEY", "hunter2-abcdef")])).await;
    let request = StreamOutputRequest { task_id: task.task_id.clone(), ..Default::default() };
    let mut stream = session.tasks().stream_output(request).await.unwrap().into_inner();
    let mut seen = Vec::new();
    let mut more = async |seen: &mut Vec<u8>, wanted: &[u8]| {
        while seen.as_slice() != wanted {
            assert!(wanted.starts_with(seen), "{}", String::from_utf8_lossy(seen));
            let message = soon("output comes while the command waits", stream.message()).await.unwrap().unwrap();
            match message.event {
                Some(Event::Output(part)) => seen.extend(bytes(&part)),
                other => panic!("{other:?} after {}", String::from_utf8_lossy(seen)),
            }
        }
    };
    // The beginning of the value is held back for a moment only, and then hidden.
    more(&mut seen, b"begin\nkey ********").await;
    assert_eq!(session.get(&task).await.output_preview, "begin\nkey ********");
    session.exec("touch /workspace/1").await;
    more(&mut seen, b"begin\nkey ************** rest\n").await;
    session.exec("touch /workspace/2").await;
    more(&mut seen, b"begin\nkey ************** rest\n**************\nend\n").await;
    session.finished(&task).await;
    assert_eq!(session.output(&task).await, seen);
}

async fn stalls_and_matches_show_no_secret(image: Image) {
    // Readers may see the values, and texts are masked all the same.
    let flags = ["--mask-reads", "off", "--stall-after", "2s", "--stall-check-interval", "1s"];
    let Some(server) = Server::on(image, &flags).await else { return };
    let session = server.session("bot", "session");
    let command = "[ -e /workspace/f ] || mkfifo /workspace/f; printf 'login with hunter2-abcdef, password: '; read -r x </workspace/f";
    let task = session.start_as(with_secrets(session.request(command), &[("KEY", "hunter2-abcdef")])).await;
    let pattern = OutputPattern { offset: 0, kind: Some(output_pattern::Kind::Substring("password".to_owned())) };
    let wait = WaitTaskRequest {
        task_id: task.task_id.clone(),
        timeout: duration(40.0),
        until_match: Some(pattern),
        ..Default::default()
    };
    let found = soon("output matches", session.tasks().wait_task(wait)).await.unwrap().into_inner();
    assert_eq!(found.output_match.unwrap().line, "login with [masked], password:");
    let wait = WaitTaskRequest {
        task_id: task.task_id.clone(),
        timeout: duration(40.0),
        until_stalled: true,
        ..Default::default()
    };
    let stalled = soon("the task stalls", session.tasks().wait_task(wait)).await.unwrap().into_inner();
    assert_eq!(stalled.task.unwrap().stall.unwrap().last_line, "login with **************, password:");
    eventually("the stall is told", async || session.told_of(&task).await.contains(&"stalled").then_some(())).await;
    session.stop(&task, Some(0.0)).await;
    let told = format!("{:?}", session.told().await);
    assert!(!told.contains("hunter2"), "{told}");
    assert!(!kept(&server).contains("hunter2"));
}

#[tokio::test]
async fn policy_decides_what_readers_see() {
    let token = format!("ghp_{}", "aB3".repeat(12));
    let command = format!("echo \"a hunter2-abcdef {token} b\"");
    for (policy, expected, left) in [
        ("off", format!("a hunter2-abcdef {token} b\n"), 0),
        ("values", format!("a ************** {token} b\n"), 1),
        ("all", format!("a ************** {} b\n", "*".repeat(40)), 1),
    ] {
        let Some(server) = Server::on(Image::Busybox, &["--mask-reads", policy]).await else { return };
        let session = server.session("bot", "session");
        let task = session.run_as(with_secrets(session.request(&command), &[("KEY", "hunter2-abcdef")])).await;
        assert_eq!(session.text(&task).await, expected, "{policy}");
        assert_eq!(String::from_utf8(streamed(&session, &task, 0).await).unwrap(), expected, "{policy}");
        // Texts are masked whatever the policy.
        assert_eq!(task.command, "echo \"a [masked] [masked] b\"");
        assert_eq!(task.output_preview, format!("a ************** {} b", "*".repeat(40)));
        let pattern = OutputPattern { offset: 0, kind: Some(output_pattern::Kind::Regex("b$".to_owned())) };
        let wait = WaitTaskRequest { task_id: task.task_id.clone(), until_match: Some(pattern), ..Default::default() };
        let found = soon("output matches", session.tasks().wait_task(wait)).await.unwrap().into_inner();
        let line = found.output_match.unwrap().line;
        assert!(!line.contains("ghp_") && line.contains("hunter2") == (policy == "off"), "{policy}: {line}");
        assert!(!kept(&server).contains("hunter2") && !kept(&server).contains("ghp_"), "{policy}");
        let stored = rusqlite::Connection::open(server.database()).unwrap();
        let count: i64 = stored.query_row("SELECT count(*) FROM secrets", [], |row| row.get(0)).unwrap();
        let launches: i64 =
            stored.query_row("SELECT count(*) FROM secrets WHERE launch IS NOT NULL", [], |row| row.get(0)).unwrap();
        assert_eq!((count, launches), (left, 0), "{policy}");
    }
}

#[tokio::test]
async fn patterns_of_server_and_tenant_are_masked() {
    let rules = "[tenants.red]\nmask_patterns = [\"red-[0-9]{6}\"]\nmask_reads = \"all\"\n";
    let server = server_with(|_| [entry("red", "red", ""), entry("blue", "blue", ""), rules.to_owned()].concat());
    let Some(server) = server.await else { return };
    let token = format!("ghp_{}", "aB3".repeat(12));
    // The command is run as it was sent.
    let command = format!("printf %s '{token} red-123456' | sha256sum | head -c 64; echo ' {token} red-123456'");
    let hashed = hash(&format!("{token} red-123456"));
    let stars = "*".repeat(40);
    for (tenant, shown, printed) in [
        ("red", "[masked] [masked]", format!("{hashed} {stars} **********\n")),
        ("blue", "[masked] red-123456", format!("{hashed} {token} red-123456\n")),
    ] {
        let session = server.session_with(tenant, tenant, "session");
        let labels: std::collections::HashMap<_, _> = [("for".to_owned(), token.clone())].into();
        let request =
            StartTaskRequest { labels: labels.clone(), request_id: "r".to_owned(), ..session.request(&command) };
        let task = session.run_as(request.clone()).await;
        assert!(task.command.ends_with(&format!("echo ' {shown}'")), "{}", task.command);
        assert_eq!(session.text(&task).await, printed);
        let told = format!("{:?}", session.told().await);
        assert!(!told.contains("ghp_") && told.contains("red-1") == (tenant == "blue"), "{told}");
        // The same request is recognised, and its label finds the task.
        let again = session.try_start(request).await.unwrap();
        assert_eq!((again.existed, again.task.unwrap().task_id), (true, task.task_id.clone()));
        let found = session.listed(ListTasksRequest { labels, ..Default::default() }).await;
        assert_eq!((found.len(), found[0].labels["for"].as_str()), (1, "[masked]"));
    }
    assert!(!kept(&server).contains("ghp_"));
}

#[tokio::test]
async fn patterns_can_be_switched_off() {
    let Some(server) = Server::on(Image::Busybox, &["--mask-patterns", "none"]).await else { return };
    let session = server.session("bot", "session");
    let token = format!("ghp_{}", "aB3".repeat(12));
    let task = session.run(&format!("echo {token}")).await;
    assert_eq!((task.command, task.output_preview), (format!("echo {token}"), token));
}

#[tokio::test]
async fn refused_secrets_are_not_repeated() {
    let Some(server) = Server::on(Image::Busybox, &["--log-level", "trace"]).await else { return };
    let session = server.session("bot", "session");
    for name in ["PATH", "A-B", "1"] {
        let request = with_secrets(session.request("true"), &[(name, "hunter2-abcdef")]);
        let status = session.try_start(request).await.unwrap_err();
        assert!(!format!("{status:?}").contains("hunter2"));
        refused::<()>(Err(status), Code::InvalidArgument);
    }
    assert!(!kept(&server).contains("hunter2"));
}
