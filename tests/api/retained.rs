//! Output that outlives its sandbox, and records that are kept and removed together.

use errand_proto::v1::{read_output_request::Selection, stream_output_response::Event, *};
use tonic::Code;

use crate::{
    on_both_images,
    support::{
        client::{Session, bytes, ended, refused},
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(short_output_outlives_its_sandbox, long_output_keeps_beginning_and_end);

const MEBIBYTE: i64 = 1 << 20;

async fn delete(session: &Session) {
    let delete = DeleteSandboxRequest { bot_id: session.bot.clone() };
    soon("the sandbox is deleted", session.sandboxes().delete_sandbox(delete)).await.unwrap();
}

async fn read(session: &Session, task: &Task, selection: Selection) -> ReadOutputResponse {
    let request = ReadOutputRequest { task_id: task.task_id.clone(), selection: Some(selection), ..Default::default() };
    session.try_read(request).await.unwrap()
}

/// All parts of a stream, and the task at its end.
async fn streamed(session: &Session, task: &Task) -> (Vec<OutputPart>, Task) {
    let request = StreamOutputRequest { task_id: task.task_id.clone(), ..Default::default() };
    let mut stream = session.tasks().stream_output(request).await.unwrap().into_inner();
    let mut parts = Vec::new();
    loop {
        let message = soon("the stream goes on", stream.message()).await.unwrap().expect("the end comes last");
        match message.event.unwrap() {
            Event::Output(part) => parts.push(part),
            Event::Finished(task) => return (parts, task),
        }
    }
}

fn joined(parts: &[OutputPart]) -> Vec<u8> {
    parts.iter().flat_map(bytes).collect()
}

async fn short_output_outlives_its_sandbox(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.run("echo one; echo two; exit 3").await;
    let retained = task.output_retained.clone().unwrap();
    assert_eq!((retained.bytes, retained.gaps.len()), (8, 0), "with the end itself");
    let silent = session.run("true").await;
    assert_eq!(silent.output_retained, None);
    delete(&session).await;
    for _ in 0..2 {
        assert_eq!(session.text(&task).await, "one\ntwo\n");
        assert_eq!(session.text(&silent).await, "");
        let tail = read(&session, &task, Selection::Tail(OutputTail { limit: 4 })).await;
        assert_eq!((joined(&tail.parts).as_slice(), tail.total_bytes, tail.omitted_bytes), (&b"two\n"[..], 8, 4));
        let (parts, finished) = streamed(&session, &task).await;
        assert_eq!((joined(&parts).as_slice(), ended(&finished).as_str()), (&b"one\ntwo\n"[..], "exited 3"));
        let kind = Some(output_pattern::Kind::Substring("two".to_owned()));
        let until_match = Some(OutputPattern { kind, ..Default::default() });
        let wait = WaitTaskRequest { task_id: task.task_id.clone(), until_match, ..Default::default() };
        let waited = session.tasks().wait_task(wait).await.unwrap().into_inner();
        assert_eq!(waited.result(), WaitResult::Matched);
        let past = ReadOutputRequest {
            task_id: task.task_id.clone(),
            selection: Some(Selection::Range(OutputRange { offset: 9, limit: 1 })),
            ..Default::default()
        };
        refused(session.try_read(past).await, Code::OutOfRange);
        // A new sandbox of the bot changes nothing.
        session.ensure(None).await.unwrap();
    }
}

async fn long_output_keeps_beginning_and_end(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.run("seq 1 500000").await;
    let whole: Vec<u8> = (1..=500_000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
    let size = i64::try_from(whole.len()).unwrap();
    // Deleted at once: what is not retained yet is read first.
    delete(&session).await;
    let retained = session.get(&task).await.output_retained.unwrap();
    let (start, end) = (MEBIBYTE / 2, size - MEBIBYTE / 2);
    assert_eq!((retained.bytes, retained.gaps), (MEBIBYTE, vec![OutputGap { start, end }]));
    let at = |position: i64| usize::try_from(position).unwrap();
    let head = read(&session, &task, Selection::Range(OutputRange { offset: 0, limit: 100 })).await;
    assert_eq!((joined(&head.parts).as_slice(), head.total_bytes), (&whole[..100], size));
    // As with an output limit: a read across the gap goes on behind it.
    let across = read(&session, &task, Selection::Range(OutputRange { offset: start - 10, limit: 20 })).await;
    let offsets: Vec<i64> = across.parts.iter().map(|part| part.offset).collect();
    assert_eq!((offsets, across.omitted_bytes), (vec![start - 10, end], size - 20));
    assert_eq!(joined(&across.parts), [&whole[at(start - 10)..at(start)], &whole[at(end)..at(end + 10)]].concat());
    let sides = read(&session, &task, Selection::HeadTail(OutputHeadTail { head: 50, tail: 60 })).await;
    assert_eq!(joined(&sides.parts), [&whole[..50], &whole[at(size - 60)..]].concat());
    let (parts, _) = streamed(&session, &task).await;
    assert_eq!(joined(&parts), [&whole[..at(start)], &whole[at(end)..]].concat());
    assert!(parts.iter().any(|part| part.offset == end));
}

#[tokio::test]
async fn streams_are_retained_apart() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let command = "echo out; sleep 0.3; echo err >&2; sleep 0.3; echo more; head -c 300000 /dev/zero >&2";
    let request = StartTaskRequest { separate_stderr: true, ..session.request(command) };
    let task = session.run_as(request).await;
    delete(&session).await;
    let shown = read(&session, &task, Selection::Range(OutputRange { offset: 0, limit: MEBIBYTE })).await.parts;
    let shown: Vec<_> = shown.iter().map(|part| (part.stream(), part.next_offset - part.offset)).collect();
    let (out, err) = (OutputStream::Stdout, OutputStream::Stderr);
    assert_eq!(shown, [(out, 4), (err, 4), (out, 5), (err, 300_000)]);
}

#[tokio::test]
async fn output_outlives_a_sandbox_removed_from_outside() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let [short, long] = [session.run("echo words").await, session.run("seq 1 100000").await];
    let whole = i64::try_from((1..=100_000).map(|number: i32| number.to_string().len() + 1).sum::<usize>()).unwrap();
    let retained = async || session.get(&long).await.output_retained.is_some_and(|kept| kept.bytes == whole);
    eventually("the long output is retained too", async || retained().await.then_some(())).await;
    let container = session.sandbox().await.unwrap().container_id;
    server.ground.remove(&container).await;
    assert_eq!(session.text(&short).await, "words\n");
    assert!(session.text(&long).await.ends_with("\n100000\n"));
}

#[tokio::test]
async fn retained_output_replaces_a_missing_log() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let [removed, stopped] = [session.run("echo removed").await, session.run("echo stopped").await];
    session.exec(&format!("rm -r /tmp/errand/{}", removed.task_id)).await;
    assert_eq!(session.text(&removed).await, "removed\n");
    let stop = StopSandboxRequest { bot_id: session.bot.clone() };
    session.sandboxes().stop_sandbox(stop).await.unwrap();
    assert_eq!(session.text(&stopped).await, "stopped\n");
}

