//! Input, terminals, and other features that only the resident bridge supports.

use std::process::{Command, Stdio};

use bytes::Bytes;
use errand_proto::v1::*;
use tonic::{Code, Status};

use crate::{
    on_both_images,
    support::{
        client::{Id, Session, duration, ended, refused},
        docker::{self, Image},
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(
    input_and_its_end_reach_the_command,
    terminal_has_the_requested_size,
    limits_niceness_and_clean_environment_are_applied,
    terminal_reports_input_that_exceeds_its_line,
);

/// A server and a session whose sandbox has the resident bridge. None: the sandbox has no resident bridge, and the test is skipped.
async fn resident(image: Image, flags: &[&str]) -> Option<(Server, Session)> {
    let server = Server::on(image, flags).await?;
    let session = server.session("bot", "session");
    let sandbox = session.ensure(None).await.unwrap();
    if sandbox.bridge != "resident" {
        docker::skip(&format!("the sandbox has the {} bridge: {}", sandbox.bridge, sandbox.bridge_detail));
        return None;
    }
    Some((server, session))
}

fn open(session: &Session, command: &str) -> StartTaskRequest {
    StartTaskRequest { stdin: true, ..session.request(command) }
}

async fn try_write(session: &Session, request: WriteInputRequest) -> Result<WriteInputResponse, Status> {
    Ok(session.tasks().write_input(request).await?.into_inner())
}

async fn write(session: &Session, task: &Task, offset: Option<i64>, data: &str, end: bool) -> WriteInputResponse {
    let data = Bytes::copy_from_slice(data.as_bytes());
    let request = WriteInputRequest { task_id: task.id(), offset, data, end, ..Default::default() };
    try_write(session, request).await.unwrap()
}

fn taken(bytes: i64, accepted: i64, ended: bool) -> WriteInputResponse {
    WriteInputResponse { taken_bytes: bytes, accepted_bytes: accepted, ended, ..Default::default() }
}

async fn input_and_its_end_reach_the_command(image: Image) {
    let Some((_server, session)) = resident(image, &[]).await else { return };
    let task = session.start_as(open(&session, "cat; echo over")).await;
    assert!(task.stdin);
    assert_eq!(write(&session, &task, None, "one\n", false).await, taken(4, 4, false));
    session.until_output(&task, "one\n").await;
    assert_eq!(write(&session, &task, None, "two\n", true).await, taken(8, 4, true));
    let task = session.finished(&task).await;
    assert_eq!((ended(&task).as_str(), session.text(&task).await.as_str()), ("exited 0", "one\ntwo\nover\n"));
    let late = WriteInputRequest { task_id: task.id(), data: "late".into(), ..Default::default() };
    refused(try_write(&session, late).await, Code::FailedPrecondition);
}

#[tokio::test]
async fn repeated_write_with_an_offset_is_idempotent() {
    let Some((_server, session)) = resident(Image::Busybox, &[]).await else { return };
    let task = session.start_as(open(&session, "cat")).await;
    assert_eq!(write(&session, &task, Some(0), "abc", false).await, taken(3, 3, false));
    assert_eq!(write(&session, &task, Some(0), "abc", false).await, taken(3, 3, false));
    assert_eq!(write(&session, &task, Some(1), "bcd", false).await, taken(4, 3, false));
    assert_eq!(write(&session, &task, None, "", false).await, taken(4, 0, false), "only asks");
    let beyond = WriteInputRequest { task_id: task.id(), offset: Some(5), data: "f".into(), ..Default::default() };
    refused(try_write(&session, beyond).await, Code::OutOfRange);
    assert_eq!(write(&session, &task, Some(4), "e", true).await, taken(5, 1, true));
    let task = session.finished(&task).await;
    assert_eq!(session.text(&task).await, "abcde");
}

#[tokio::test]
async fn unread_input_is_taken_only_in_part() {
    let Some((_server, session)) = resident(Image::Busybox, &[]).await else { return };
    let data = Bytes::from(vec![b'x'; 1 << 20]);
    let request =
        |task: &Task, end| WriteInputRequest { task_id: task.id(), data: data.clone(), end, ..Default::default() };
    let task = session.start_as(open(&session, "wc -c")).await;
    assert_eq!(try_write(&session, request(&task, true)).await.unwrap(), taken(1 << 20, 1 << 20, true));
    let task = session.finished(&task).await;
    assert_eq!(session.text(&task).await.trim(), "1048576");

    let task = session.start_as(open(&session, "until [ -e /tmp/go ]; do sleep 0.1; done; wc -c")).await;
    let some = try_write(&session, WriteInputRequest { timeout: duration(1.0), ..request(&task, true) }).await.unwrap();
    assert!(some.accepted_bytes < 1 << 20 && some.accepted_bytes == some.taken_bytes && !some.ended, "{some:?}");
    session.exec("touch /tmp/go").await;
    let again = WriteInputRequest { offset: Some(0), ..request(&task, true) };
    assert_eq!(try_write(&session, again).await.unwrap(), taken(1 << 20, 1 << 20, true));
    let task = session.finished(&task).await;
    assert_eq!(session.text(&task).await.trim(), "1048576");
}

#[tokio::test]
async fn a_task_without_input_takes_none() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.running("sleep 60").await;
    let write = WriteInputRequest { task_id: task.id(), data: "x".into(), ..Default::default() };
    assert!(refused(try_write(&session, write).await, Code::FailedPrecondition).contains("takes no input"));
    let size = Some(TerminalSize { rows: 1, columns: 1 });
    let resize = ResizeTerminalRequest { task_id: task.id(), size, ..Default::default() };
    let resized = session.tasks().resize_terminal(resize).await;
    assert!(refused(resized, Code::FailedPrecondition).contains("no terminal"));
    session.stop(&task, Some(0.0)).await;
}

async fn terminal_has_the_requested_size(image: Image) {
    let Some((_server, session)) = resident(image, &[]).await else { return };
    let command =
        "test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size; read line; stty size; echo \"got $line\"";
    let terminal = Some(TerminalSize { rows: 31, columns: 117 });
    let task = session.start_as(StartTaskRequest { terminal, ..session.request(command) }).await;
    session.until_output(&task, "terminal\r\n31 117\r\n").await;
    let size = Some(TerminalSize { rows: 50, columns: 200 });
    let resize = ResizeTerminalRequest { task_id: task.id(), size, ..Default::default() };
    session.tasks().resize_terminal(resize.clone()).await.unwrap();
    write(&session, &task, None, "hello\n", false).await;
    let task = session.finished(&task).await;
    let text = session.text(&task).await;
    assert!(text.contains("50 200\r\n") && text.contains("got hello\r\n"), "{text:?}");
    assert_eq!(task.terminal, terminal, "as it was asked for");
    refused(session.tasks().resize_terminal(resize).await, Code::FailedPrecondition);
}

/// The response when a terminal's line has no more room.
fn line_full(bytes: i64, accepted: i64) -> WriteInputResponse {
    WriteInputResponse { limited_by: InputLimit::TerminalLine.into(), ..taken(bytes, accepted, false) }
}

async fn terminal_reports_input_that_exceeds_its_line(image: Image) {
    let Some((_server, session)) = resident(image, &[]).await else { return };
    let terminal = Some(TerminalSize { rows: 24, columns: 80 });
    let on_terminal = |command| StartTaskRequest { terminal, ..session.request(command) };
    let task = session.start_as(on_terminal("cat >/workspace/in; wc -c </workspace/in; sleep 60")).await;
    let long = format!("{}\n", "a".repeat(5000));
    assert_eq!(write(&session, &task, None, &long, true).await, line_full(4095, 4095));
    let begun = std::time::Instant::now();
    assert_eq!(write(&session, &task, None, &long[4095..], true).await, line_full(4095, 0));
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "waiting changes nothing");
    // Once that line is ended, the rest starts a new line.
    assert_eq!(write(&session, &task, None, "\n", false).await, taken(4096, 1, false));
    let exact = format!("{}\n", "b".repeat(4095));
    assert_eq!(write(&session, &task, None, &exact, false).await, taken(8192, 4096, false));
    assert_eq!(write(&session, &task, None, "", true).await.accepted_bytes, 0);
    session.until_output(&task, "8192\r\n").await;
    session.stop(&task, Some(0.0)).await;

    // A terminal in raw mode has no lines.
    let task = session.start_as(on_terminal("stty raw -echo; echo ready; head -c 5001 | wc -c")).await;
    session.until_output(&task, "ready").await;
    assert_eq!(write(&session, &task, None, &long, false).await, taken(5001, 5001, false));
    let task = session.finished(&task).await;
    assert!(session.text(&task).await.contains("5001"));
}

