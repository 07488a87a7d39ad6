//! Every rule of the protocol: a caller that breaks one is told the field.

use std::collections::HashMap;

use errand_proto::v1::{read_output_request::Selection, *};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    client::{Session, duration, ended},
    docker::Image,
    server::Server,
};

#[track_caller]
fn names<T>(result: Result<T, Status>, field: &str) {
    let Err(status) = result else { panic!("accepted in spite of {field}") };
    assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
    let violations = status.get_details_bad_request().expect("the violations are listed").field_violations;
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, [field], "{violations:?}");
    assert!(status.message().starts_with(field), "{}", status.message());
}

fn entries(count: usize) -> HashMap<String, String> {
    (0..count).map(|number| (format!("K{number}"), String::new())).collect()
}

fn entry(key: &str, value: &str) -> HashMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

fn negative() -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: -1, nanos: 0 })
}

/// Start requests that break one rule each, with the field of that rule.
fn bad_starts(session: &Session) -> Vec<(StartTaskRequest, &'static str)> {
    let good = || session.request("echo");
    let none = || session.request("");
    let mut starts = Vec::new();
    for bot_id in ["", "a b", "a/b", "ä", &"x".repeat(129)] {
        starts.push((StartTaskRequest { bot_id: bot_id.to_owned(), ..good() }, "bot_id"));
        starts.push((StartTaskRequest { session_id: bot_id.to_owned(), ..good() }, "session_id"));
    }
    for command in ["", " \n", "echo \0", &"x".repeat((1 << 20) + 1)] {
        starts.push((session.request(command), "command"));
    }
    starts.push((StartTaskRequest { command: "echo".to_owned(), ..session.argv(&["echo"]) }, "command"));
    starts.push((session.argv(&[""]), "argv[0]"));
    starts.push((session.argv(&["echo", "a\0"]), "argv[1]"));
    starts.push((session.argv(&["echo", &"x".repeat(1 << 20)]), "argv"));
    for workdir in ["relative", "./x"] {
        starts.push((StartTaskRequest { workdir: workdir.to_owned(), ..good() }, "workdir"));
    }
    starts.push((StartTaskRequest { workdir: format!("/{}", "x".repeat(4096)), ..good() }, "workdir"));
    starts.push((StartTaskRequest { workdir: "/a\0".to_owned(), ..good() }, "workdir"));
    starts.push((StartTaskRequest { shell: "s\0".to_owned(), ..good() }, "shell"));
    starts.push((StartTaskRequest { env: entries(257), ..good() }, "env"));
    starts.push((StartTaskRequest { env: entry("BIG", &"x".repeat(65_536)), ..good() }, "env"));
    starts.push((StartTaskRequest { env: entry("A=B", ""), ..good() }, "env[\"A=B\"]"));
    starts.push((StartTaskRequest { env: entry("", ""), ..good() }, "env[\"\"]"));
    starts.push((StartTaskRequest { env: entry("A", "\0"), ..good() }, "env[\"A\"]"));
    starts.push((StartTaskRequest { description: "ä".repeat(1001), ..good() }, "description"));
    for timeout in [negative(), duration(0.0), duration(86_401.0)] {
        starts.push((StartTaskRequest { timeout, ..good() }, "timeout"));
    }
    starts.push((StartTaskRequest { labels: entries(65), ..good() }, "labels"));
    starts.push((StartTaskRequest { labels: entry("", ""), ..good() }, "labels[\"\"]"));
    starts.push((StartTaskRequest { labels: entry("k", &"x".repeat(256)), ..good() }, "labels[\"k\"]"));
    starts.push((StartTaskRequest { request_id: "x".repeat(129), ..good() }, "request_id"));
    for (size, field) in [((0, 80), "terminal.rows"), ((24, 65_536), "terminal.columns"), ((-1, 80), "terminal.rows")] {
        let terminal = Some(TerminalSize { rows: size.0, columns: size.1 });
        starts.push((StartTaskRequest { terminal, ..good() }, field));
    }
    let terminal = Some(TerminalSize { rows: 24, columns: 80 });
    starts.push((StartTaskRequest { terminal, separate_stderr: true, ..good() }, "separate_stderr"));
    for user in ["a b", ":1", "a:b:c", "-u", &"x".repeat(129)] {
        starts.push((StartTaskRequest { user: user.to_owned(), ..good() }, "user"));
    }
    for nice in [-1, 20] {
        starts.push((StartTaskRequest { nice, ..good() }, "nice"));
    }
    for output_limit_bytes in [-1, 65_535, (10 << 30) + 1] {
        starts.push((StartTaskRequest { output_limit_bytes, ..good() }, "output_limit_bytes"));
    }
    let limits = Some(ResourceLimits { stack_bytes: Some(65_535), ..Default::default() });
    starts.push((StartTaskRequest { limits, ..good() }, "limits.stack_bytes"));
    for (spec, field) in bad_specs() {
        let field = &*format!("sandbox.{field}").leak();
        starts.push((StartTaskRequest { sandbox: Some(spec), ..good() }, field));
    }
    starts.push((none(), "command"));
    starts
}

