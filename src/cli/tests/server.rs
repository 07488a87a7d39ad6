//! A scripted server with one task, and a port for it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, transport::Server};

use errand_proto::v1::{
    self, Exited, Outcome, OutputPart, Signaled, Task, TaskStatus, WaitResult,
    outcome::Kind,
    output_part::Content,
    read_output_request::Selection,
    run_task_response, stream_output_response,
    task_service_server::{TaskService, TaskServiceServer},
};

/// Id of the one task.
pub(super) const ID: &str = "0190a7c4-0000-7000-8000-000000000000";
/// The output of the task.
pub(super) const LOG: &[u8] = b"one\ntwo \xff\n";

/// A server with one task. The task prints [`LOG`], moves to the background after its first four bytes and is then ended by SIGKILL. The
/// server records the requests that matter.
#[derive(Default)]
struct Script {
    seen: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn saw(&self, what: String) {
        self.seen.lock().unwrap().push(what);
    }
}

fn running() -> Task {
    Task { task_id: ID.to_owned(), status: TaskStatus::Running.into(), command: "work".to_owned(), ..Task::default() }
}

fn killed() -> Task {
    let kind = Some(Kind::Signaled(Signaled { signal: 9, name: "SIGKILL".to_owned() }));
    let outcome = Some(Outcome { kind, shell_exit_code: Some(137), out_of_memory: None });
    Task { status: TaskStatus::Failed.into(), outcome, ..running() }
}

fn part(from: usize, to: usize) -> OutputPart {
    let content = Some(Content::Data(LOG[from..to].to_vec().into()));
    OutputPart { offset: from.try_into().unwrap(), content, next_offset: to.try_into().unwrap(), stream: 0 }
}

/// An answer with lines, of which those in `matched` match.
fn lines(numbers: &[i64], matched: &[i64]) -> v1::ReadOutputResponse {
    let line = |number: &i64| v1::OutputLine {
        number: *number,
        text: format!("line {number}"),
        omitted_characters: 5,
        matched: matched.contains(number),
        ..Default::default()
    };
    v1::ReadOutputResponse {
        lines: numbers.iter().map(line).collect(),
        total_lines: 50,
        matching_lines: 12,
        omitted_lines: 10,
        total_bytes: 4096,
        scanned_bytes: 1024,
        output_gap: Some(v1::OutputGap { start: 100, end: 200 }),
        ..Default::default()
    }
}