#[tokio::test]
async fn cli_stops_at_an_overlong_terminal_line() {
    let Some((server, session)) = resident(Image::Debian, &[]).await else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_errand"));
    command.args(["--server", &server.url(), "run", "--bot", &session.bot, "-i", "-t", "--", "cat >/dev/null"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // Left open: only the server's answer ends the command.
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, "a".repeat(5000).as_bytes()).unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let ended = soon("the command line stops", ended).await.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("at most 4095 bytes of a line: 905 bytes") && said.contains("runs on"), "{said}");
    drop(stdin);
}

#[tokio::test]
async fn separate_streams_stay_separate() {
    let Some((_server, session)) = resident(Image::Busybox, &[]).await else { return };
    let command = "echo out; sleep 0.3; echo err >&2; sleep 0.3; echo again";
    let task = session.run_as(StartTaskRequest { separate_stderr: true, ..session.request(command) }).await;
    let read = ReadOutputRequest { task_id: task.id(), format: OutputFormat::Text.into(), ..Default::default() };
    let read = session.try_read(read).await.unwrap();
    let parts: Vec<_> =
        read.parts.iter().map(|part| (part.offset, part.stream(), crate::support::client::text(part))).collect();
    let (out, err) = (OutputStream::Stdout, OutputStream::Stderr);
    let expected = [(0, out, "out\n"), (4, err, "err\n"), (8, out, "again\n")];
    assert_eq!(parts, expected.map(|(offset, stream, text)| (offset, stream, text.to_owned())));
}