/// Sandbox specs that break one rule each, with the field of that rule.
fn bad_specs() -> Vec<(SandboxSpec, &'static str)> {
    let network = |mode: &str| SandboxSpec { network_mode: mode.to_owned(), ..Default::default() };
    vec![
        (SandboxSpec { image: "two words".to_owned(), ..Default::default() }, "image"),
        (SandboxSpec { memory_bytes: -1, ..Default::default() }, "memory_bytes"),
        (SandboxSpec { memory_bytes: 6 * 1024 * 1024 - 1, ..Default::default() }, "memory_bytes"),
        (SandboxSpec { cpus: 0.009, ..Default::default() }, "cpus"),
        (SandboxSpec { cpus: -1.0, ..Default::default() }, "cpus"),
        (SandboxSpec { cpus: f64::NAN, ..Default::default() }, "cpus"),
        (SandboxSpec { cpus: f64::INFINITY, ..Default::default() }, "cpus"),
        (SandboxSpec { pids_limit: 7, ..Default::default() }, "pids_limit"),
        (SandboxSpec { pids_limit: -1, ..Default::default() }, "pids_limit"),
        (network("host"), "network_mode"),
        (network("container:x"), "network_mode"),
        (network("a b"), "network_mode"),
        (SandboxSpec { user: "a\nb".to_owned(), ..Default::default() }, "user"),
        (SandboxSpec { env: entries(257), ..Default::default() }, "env"),
        (SandboxSpec { env: entry("1=A", ""), ..Default::default() }, "env[\"1=A\"]"),
    ]
}

#[tokio::test]
async fn invalid_command_names_field_and_creates_nothing() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    for (start, field) in bad_starts(&session) {
        names(session.tasks().start_task(start.clone()).await, field);
        let run = RunTaskRequest { start: Some(start), ..Default::default() };
        names(session.tasks().run_task(run).await, &format!("start.{field}"));
    }
    names(session.tasks().run_task(RunTaskRequest::default()).await, "start");
    let good = || RunTaskRequest { start: Some(session.request("echo")), ..Default::default() };
    for background_after in [negative(), duration(601.0)] {
        names(session.tasks().run_task(RunTaskRequest { background_after, ..good() }).await, "background_after");
    }
    names(session.tasks().run_task(RunTaskRequest { on_disconnect: 99, ..good() }).await, "on_disconnect");
    names(session.tasks().run_task(RunTaskRequest { format: 99, ..good() }).await, "format");
    for (spec, field) in bad_specs() {
        let ensure = EnsureSandboxRequest { bot_id: session.bot.clone(), spec: Some(spec) };
        names(session.sandboxes().ensure_sandbox(ensure).await, &format!("spec.{field}"));
    }
    assert_eq!(server.containers().await, Vec::<String>::new());
    assert_eq!(session.listed(ListTasksRequest::default()).await, []);
}

