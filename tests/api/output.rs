//! Reading a log: by range, from the end, from both ends, as bytes and as text.

use errand_proto::v1::{read_output_request::Selection, *};
use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::{
    on_both_images,
    support::{
        client::{Session, bytes, refused, text},
        docker::Image,
        ground::Ground,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(log_is_read_with_every_selection, text_never_splits_a_character);

async fn read(
    session: &Session,
    task: &Task,
    selection: Option<Selection>,
    format: OutputFormat,
) -> ReadOutputResponse {
    let request =
        ReadOutputRequest { task_id: task.task_id.clone(), selection, format: format.into(), ..Default::default() };
    session.try_read(request).await.unwrap()
}

fn range(offset: i64, limit: i64) -> Option<Selection> {
    Some(Selection::Range(OutputRange { offset, limit }))
}

fn head_tail(head: i64, tail: i64) -> Option<Selection> {
    Some(Selection::HeadTail(OutputHeadTail { head, tail }))
}

async fn log_is_read_with_every_selection(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    // More than is kept in memory, so that both ways of reading are used.
    let task = session.running("seq 1 40000; until [ -e /workspace/go ]; do sleep 0.1; done").await;
    let whole: Vec<u8> = (1..=40000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
    let size = i64::try_from(whole.len()).unwrap();
    eventually("all is there", async || (session.get(&task).await.output_bytes == size).then_some(())).await;
    for finished in [false, true] {
        if finished {
            session.exec("touch /workspace/go").await;
            session.finished(&task).await;
        }
        for (offset, limit) in [(0, 10), (0, 0), (100, 65536), (size - 5, 100), (size, 10), (size / 2, 1 << 20)] {
            let piece = read(&session, &task, range(offset, limit), OutputFormat::Bytes).await;
            let from = usize::try_from(offset).unwrap();
            let limit = if limit == 0 { 65536 } else { usize::try_from(limit).unwrap() };
            let expected = &whole[from..whole.len().min(from + limit)];
            assert_eq!(piece.parts.iter().flat_map(bytes).collect::<Vec<u8>>(), expected, "{offset} {limit}");
            assert_eq!(piece.total_bytes, size);
            assert_eq!(piece.omitted_bytes, size - i64::try_from(expected.len()).unwrap());
            assert_eq!(piece.parts.len(), usize::from(!expected.is_empty()));
        }
        let tail = read(&session, &task, None, OutputFormat::Bytes).await;
        assert_eq!((bytes(&tail.parts[0]), tail.parts[0].offset), (whole[whole.len() - 4096..].to_vec(), size - 4096));
        assert_eq!((tail.parts[0].next_offset, tail.omitted_bytes), (size, size - 4096));

        let both = read(&session, &task, head_tail(7, 6), OutputFormat::Bytes).await;
        assert_eq!(both.parts.iter().map(bytes).collect::<Vec<_>>(), [b"1\n2\n3\n4".to_vec(), b"40000\n".to_vec()]);
        assert_eq!((both.parts[1].offset, both.omitted_bytes), (size - 6, size - 13));
        let all = read(&session, &task, head_tail(0, 524_288), OutputFormat::Bytes).await;
        assert_eq!((all.parts.len(), all.omitted_bytes), (1, 0));
        assert_eq!(bytes(&all.parts[0]), whole);

        let past =
            ReadOutputRequest { task_id: task.task_id.clone(), selection: range(size + 1, 10), ..Default::default() };
        let words = refused(session.try_read(past).await, Code::OutOfRange);
        assert!(words.contains(&(size + 1).to_string()) && words.contains(&size.to_string()), "{words}");
    }
}

async fn text_never_splits_a_character(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let line = "aß€𐍈";
    let task = session.run(&format!("yes '{line}' | head -n 20000 | tr -d '\\n'")).await;
    let whole = line.repeat(20000);
    assert_eq!(task.output_bytes, i64::try_from(whole.len()).unwrap());
    for limit in [5, 6, 7, 8, 4096, 4097, 4098, 4099] {
        let tail = Some(Selection::Tail(OutputTail { limit }));
        let read = read(&session, &task, tail, OutputFormat::Text).await;
        let shown = text(&read.parts[0]);
        assert!(whole.ends_with(&shown) && !shown.is_empty(), "{limit}: {shown:?}");
        assert_eq!(usize::try_from(read.parts[0].next_offset - read.parts[0].offset).unwrap(), shown.len());
        assert_eq!(usize::try_from(read.total_bytes - read.omitted_bytes).unwrap(), shown.len());
    }
    for size in [5, 6, 7, 8] {
        let both = read(&session, &task, head_tail(size, size), OutputFormat::Text).await;
        let (head, tail) = (text(&both.parts[0]), text(&both.parts[1]));
        assert!(whole.starts_with(&head) && whole.ends_with(&tail), "{size}: {head:?} {tail:?}");
        assert_eq!(usize::try_from(both.omitted_bytes).unwrap(), whole.len() - head.len() - tail.len());
    }
    // One piece after another.
    let (mut offset, mut joined) = (0, String::new());
    while offset < task.output_bytes {
        let piece = read(&session, &task, range(offset, 60_001), OutputFormat::Text).await;
        joined.push_str(&text(&piece.parts[0]));
        assert!(piece.parts[0].next_offset > offset);
        offset = piece.parts[0].next_offset;
    }
    assert!(joined == whole, "the pieces make up the whole");
}

#[tokio::test]
async fn invalid_utf8_is_kept_and_marked_in_text() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.run("printf 'a\\377\\0b\\342\\202'").await;
    assert_eq!(session.output(&task).await, b"a\xFF\0b\xE2\x82");
    let as_text = read(&session, &task, range(0, 0), OutputFormat::Text).await;
    assert_eq!(text(&as_text.parts[0]), "a\u{FFFD}\0b\u{FFFD}");
    assert_eq!(as_text.parts[0].next_offset, 6);
    let told = session.told().await;
    assert!(told[0].output_tail.starts_with("a\u{FFFD}"), "{:?}", told[0].output_tail);
}

#[tokio::test]
async fn silent_task_has_an_empty_log() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    for task in [session.run("true").await, session.run_as(session.argv(&["no-such-program"])).await] {
        let answer = read(&session, &task, None, OutputFormat::Text).await;
        assert_eq!(answer, ReadOutputResponse::default());
        let past = ReadOutputRequest { task_id: task.task_id.clone(), selection: range(1, 0), ..Default::default() };
        refused(session.try_read(past).await, Code::OutOfRange);
    }
}

#[tokio::test]
async fn missing_log_is_reported_as_gone() {
    let Some(server) = Server::on(Image::Busybox, &["--retained-output", "0"]).await else { return };
    let session = server.session("bot", "session");
    let task = session.run("echo out").await;
    let request = ReadOutputRequest { task_id: task.task_id.clone(), ..Default::default() };
    session.exec(&format!("rm -r /tmp/errand/{}", task.task_id)).await;
    let words = refused(session.try_read(request.clone()).await, Code::FailedPrecondition);
    assert!(words.contains("the log is gone"), "{words}");
    // What is already known of the output is still shown.
    assert_eq!(session.get(&task).await.output_preview, "out");

    let stop = StopSandboxRequest { bot_id: session.bot.clone() };
    session.sandboxes().stop_sandbox(stop).await.unwrap();
    let words = refused(session.try_read(request).await, Code::FailedPrecondition);
    assert!(words.contains("not running"), "{words}");
}

#[tokio::test]
async fn compressed_log_equals_the_plain_one() {
    use output_part::Content;
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    let line = b"one of many lines\n";
    let whole = line.repeat(300_000);
    let task = session
        .run("yes 'one of many lines' | head -n 300000; head -c 3000000 /dev/urandom | tee /workspace/noise")
        .await;
    let noise = session.exec("sha256sum </workspace/noise").await;
    // Output is compressed only on its way through a container engine.
    let packs = matches!(server.ground, Ground::Docker(_));
    for (format, offset) in [
        (OutputFormat::Bytes, 0),
        (OutputFormat::Lz4, 0),
        (OutputFormat::Lz4, 1_234_567),
        (OutputFormat::Text, 1_234_567),
    ] {
        let request = StreamOutputRequest {
            task_id: task.task_id.clone(),
            offset: i64::try_from(offset).unwrap(),
            format: format.into(),
            ..Default::default()
        };
        let mut stream = session.tasks().stream_output(request).await.unwrap().into_inner();
        let (mut seen, mut packed, mut plain) = (Vec::new(), 0, 0);
        while let Some(event) = soon("more of a stream comes", stream.message()).await.unwrap() {
            let Some(stream_output_response::Event::Output(part)) = event.event else { continue };
            match &part.content {
                Some(Content::Lz4(_)) => packed += 1,
                _ => plain += 1,
            }
            if seen.len() < whole.len() - offset || format != OutputFormat::Text {
                seen.extend_from_slice(&part.bytes().unwrap());
            }
        }
        assert!(seen.starts_with(&whole[offset..]), "{format:?} from {offset}: the lines");
        assert_eq!(packed > 0, packs && format == OutputFormat::Lz4, "{format:?}: {packed} packed");
        assert!(plain > 0, "{format:?}: noise does not pack");
        if format != OutputFormat::Text {
            let rest = &seen[whole.len() - offset..];
            assert_eq!(rest.len(), 3_000_000, "{format:?} from {offset}");
            let sum = hex::encode(Sha256::digest(rest));
            assert_eq!(noise.split_whitespace().next(), Some(sum.as_str()), "{format:?} from {offset}");
        }
    }
}

/// What the command line's foreground run and `errand logs` print of a command: on standard output and on standard error.
fn printed(server: &Server, words: &[&str]) -> (u64, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_errand"));
    let shown = command.args(["--server", &server.url()]).args(words).output().unwrap();
    assert!(shown.status.success(), "{words:?}: {}", String::from_utf8_lossy(&shown.stderr));
    (shown.stdout.len() as u64, String::from_utf8(shown.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn output_of_exactly_the_default_limit_is_kept() {
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    for (size, kept) in [(104_857_600, 104_857_600), (104_857_599, 104_857_599), (104_857_601, 104_857_600)] {
        let task = session.run(&format!("head -c {size} /dev/zero")).await;
        assert_eq!(task.output_bytes, size);
        let missing = task.output_gap.map_or(0, |gap| gap.end - gap.start);
        assert_eq!(size - missing, kept);
        let (bytes, said) = printed(&server, &["logs", &task.task_id]);
        assert_eq!(i64::try_from(bytes).unwrap(), kept);
        assert_eq!(said.contains("not kept"), missing > 0, "{said}");
        for format in [OutputFormat::Bytes, OutputFormat::Lz4] {
            let request =
                StreamOutputRequest { task_id: task.task_id.clone(), format: format.into(), ..Default::default() };
            let mut stream = session.tasks().stream_output(request).await.unwrap().into_inner();
            let mut streamed = 0;
            while let Some(event) = soon("more of a stream comes", stream.message()).await.unwrap() {
                if let Some(stream_output_response::Event::Output(part)) = event.event {
                    streamed += part.next_offset - part.offset;
                }
            }
            assert_eq!(streamed, kept, "{format:?}");
        }
        let both = read(&session, &task, head_tail(10, 10), OutputFormat::Bytes).await;
        assert_eq!((both.total_bytes, both.omitted_bytes), (size, size - 20));
    }
    let bot = ["run", "--bot", "bot", "--", "head -c 104857600 /dev/zero"];
    assert_eq!(printed(&server, &bot).0, 104_857_600);
}