async fn limits_niceness_and_clean_environment_are_applied(image: Image) {
    let Some((_server, session)) = resident(image, &[]).await else { return };
    let request = StartTaskRequest {
        limits: Some(ResourceLimits { open_files: Some(64), core_bytes: Some(0), ..Default::default() }),
        nice: 7,
        clean_env: true,
        env: [("GREETING".to_owned(), "hello".to_owned())].into(),
        ..session.request("ulimit -n; cut -d' ' -f19 /proc/self/stat; env | grep -c -e ^GREETING= -e ^ERRAND_TASK_ID=; env | grep -c ^HOME=")
    };
    let task = session.run_as(request).await;
    assert_eq!(session.text(&task).await, "64\n7\n2\n0\n");
    let usage = task.resource_usage.expect("the resident bridge tells");
    assert!(usage.peak_memory_bytes > 0, "{usage:?}");
}

#[tokio::test]
async fn output_beyond_its_limit_is_counted_as_missing() {
    let Some((_server, session)) = resident(Image::Busybox, &[]).await else { return };
    let request = StartTaskRequest {
        output_limit_bytes: 65_536,
        ..session.request("echo begin; head -c 1000000 /dev/zero; echo; echo end")
    };
    let task = session.run_as(request).await;
    assert_eq!((ended(&task).as_str(), task.output_bytes), ("exited 0", 6 + 1_000_000 + 5));
    let gap = task.output_gap.expect("something is missing");
    assert!(0 < gap.start && gap.start < gap.end && gap.end <= task.output_bytes, "{gap:?}");
    let read = ReadOutputRequest {
        task_id: task.id(),
        selection: Some(read_output_request::Selection::Range(OutputRange { offset: 0, limit: 1 << 20 })),
        ..Default::default()
    };
    let read = session.try_read(read).await.unwrap();
    assert_eq!((read.total_bytes, read.omitted_bytes), (task.output_bytes, gap.end - gap.start));
    // A range inside the gap starts at the next byte that was kept; a range over both ends shows each byte once.
    let range = OutputRange { offset: gap.start, limit: 10 };
    let read = ReadOutputRequest {
        task_id: task.id(),
        selection: Some(read_output_request::Selection::Range(range)),
        ..Default::default()
    };
    let parts = session.try_read(read).await.unwrap().parts;
    assert_eq!((parts[0].offset, parts[0].next_offset), (gap.end, gap.end + 10));
    let both_ends = OutputHeadTail { head: 1 << 19, tail: 100 };
    let read = ReadOutputRequest {
        task_id: task.id(),
        selection: Some(read_output_request::Selection::HeadTail(both_ends)),
        ..Default::default()
    };
    let read = session.try_read(read).await.unwrap();
    assert!(read.parts.is_sorted_by(|one, next| one.next_offset <= next.offset), "{:?}", read.parts);
    assert_eq!(read.omitted_bytes, gap.end - gap.start);
    // A stream across the gap reaches the end.
    let stream = StreamOutputRequest { task_id: task.id(), ..Default::default() };
    let mut stream = session.tasks().stream_output(stream).await.unwrap().into_inner();
    let mut position = 0;
    while let Some(message) = stream.message().await.unwrap() {
        match message.event.unwrap() {
            stream_output_response::Event::Output(part) => {
                assert!(part.offset == position || (position, part.offset) == (gap.start, gap.end), "{position}");
                position = part.next_offset;
            }
            stream_output_response::Event::Finished(finished) => assert_eq!(finished.output_gap, Some(gap)),
        }
    }
}