#[tokio::test]
async fn values_at_the_limits_are_accepted() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let request = StartTaskRequest {
        session_id: format!("A-z.0_9:@{}", "x".repeat(119)),
        description: "ä".repeat(1000),
        env: entries(256),
        labels: (0..64).map(|number| (format!("{number:063}"), "ä".repeat(255))).collect(),
        timeout: duration(86_400.0),
        request_id: "ä".repeat(128),
        ..session.request("env | grep -c ^K")
    };
    let task = session.run_as(request).await;
    assert_eq!(ended(&task), "exited 0");
    assert_eq!(session.text(&task).await, "256\n");
    let env = entry("BIG", &"x".repeat(65_536 - 3));
    let task = session.run_as(StartTaskRequest { env, ..session.request("printf %s \"$BIG\" | wc -c") }).await;
    assert_eq!(session.text(&task).await.trim(), "65533");
}

#[tokio::test]
async fn invalid_task_query_names_the_field() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task_id = errand_task::TaskId::new().to_string();
    let mut tasks = session.tasks();
    for bad in ["", "no-id", "../x"] {
        let task_id = bad.to_owned();
        names(tasks.get_task(GetTaskRequest { task_id: task_id.clone(), ..Default::default() }).await, "task_id");
        names(tasks.wait_task(WaitTaskRequest { task_id: task_id.clone(), ..Default::default() }).await, "task_id");
        names(tasks.read_output(ReadOutputRequest { task_id: task_id.clone(), ..Default::default() }).await, "task_id");
        names(
            tasks.stream_output(StreamOutputRequest { task_id: task_id.clone(), ..Default::default() }).await,
            "task_id",
        );
        names(tasks.stop_task(StopTaskRequest { task_id, ..Default::default() }).await, "task_id");
    }
    let get = |bot_id: &str, session_id: &str| GetTaskRequest {
        task_id: task_id.clone(),
        bot_id: bot_id.to_owned(),
        session_id: session_id.to_owned(),
    };
    names(tasks.get_task(get("a b", "")).await, "bot_id");
    names(tasks.get_task(get("", "a b")).await, "session_id");

    let wait = || WaitTaskRequest { task_id: task_id.clone(), ..Default::default() };
    for timeout in [negative(), duration(601.0)] {
        names(tasks.wait_task(WaitTaskRequest { timeout, ..wait() }).await, "timeout");
    }
    for until_idle in [negative(), duration(0.9)] {
        names(tasks.wait_task(WaitTaskRequest { until_idle, ..wait() }).await, "until_idle");
    }
    let range = |offset, limit| Selection::Range(OutputRange { offset, limit });
    let both = |head, tail| Selection::HeadTail(OutputHeadTail { head, tail });
    let lines = |offset, limit| Selection::Lines(LineSelection { offset, limit, stream: 0 });
    let search = || LineSearch { pattern: Some(line_search::Pattern::Substring("x".to_owned())), ..Default::default() };
    let grep = Selection::Grep;
    for (selection, field) in [
        (range(-1, 0), "range.offset"),
        (range(0, -1), "range.limit"),
        (range(0, 1_048_577), "range.limit"),
        (Selection::Tail(OutputTail { limit: -1 }), "tail.limit"),
        (Selection::Tail(OutputTail { limit: 1_048_577 }), "tail.limit"),
        (both(-1, 0), "head_tail.head"),
        (both(0, -1), "head_tail.tail"),
        (both(524_289, 0), "head_tail.head"),
        (both(0, 524_289), "head_tail.tail"),
        (lines(-2001, 0), "lines.offset"),
        (lines(0, 2001), "lines.limit"),
        (Selection::Grep(LineSearch::default()), "grep.substring"),
        (grep(LineSearch { before: 21, ..search() }), "grep.before"),
        (grep(LineSearch { max_matches: 1001, ..search() }), "grep.max_matches"),
    ] {
        let selection = Some(selection);
        let read = ReadOutputRequest { task_id: task_id.clone(), selection, ..Default::default() };
        names(tasks.read_output(read).await, field);
    }
    let read = ReadOutputRequest { task_id: task_id.clone(), format: 99, ..Default::default() };
    names(tasks.read_output(read).await, "format");
    let read = ReadOutputRequest { task_id: task_id.clone(), max_characters: 300, ..Default::default() };
    names(tasks.read_output(read).await, "max_characters");
    let condensed = OutputFormat::Condensed.into();
    let stream = StreamOutputRequest { task_id: task_id.clone(), format: condensed, ..Default::default() };
    names(tasks.stream_output(stream).await, "format");
    let stream = StreamOutputRequest { task_id: task_id.clone(), offset: -1, ..Default::default() };
    names(tasks.stream_output(stream).await, "offset");
    let stream = StreamOutputRequest { task_id: task_id.clone(), format: -1, ..Default::default() };
    names(tasks.stream_output(stream).await, "format");
    for grace in [negative(), duration(61.0)] {
        names(
            tasks.stop_task(StopTaskRequest { task_id: task_id.clone(), grace, ..Default::default() }).await,
            "grace",
        );
        let all = StopTasksRequest { bot_id: session.bot.clone(), grace, ..Default::default() };
        names(tasks.stop_tasks(all).await, "grace");
    }
    let write = || WriteInputRequest { task_id: task_id.clone(), ..Default::default() };
    for (write, field) in [
        (WriteInputRequest { task_id: String::new(), ..write() }, "task_id"),
        (WriteInputRequest { offset: Some(-1), ..write() }, "offset"),
        (WriteInputRequest { data: vec![0; (1 << 20) + 1].into(), ..write() }, "data"),
        (WriteInputRequest { timeout: duration(601.0), ..write() }, "timeout"),
    ] {
        names(tasks.write_input(write).await, field);
    }
    let resize = |size| ResizeTerminalRequest { task_id: task_id.clone(), size, ..Default::default() };
    names(tasks.resize_terminal(resize(None)).await, "size");
    names(tasks.resize_terminal(resize(Some(TerminalSize { rows: 1, columns: 0 }))).await, "size.columns");
    let reason = "x".repeat(1001);
    let stop = StopTaskRequest { task_id: task_id.clone(), reason: reason.clone(), ..Default::default() };
    names(tasks.stop_task(stop).await, "reason");
    let all = StopTasksRequest { bot_id: session.bot.clone(), reason, ..Default::default() };
    names(tasks.stop_tasks(all).await, "reason");
    names(tasks.stop_tasks(StopTasksRequest::default()).await, "bot_id");
    names(tasks.summarize_tasks(SummarizeTasksRequest::default()).await, "bot_id");

    for (list, field) in [
        (ListTasksRequest { bot_id: "a b".to_owned(), ..Default::default() }, "bot_id"),
        (ListTasksRequest { session_id: "a b".to_owned(), ..Default::default() }, "session_id"),
        (ListTasksRequest { statuses: vec![99], ..Default::default() }, "statuses[0]"),
        (ListTasksRequest { statuses: vec![5, 0], ..Default::default() }, "statuses[1]"),
        (ListTasksRequest { labels: entries(65), ..Default::default() }, "labels"),
        (ListTasksRequest { page_size: -1, ..Default::default() }, "page_size"),
        (ListTasksRequest { page_size: 1001, ..Default::default() }, "page_size"),
        (ListTasksRequest { page_token: "?".to_owned(), ..Default::default() }, "page_token"),
    ] {
        names(tasks.list_tasks(list).await, field);
    }
}

