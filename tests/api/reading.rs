//! Reading output as it is meant to be read: by lines, searched, as a terminal would show it, and condensed.

use errand_proto::v1::{line_search::Pattern, read_output_request::Selection, *};
use tonic::{Code, Status};

use crate::{
    on_both_images,
    support::{
        client::{Id, Session, refused, text},
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(lines_are_read_by_number, lines_are_searched_with_context, output_is_rendered_and_condensed);

async fn read(
    session: &Session,
    task: &(impl Id + ?Sized),
    selection: Selection,
) -> Result<ReadOutputResponse, Status> {
    let selection = Some(selection);
    session.try_read(ReadOutputRequest { task_id: task.id(), selection, ..Default::default() }).await
}

pub async fn lines(session: &Session, task: &(impl Id + ?Sized), offset: i64, limit: i32) -> ReadOutputResponse {
    read(session, task, Selection::Lines(LineSelection { offset, limit, stream: 0 })).await.unwrap()
}

pub fn regex(pattern: &str) -> LineSearch {
    LineSearch { pattern: Some(Pattern::Regex(pattern.to_owned())), ..Default::default() }
}

pub async fn grep(session: &Session, task: &(impl Id + ?Sized), search: LineSearch) -> ReadOutputResponse {
    read(session, task, Selection::Grep(search)).await.unwrap()
}

/// Number and text of each line; a match has a colon, other lines a dash.
pub fn shown(answer: &ReadOutputResponse) -> Vec<String> {
    let mark = |line: &OutputLine| if line.matched { ':' } else { '-' };
    answer.lines.iter().map(|line| format!("{}{}{}", line.number, mark(line), line.text)).collect()
}

fn numbers(answer: &ReadOutputResponse) -> Vec<i64> {
    answer.lines.iter().map(|line| line.number).collect()
}

async fn lines_are_read_by_number(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    // More than is kept in memory.
    let task = session.running("seq 1 40000; until [ -e /workspace/go ]; do sleep 0.1; done; printf last").await;
    let size: i64 = (1..=40000).map(|number: i32| number.to_string().len() as i64 + 1).sum();
    eventually("all is there", async || (session.get(&task).await.output_bytes == size).then_some(())).await;
    let middle = lines(&session, &task, 20_000, 3).await;
    assert_eq!(shown(&middle), ["20001-20001", "20002-20002", "20003-20003"]);
    assert_eq!((middle.total_lines, middle.omitted_lines, middle.matching_lines), (40_000, 0, 0));
    assert_eq!((middle.total_bytes, middle.scanned_bytes, middle.omitted_bytes), (size, size, size - 18));
    let (first, last) = (&middle.lines[0], &middle.lines[2]);
    let range = OutputRange { offset: first.offset, limit: last.end_offset - first.offset };
    let request = ReadOutputRequest {
        task_id: task.task_id.clone(),
        selection: Some(Selection::Range(range)),
        format: OutputFormat::Text.into(),
        ..Default::default()
    };
    assert_eq!(text(&session.try_read(request).await.unwrap().parts[0]), "20001\n20002\n20003\n");
    assert_eq!(numbers(&lines(&session, &task, -2, 0).await), [39_999, 40_000]);
    session.exec("touch /workspace/go").await;
    session.finished(&task).await;
    let end = lines(&session, &task, -2, 0).await;
    assert_eq!(shown(&end), ["40000-40000", "40001-last"]);
    assert_eq!(lines(&session, &task, 0, 0).await.lines.len(), 200);
    let past = lines(&session, &task, 50_000, 9).await;
    assert_eq!((past.lines.len(), past.total_lines, past.omitted_lines), (0, 40_001, 0));

    let silent = session.run_as(session.argv(&["no-such-program"])).await;
    assert_eq!(lines(&session, &silent, 0, 9).await, ReadOutputResponse::default());
    eventually("all output is retained", async || {
        session.get(&task).await.output_retained.is_some_and(|kept| kept.bytes == size + 4).then_some(())
    })
    .await;
    session.exec(&format!("rm -r /tmp/errand/{}", task.task_id)).await;
    // The log is gone, and what is retained of the output is searched.
    let kept = read(&session, &task, Selection::Grep(regex("^(last|17)$"))).await.unwrap();
    assert_eq!((shown(&kept), kept.total_lines), (vec!["17:17".to_owned(), "40001:last".to_owned()], 40_001));
}

async fn lines_are_searched_with_context(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let command = "seq 1 20000; printf '\\033[31mError\\033[0m: no 7\\r\\n10%%\\r99%%\\rdone\\n'; seq 1 3; \
                   until [ -e /workspace/go ]; do sleep 0.1; done";
    let task = session.running(command).await;
    session.until_output(&task, "done\n1\n2\n3\n").await;
    // Colours are not searched, and neither is what was overwritten.
    let found = grep(&session, &task, LineSearch { before: 1, after: 2, ..regex(r"^Error: no \d$|99%") }).await;
    assert_eq!(shown(&found), ["20000-20000", "20001:Error: no 7", "20002-done", "20003-1"]);
    assert_eq!((found.total_lines, found.matching_lines, found.omitted_lines), (20_005, 1, 0));
    // Matches beyond the limit are counted, and contexts that touch are one.
    let found = grep(&session, &task, LineSearch { before: 1, after: 1, max_matches: 2, ..regex("^1[13]$") }).await;
    assert_eq!(shown(&found), ["10-10", "11:11", "12-12", "13:13", "14-14"]);
    let found = grep(&session, &task, LineSearch { max_matches: 3, ..regex("^1") }).await;
    assert_eq!(numbers(&found), [1, 10, 11]);
    assert_eq!((found.matching_lines, found.omitted_lines), (11_112, 11_109));
    let substring =
        |text: &str| LineSearch { pattern: Some(Pattern::Substring(text.to_owned())), ..Default::default() };
    assert_eq!(grep(&session, &task, substring("error: ")).await.matching_lines, 0);
    let ignoring = LineSearch { ignore_case: true, ..substring("error: ") };
    assert_eq!(numbers(&grep(&session, &task, ignoring).await), [20_001]);
    assert_eq!(grep(&session, &task, substring(r"\d")).await.matching_lines, 0);
    // What arrives later is found by the next search.
    session.exec("touch /workspace/go").await;
    session.finished(&task).await;
    assert_eq!(grep(&session, &task, regex("^done$")).await.matching_lines, 1);
}

#[tokio::test]
async fn one_of_two_streams_is_searched() {
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    let command = "for i in 1 2 3; do echo out $i; sleep 0.2; echo err $i >&2; sleep 0.2; done";
    let task = session.run_as(StartTaskRequest { separate_stderr: true, ..session.request(command) }).await;
    let of = |stream: OutputStream| LineSearch { stream: stream.into(), ..regex("2|3") };
    assert_eq!(shown(&grep(&session, &task, of(OutputStream::Stdout)).await), ["2:out 2", "3:out 3"]);
    let errors = grep(&session, &task, of(OutputStream::Stderr)).await;
    assert_eq!(shown(&errors), ["2:err 2", "3:err 3"]);
    assert!(errors.total_lines == 3 && errors.lines.iter().all(|line| line.stream() == OutputStream::Stderr));
    let both = grep(&session, &task, of(OutputStream::Unspecified)).await;
    assert_eq!(shown(&both), ["3:out 2", "4:err 2", "5:out 3", "6:err 3"]);
    let selection = LineSelection { offset: -1, limit: 0, stream: OutputStream::Stdout.into() };
    assert_eq!(shown(&read(&session, &task, Selection::Lines(selection)).await.unwrap()), ["3-out 3"]);

    let together = session.run("echo out").await;
    let refusal = read(&session, &together, Selection::Grep(of(OutputStream::Stderr))).await;
    assert!(refused(refusal, Code::FailedPrecondition).contains("separate_stderr"));
}

#[tokio::test]
async fn lines_beside_missing_output_are_found() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let request = StartTaskRequest { output_limit_bytes: 65_536, ..session.request("seq 1 100000") };
    let task = session.run_as(request).await;
    let gap = task.output_gap.unwrap();
    let found = grep(&session, &task, regex("^(17|50000|99999)$")).await;
    assert_eq!(found.output_gap, Some(gap));
    assert_eq!(found.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["17", "99999"]);
    assert_eq!((found.total_bytes, found.scanned_bytes), (task.output_bytes, task.output_bytes));
    let last = lines(&session, &task, -1, 1).await;
    assert_eq!((last.lines[0].text.as_str(), last.lines[0].end_offset), ("100000", task.output_bytes));
    assert!(last.total_lines < 20_000, "only lines that were kept count: {}", last.total_lines);
}

#[tokio::test]
async fn long_lines_and_large_answers_are_cut() {
    let Some(server) = Server::on(Image::Debian, &[]).await else { return };
    let session = server.session("bot", "session");
    let command = "head -c 3000000 /dev/zero | tr '\\0' x; printf needle; head -c 3000000 /dev/zero | tr '\\0' y; echo; \
                   yes \"$(head -c 1900 /dev/zero | tr '\\0' z)\" | head -n 1000";
    let task = session.run(command).await;
    let found = grep(&session, &task, regex("needle")).await;
    let line = &found.lines[0];
    assert!(line.text.contains("xneedley") && line.text.len() == 2000, "{}", line.text);
    assert_eq!((line.omitted_characters, line.end_offset), (6_000_006 - 2000, 6_000_007));
    let found = grep(&session, &task, LineSearch { max_matches: 1000, ..regex("zzz") }).await;
    assert_eq!((found.matching_lines, found.omitted_lines + found.lines.len() as i64), (1000, 1000));
    assert!(found.omitted_lines > 700, "{}", found.omitted_lines);
    let last = lines(&session, &task, -1000, 1000).await;
    assert_eq!((last.lines.last().unwrap().number, last.omitted_lines + last.lines.len() as i64), (1001, 1000));
}

async fn output_is_rendered_and_condensed(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let command = "printf '\\033[1mstart\\033[0m\\n'; i=0; while [ $i -le 100 ]; do printf '\\rfetch %d%%' $i; i=$((i+1)); done; \
                   echo; i=0; while [ $i -lt 300 ]; do echo 'warning: the same'; i=$((i+1)); done; \
                   seq 1 9000; printf 'end\\n> '";
    let task = session.run(command).await;
    let as_format = async |format: OutputFormat, selection, max_characters| {
        let (task_id, format) = (task.task_id.clone(), format.into());
        let request = ReadOutputRequest { task_id, format, selection, max_characters, ..Default::default() };
        session.try_read(request).await.unwrap()
    };
    let condensed = as_format(OutputFormat::Condensed, None, 1000).await;
    let [part] = &condensed.parts[..] else { panic!("{:?}", condensed.parts) };
    let shown = text(part);
    assert!(shown.starts_with("start\nfetch 100%\nwarning: the same\n[the same line 299 more times]\n1\n"), "{shown}");
    assert!(shown.ends_with("\n9000\nend\n> ") && shown.chars().count() <= 1000, "{shown}");
    let (characters, breaks) = (condensed.omitted_characters, condensed.omitted_lines);
    assert!(
        shown.contains(&format!("[... {characters} characters with {breaks} line breaks left out ...]")),
        "{shown}"
    );
    assert_eq!((condensed.folded_lines, condensed.omitted_bytes), (299, 0));
    assert_eq!((part.offset, part.next_offset, condensed.total_bytes), (0, task.output_bytes, task.output_bytes));
    // With room enough nothing is left out but what repeats.
    let condensed = as_format(OutputFormat::Condensed, None, 200_000).await;
    assert_eq!((condensed.omitted_characters, condensed.folded_lines), (0, 299));
    assert!(text(&condensed.parts[0]).chars().count() > 40_000);

    let head = Some(Selection::Range(OutputRange { offset: 0, limit: 1500 }));
    let rendered = as_format(OutputFormat::Rendered, head, 0).await;
    assert!(text(&rendered.parts[0]).starts_with("start\nfetch 100%\nwarning: the same\nwarning: the same\n"));
    assert_eq!(rendered.parts[0].next_offset, 1500);
    let tail = Some(Selection::Tail(OutputTail { limit: 20 }));
    let tail = as_format(OutputFormat::Rendered, tail, 0).await;
    assert_eq!(text(&tail.parts[0]), "8999\n9000\nend\n> ");
}

#[tokio::test]
async fn streams_carry_rendered_lines() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let command = "printf '\\033[32mone\\033[0m\\n1%%'; sleep 0.3; printf '\\r100%%\\n'; sleep 0.3; printf '> '";
    let format = OutputFormat::Rendered.into();
    let request = RunTaskRequest { start: Some(session.request(command)), format, ..Default::default() };
    let mut stream = session.tasks().run_task(request).await.unwrap().into_inner();
    let mut texts = Vec::new();
    let task = loop {
        match soon("more of a stream comes", stream.message()).await.unwrap().unwrap().event.unwrap() {
            run_task_response::Event::Output(part) => texts.push(text(&part)),
            run_task_response::Event::Finished(task) => break task,
            run_task_response::Event::Accepted(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(texts, ["one\n", "100%\n", "> "]);
    let request = StreamOutputRequest { task_id: task.task_id.clone(), format, ..Default::default() };
    let mut stream = session.tasks().stream_output(request).await.unwrap().into_inner();
    let mut parts = Vec::new();
    while let Some(message) = soon("more of a stream comes", stream.message()).await.unwrap() {
        if let Some(stream_output_response::Event::Output(part)) = message.event {
            parts.push(part);
        }
    }
    assert_eq!(parts.iter().map(text).collect::<String>(), "one\n100%\n> ");
    assert_eq!(parts.last().unwrap().next_offset, task.output_bytes);
}