#[tokio::test]
async fn cli_shows_head_and_tail_of_output() {
    let Some((server, session)) = resident(Image::Debian, &[]).await else { return };
    // The kept beginning ends exactly where a read of the command line ends.
    let request = StartTaskRequest {
        output_limit_bytes: 1 << 20,
        ..session.request("echo begin; head -c 3000000 /dev/zero; echo; echo end")
    };
    let task = session.run_as(request).await;
    let gap = task.output_gap.expect("something is missing");
    let url = server.url();
    for words in [vec![], vec!["-f"], vec!["--tail", "2000000"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_errand"));
        let shown = command.args(["--server", &url, "logs", &task.task_id]).args(&words).output().unwrap();
        let missing = gap.end - gap.start.max(if words.len() > 1 { task.output_bytes - 2_000_000 } else { 0 });
        let begins = words.len() > 1 || shown.stdout.starts_with(b"begin\n");
        assert!(begins && shown.stdout.ends_with(b"\nend\n"), "{words:?}: {} bytes", shown.stdout.len());
        let asked = if words.len() > 1 { 2_000_000 } else { task.output_bytes };
        assert_eq!(i64::try_from(shown.stdout.len()).unwrap(), asked - missing, "{words:?}");
        let said = String::from_utf8(shown.stderr).unwrap();
        assert!(said.contains("of the output were not kept"), "{words:?}: {said}");
    }
}

#[tokio::test]
async fn process_waiting_for_input_is_a_stall() {
    let flags = ["--stall-after", "2s", "--stall-check-interval", "1s"];
    let Some((_server, session)) = resident(Image::Busybox, &flags).await else { return };
    let mut live = session.subscribe(Default::default()).await;
    let task = session.start_as(open(&session, "echo ready; cat; echo thanks; sleep 1")).await;
    let stalled = live.next().await;
    assert_eq!(stalled.kind(), NotificationKind::Stalled);
    let stall = stalled.stall.unwrap();
    let waiting = stall.waiting.expect("the process is known");
    assert_eq!((stall.last_line.as_str(), waiting.command.as_str()), ("ready", "cat"));
    assert_eq!(waiting.reads(), InputSource::Stdin);
    assert!(stalled.text.contains("WriteInput") && stalled.text.contains("(cat)"), "{}", stalled.text);
    write(&session, &task, None, "hello\n", true).await;
    assert_eq!(live.next().await.kind(), NotificationKind::Resumed);
    assert_eq!(live.next().await.kind(), NotificationKind::Completed);
}

#[tokio::test]
async fn silent_busy_command_is_not_stalled() {
    let flags = ["--stall-after", "2s", "--stall-check-interval", "1s"];
    let Some((_server, session)) = resident(Image::Busybox, &flags).await else { return };
    let command = "printf 'Continue? '; end=$(($(date +%s) + 6)); while [ $(date +%s) -lt $end ]; do :; done";
    let task = session.run(command).await;
    assert_eq!(session.told_of(&task).await, ["completed"]);
}

#[tokio::test]
async fn timeout_enforced_in_the_sandbox_is_reported() {
    let Some((_server, session)) = resident(Image::Busybox, &[]).await else { return };
    let request = StartTaskRequest { timeout: duration(1.0), ..session.request("sleep 60") };
    let task = session.run_as(request).await;
    assert_eq!((ended(&task).as_str(), task.status()), ("timed_out", TaskStatus::TimedOut));
    eventually("nothing of it is left", async || (session.processes("sleep 60").await == 0).then_some(())).await;
}