#[tokio::test]
async fn invalid_notification_request_names_the_field() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let mut client = session.notifications();
    let bot = || session.bot.clone();
    let subscribe = || SubscribeRequest { bot_id: bot(), ..Default::default() };
    let drain = || DrainNotificationsRequest { bot_id: bot(), ..Default::default() };
    names(client.subscribe(SubscribeRequest::default()).await, "bot_id");
    names(client.subscribe(SubscribeRequest { session_id: "a b".to_owned(), ..subscribe() }).await, "session_id");
    names(client.subscribe(SubscribeRequest { after_sequence: -1, ..subscribe() }).await, "after_sequence");
    names(client.subscribe(SubscribeRequest { delivery: 99, ..subscribe() }).await, "delivery");
    names(client.drain_notifications(DrainNotificationsRequest::default()).await, "bot_id");
    for max_notifications in [-1, 1001] {
        let drain = DrainNotificationsRequest { max_notifications, ..drain() };
        names(client.drain_notifications(drain).await, "max_notifications");
    }
    for lease_duration in [negative(), duration(0.9), duration(3601.0)] {
        let subscribe = SubscribeRequest { lease_duration, ..subscribe() };
        names(client.subscribe(subscribe).await, "lease_duration");
        let drain = DrainNotificationsRequest { lease_duration, ..drain() };
        names(client.drain_notifications(drain).await, "lease_duration");
    }
    let lease = || errand_task::LeaseId::new().to_string();
    for (bot_id, sequences, lease_id, field) in [
        (String::new(), vec![1], String::new(), "bot_id"),
        (bot(), vec![], String::new(), "sequences"),
        (bot(), vec![1], lease(), "sequences"),
        (bot(), vec![1; 1001], String::new(), "sequences"),
        (bot(), vec![], "no-id".to_owned(), "lease_id"),
    ] {
        let ack = AckNotificationsRequest {
            bot_id: bot_id.clone(),
            session_id: String::new(),
            sequences: sequences.clone(),
            lease_id: lease_id.clone(),
        };
        names(client.ack_notifications(ack).await, field);
        let nack = NackNotificationsRequest { bot_id, session_id: String::new(), sequences, lease_id };
        names(client.nack_notifications(nack).await, field);
    }
    let list = || ListNotificationsRequest { bot_id: bot(), ..Default::default() };
    for (list, field) in [
        (ListNotificationsRequest::default(), "bot_id"),
        (ListNotificationsRequest { task_id: "no-id".to_owned(), ..list() }, "task_id"),
        (ListNotificationsRequest { page_size: 1001, ..list() }, "page_size"),
        (ListNotificationsRequest { page_token: "?".to_owned(), ..list() }, "page_token"),
    ] {
        names(client.list_notifications(list).await, field);
    }
}