#[tokio::test]
async fn retained_output_can_be_turned_off() {
    let Some(server) = Server::on(Image::Busybox, &["--retained-output", "0"]).await else { return };
    let session = server.session("bot", "session");
    let task = session.run("echo words").await;
    assert_eq!(task.output_retained, None);
    delete(&session).await;
    let request = ReadOutputRequest { task_id: task.task_id.clone(), ..Default::default() };
    refused(session.try_read(request).await, Code::FailedPrecondition);
    assert_eq!(session.get(&task).await.output_preview, "words");
}

#[tokio::test]
async fn lost_command_keeps_what_was_seen() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.running("echo words; sleep 7200").await;
    session.until_output(&task, "words\n").await;
    let container = session.sandbox().await.unwrap().container_id;
    server.ground.remove(&container).await;
    assert_eq!(ended(&session.finished(&task).await), "lost SANDBOX_REMOVED");
    assert_eq!(session.text(&task).await, "words\n");
}

/// How many rows of a table there are, past the server.
fn rows(server: &Server, table: &str) -> i64 {
    let database = rusqlite::Connection::open(server.database()).unwrap();
    database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

async fn is_forgotten(session: &Session, task: &Task) -> bool {
    let get = GetTaskRequest { task_id: task.task_id.clone(), ..Default::default() };
    session.tasks().get_task(get).await.is_err_and(|status| status.code() == Code::NotFound)
}

#[tokio::test]
async fn acknowledged_task_goes_with_everything() {
    let flags = ["--retention", "1s", "--notification-retention", "1h"];
    let Some(server) = Server::on(Image::Busybox, &flags).await else { return };
    let session = server.session("bot", "session");
    let [seen, unseen] = [session.run("echo seen").await, session.run("echo unseen").await];
    let wait = WaitTaskRequest { task_id: seen.task_id.clone(), acknowledge: true, ..Default::default() };
    session.tasks().wait_task(wait).await.unwrap();
    eventually("the task is forgotten", async || is_forgotten(&session, &seen).await.then_some(())).await;
    eventually("its files are removed", async || {
        (session.exec(&format!("ls -d /tmp/errand/{} 2>/dev/null", seen.task_id)).await.is_empty()).then_some(())
    })
    .await;
    let told: Vec<_> = session.told().await.into_iter().map(|told| told.task_id).collect();
    assert_eq!(told, std::slice::from_ref(&unseen.task_id));
    assert_eq!((rows(&server, "tasks"), rows(&server, "outputs"), rows(&server, "notifications")), (1, 1, 1));
    assert_eq!(session.text(&unseen).await, "unseen\n");
}

#[tokio::test]
async fn unacknowledged_tasks_go_later_and_are_counted() {
    let flags = ["--retention", "1s", "--notification-retention", "3s"];
    let Some(server) = Server::on(Image::Busybox, &flags).await else { return };
    let session = server.session("bot", "session");
    let task = session.run("echo words").await;
    eventually("the task is forgotten", async || is_forgotten(&session, &task).await.then_some(())).await;
    assert!(session.told().await.is_empty());
    assert_eq!((rows(&server, "tasks"), rows(&server, "outputs")), (0, 0));
    assert!(server.log().contains("nobody had acknowledged"), "it is said");
}

#[tokio::test]
async fn large_outputs_leave_room_for_tasks() {
    let Some(server) = Server::on(Image::Busybox, &["--max-stored-bytes-per-tenant", "6MiB"]).await else { return };
    let session = server.session("bot", "session");
    for _ in 0..5 {
        let task = session.run("head -c 1000000 /dev/urandom").await;
        assert_eq!(ended(&task), "exited 0");
    }
    assert_eq!(ended(&session.run("exit 3").await), "exited 3");
    delete(&session).await;
    let stored: i64 = rusqlite::Connection::open(server.database())
        .unwrap()
        .query_row("SELECT bytes FROM usage", [], |row| row.get(0))
        .unwrap();
    assert!(stored <= 3 << 20, "{stored}");
    assert!(rows(&server, "outputs") >= 2);
}