/// An answer with condensed output.
fn condensed() -> v1::ReadOutputResponse {
    let content = Some(Content::Text("short\n".to_owned()));
    v1::ReadOutputResponse {
        parts: vec![OutputPart { offset: 0, content, next_offset: 9000, stream: 0 }],
        folded_lines: 7,
        omitted_characters: 80,
        omitted_lines: 8,
        omitted_bytes: 2048,
        ..Default::default()
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn answers<T: Send + 'static>(messages: Vec<T>) -> Response<Answers<T>> {
    Response::new(Box::pin(tokio_stream::iter(messages.into_iter().map(Ok))))
}

#[tonic::async_trait]
impl TaskService for Script {
    type RunTaskStream = Answers<v1::RunTaskResponse>;
    type StreamOutputStream = Answers<v1::StreamOutputResponse>;
    type WatchTasksStream = Answers<v1::WatchTasksResponse>;

    async fn start_task(
        &self,
        request: Request<v1::StartTaskRequest>,
    ) -> Result<Response<v1::StartTaskResponse>, Status> {
        let token = request.metadata().get("authorization").map(|token| token.to_str().unwrap().to_owned());
        self.saw(format!("start {:?} {token:?}", request.into_inner().command));
        Ok(Response::new(v1::StartTaskResponse { task: Some(running()), existed: false }))
    }

    async fn run_task(&self, request: Request<v1::RunTaskRequest>) -> Result<Response<Self::RunTaskStream>, Status> {
        use run_task_response::Event;
        let request = request.into_inner();
        let start = request.start.unwrap();
        self.saw(format!("run {:?} acknowledge={}", start.command, request.acknowledge));
        let events = if start.command == "true" {
            let outcome =
                Outcome { kind: Some(Kind::Exited(Exited { code: 0 })), shell_exit_code: Some(0), out_of_memory: None };
            vec![Event::Accepted(running()), Event::Finished(Task { outcome: Some(outcome), ..running() })]
        } else {
            vec![Event::Accepted(running()), Event::Output(part(0, 4)), Event::Backgrounded(running())]
        };
        Ok(answers(
            events.into_iter().map(|event| v1::RunTaskResponse { event: Some(event), lease_id: None }).collect(),
        ))
    }

    async fn stream_output(
        &self,
        request: Request<v1::StreamOutputRequest>,
    ) -> Result<Response<Self::StreamOutputStream>, Status> {
        use stream_output_response::Event;
        let request = request.into_inner();
        let offset = usize::try_from(request.offset).unwrap();
        if request.format() == v1::OutputFormat::Rendered {
            self.saw(format!("rendered from {offset} follow={}", !request.no_follow));
        } else {
            self.saw(format!("stream from {offset}"));
        }
        let events = [Event::Output(part(offset, LOG.len())), Event::Finished(killed())];
        Ok(answers(events.into_iter().map(|event| v1::StreamOutputResponse { event: Some(event) }).collect()))
    }

    async fn wait_task(&self, request: Request<v1::WaitTaskRequest>) -> Result<Response<v1::WaitTaskResponse>, Status> {
        let request = request.into_inner();
        let mode = if request.acknowledge_mode == 0 { "" } else { " on receipt" };
        self.saw(format!("wait acknowledge={}{mode}", request.acknowledge));
        let lease_id = if mode.is_empty() { String::new() } else { "lease".to_owned() };
        let offset = request.until_match.map(|pattern| pattern.offset);
        let (task, result) = match (request.task_id.as_str(), offset) {
            ("endless", _) | (_, Some(0)) => (running(), WaitResult::Timeout),
            (_, Some(7)) => (running(), WaitResult::Matched),
            _ => (killed(), WaitResult::Finished),
        };
        let line = "server ready".to_owned();
        let found = v1::OutputMatch { offset: 9, end_offset: 14, line, line_cut: false };
        Ok(Response::new(v1::WaitTaskResponse {
            task: Some(task),
            result: result.into(),
            output_match: (result == WaitResult::Matched).then_some(found),
            next_match_offset: 7,
            lease_id,
        }))
    }

    async fn read_output(
        &self,
        request: Request<v1::ReadOutputRequest>,
    ) -> Result<Response<v1::ReadOutputResponse>, Status> {
        let request = request.into_inner();
        let receipt = request.acknowledge_mode != 0;
        if request.format() == v1::OutputFormat::Condensed {
            self.saw(format!("condensed to {} of {:?}", request.max_characters, request.selection));
            return Ok(Response::new(condensed()));
        }
        let parts = match request.selection.unwrap() {
            Selection::Lines(selection) => {
                self.saw(format!("lines {} {}", selection.offset, selection.limit));
                return Ok(Response::new(lines(&[3, 4], &[])));
            }
            Selection::Grep(search) => {
                let v1::LineSearch { pattern, ignore_case, before, after, max_matches, stream } = search;
                self.saw(format!("grep {pattern:?} {ignore_case} {before} {after} {max_matches} {stream}"));
                return Ok(Response::new(lines(&[3, 4, 9], &[4, 9])));
            }
            // Three bytes at a time, so that reading takes several calls.
            Selection::Range(range) => {
                let offset = usize::try_from(range.offset).unwrap();
                vec![part(offset, LOG.len().min(offset + 3))]
            }
            Selection::Tail(_) => vec![part(LOG.len() - 1, LOG.len())],
            Selection::HeadTail(_) => return Err(Status::unimplemented("")),
        };
        let total_bytes = LOG.len().try_into().unwrap();
        let ends = parts.last().is_some_and(|part| part.next_offset == total_bytes);
        let lease_id = if receipt && ends { "lease".to_owned() } else { String::new() };
        Ok(Response::new(v1::ReadOutputResponse { parts, total_bytes, lease_id, ..Default::default() }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        // Two pages.
        let next_page_token = if request.into_inner().page_token.is_empty() { "more" } else { "" };
        let tasks = vec![running()];
        Ok(Response::new(v1::ListTasksResponse { tasks, next_page_token: next_page_token.to_owned() }))
    }

    async fn write_input(
        &self,
        request: Request<v1::WriteInputRequest>,
    ) -> Result<Response<v1::WriteInputResponse>, Status> {
        let v1::WriteInputRequest { offset, data, end, .. } = request.into_inner();
        self.saw(format!("input {offset:?} {:?} end={end}", String::from_utf8_lossy(&data)));
        // Three bytes at a time, so that writing takes several calls.
        let accepted_bytes = i64::try_from(data.len().min(3)).unwrap();
        let ended = end && data.len() <= 3;
        Ok(Response::new(v1::WriteInputResponse { taken_bytes: 0, accepted_bytes, ended, limited_by: 0 }))
    }

    async fn resize_terminal(
        &self,
        request: Request<v1::ResizeTerminalRequest>,
    ) -> Result<Response<v1::ResizeTerminalResponse>, Status> {
        self.saw(format!("resize {:?}", request.into_inner().size));
        Ok(Response::new(v1::ResizeTerminalResponse {}))
    }

    async fn stop_task(&self, request: Request<v1::StopTaskRequest>) -> Result<Response<v1::StopTaskResponse>, Status> {
        let request = request.into_inner();
        self.saw(format!("stop {:?}{}", request.reason, if request.acknowledge { " acknowledged" } else { "" }));
        match request.task_id.as_str() {
            ID => Ok(Response::new(v1::StopTaskResponse { task: Some(killed()) })),
            _ => Err(Status::not_found("there is no such task")),
        }
    }

    async fn wait_tasks(
        &self,
        request: Request<v1::WaitTasksRequest>,
    ) -> Result<Response<v1::WaitTasksResponse>, Status> {
        let request = request.into_inner();
        let mut offsets: Vec<_> = request.match_offsets.iter().collect();
        offsets.sort();
        self.saw(format!("wait for {:?} mode={} from {offsets:?}", request.task_ids, request.mode));
        // At first only the first task meets a condition, then all.
        let first = offsets.is_empty();
        let waits = request.task_ids.iter().enumerate().map(|(index, task_id)| {
            let (task_id, task) = (task_id.clone(), Some(killed()));
            match index {
                0 => v1::TaskWait { task_id, task, result: WaitResult::Finished.into(), ..Default::default() },
                _ if first => v1::TaskWait {
                    task_id,
                    result: WaitResult::Timeout.into(),
                    next_match_offset: 7,
                    ..Default::default()
                },
                _ => v1::TaskWait { task_id, task, result: WaitResult::Stalled.into(), ..Default::default() },
            }
        });
        Ok(Response::new(v1::WaitTasksResponse { waits: waits.collect() }))
    }

    async fn signal_task(
        &self,
        request: Request<v1::SignalTaskRequest>,
    ) -> Result<Response<v1::SignalTaskResponse>, Status> {
        let request = request.into_inner();
        self.saw(format!("signal {} {}", request.signal, request.target().as_str_name()));
        Ok(Response::new(v1::SignalTaskResponse { task: Some(running()), signaled_processes: 2 }))
    }

    async fn set_watches(
        &self,
        request: Request<v1::SetWatchesRequest>,
    ) -> Result<Response<v1::SetWatchesResponse>, Status> {
        let request = request.into_inner();
        self.saw(format!("watches {} from {:?}", request.watches.len(), request.from_offset));
        let state = |watch| v1::OutputWatchState { watch: Some(watch), next_offset: 9, ..Default::default() };
        Ok(Response::new(v1::SetWatchesResponse { watches: request.watches.into_iter().map(state).collect() }))
    }

    async fn watch_tasks(
        &self,
        request: Request<v1::WatchTasksRequest>,
    ) -> Result<Response<Self::WatchTasksStream>, Status> {
        use v1::watch_tasks_response::Event;
        self.saw(format!("watch after {:?}", request.into_inner().cursor));
        let events = [
            Event::SnapshotStarted(v1::TaskSnapshot { cursor_too_old: false }),
            Event::Listed(running()),
            Event::SnapshotComplete(v1::TaskSnapshotEnd {}),
            Event::Changed(v1::TaskChange {
                event: v1::TaskEvent::Ended.into(),
                task_id: ID.to_owned(),
                task: Some(killed()),
                ..Default::default()
            }),
        ];
        let cursor = "c".to_owned();
        Ok(answers(events.map(|event| v1::WatchTasksResponse { event: Some(event), cursor: cursor.clone() }).into()))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::GetTaskResponse>, Status> {
        if let Some(receipt) = request.metadata().get("errand-receipt") {
            self.saw(format!("received {}", receipt.to_str().unwrap()));
        }
        Ok(Response::new(v1::GetTaskResponse { task: Some(running()) }))
    }

    async fn set_notify_policy(
        &self,
        request: Request<v1::SetNotifyPolicyRequest>,
    ) -> Result<Response<v1::SetNotifyPolicyResponse>, Status> {
        let task = Task { notify: request.into_inner().notify, ..running() };
        Ok(Response::new(v1::SetNotifyPolicyResponse { task: Some(task) }))
    }

    async fn stop_tasks(&self, _: Request<v1::StopTasksRequest>) -> Result<Response<v1::StopTasksResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn summarize_tasks(
        &self,
        _: Request<v1::SummarizeTasksRequest>,
    ) -> Result<Response<v1::SummarizeTasksResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// The scripted server on its own port. Dropping this ends the server.
pub(super) struct Fixture {
    /// The server's address.
    pub(super) url: String,
    seen: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fixture {
    /// Starts the server.
    pub(super) async fn start() -> Self {
        let script = Script::default();
        let seen = Arc::clone(&script.seen);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (health, service) = tonic_health::server::health_reporter();
            health.set_serving::<TaskServiceServer<Script>>().await;
            let router = Server::builder().add_service(service).add_service(TaskServiceServer::new(script));
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { url, seen, server }
    }

    /// The calls so far.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}