#[tokio::test]
async fn invalid_sandbox_request_names_the_field() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let mut client = session.sandboxes();
    for bot_id in ["", "a b"].map(str::to_owned) {
        let ensure = EnsureSandboxRequest { bot_id: bot_id.clone(), spec: None };
        names(client.ensure_sandbox(ensure).await, "bot_id");
        let adopt = AdoptSandboxRequest { bot_id: bot_id.clone(), container: "x".to_owned() };
        names(client.adopt_sandbox(adopt).await, "bot_id");
        names(client.get_sandbox(GetSandboxRequest { bot_id: bot_id.clone() }).await, "bot_id");
        names(client.stop_sandbox(StopSandboxRequest { bot_id: bot_id.clone() }).await, "bot_id");
        names(client.delete_sandbox(DeleteSandboxRequest { bot_id }).await, "bot_id");
    }
    for container in ["", "a b", "../x", "/x"] {
        let adopt = AdoptSandboxRequest { bot_id: session.bot.clone(), container: container.to_owned() };
        names(client.adopt_sandbox(adopt).await, "container");
    }
    for (list, field) in [
        (ListSandboxesRequest { page_size: 1001, ..Default::default() }, "page_size"),
        (ListSandboxesRequest { page_token: "?".to_owned(), ..Default::default() }, "page_token"),
    ] {
        names(client.list_sandboxes(list).await, field);
    }
}

#[tokio::test]
async fn all_mistakes_of_a_request_are_reported() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let request = StartTaskRequest { workdir: "x".to_owned(), timeout: duration(0.0), ..Default::default() };
    let status = session.tasks().start_task(request).await.unwrap_err();
    let fields =
        status.get_details_bad_request().unwrap().field_violations.into_iter().map(|violation| violation.field);
    assert_eq!(fields.collect::<Vec<_>>(), ["bot_id", "session_id", "command", "workdir", "timeout"]);
}
