//! Lies in answers to the calls about tasks.

use std::{fs, path::PathBuf, time::Duration};

use bytes::Bytes;
use errand_proto::bridge::{
    AttachRequest, AttachResponse, AwaitPortsRequest, AwaitPortsResponse, Finding, Gap, HelloRequest, HelloResponse,
    LaunchRequest, LaunchResponse, LogHead, Output, ProbeRequest, ProbeResponse, Process, ReadLogRequest,
    ReadLogResponse, RemoveRequest, RemoveResponse, Report, ResizeTerminalRequest, ResizeTerminalResponse,
    ScanLogRequest, ScanLogResponse, ScannedLine, SignalRequest, SignalResponse, WriteInputRequest, WriteInputResponse,
    bridge_service_server::BridgeService, read_log_request::From, read_log_response::Part,
};
use futures_util::{
    StreamExt as _,
    stream::{iter, repeat_with, unfold},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    Answers,
    reports::{PROCESS, reports},
};

/// The nonce of another launch.
const ANOTHER: &str = "00000000-0000-4000-8000-000000000000";
/// The longest status message that can be sent: HTTP/2 rejects a longer one on the liar's side.
const WORDS: usize = 12 * 1024;

/// Answers calls.
#[derive(Clone)]
pub(crate) struct Liar {
    pub(crate) lie: String,
    killed: watch::Sender<bool>,
    /// A file that exists once the task was killed: each connection has a liar process of its own.
    mark: PathBuf,
}

impl Liar {
    pub(crate) fn new(lie: &str, mark: PathBuf) -> Self {
        Self { lie: lie.to_owned(), killed: watch::Sender::new(mark.exists()), mark }
    }

    pub(crate) fn is(&self, lie: &str) -> bool {
        self.lie == lie
    }

    /// Never answers, or refuses with a long message, if the lie says so.
    pub(crate) async fn answer<T>(&self, answer: T) -> Result<Response<T>, Status> {
        match self.lie.as_str() {
            "speechless" => std::future::pending().await,
            "huge_refusals" => Err(Status::internal("no\u{1b}[2J".repeat(WORDS / 6))),
            "unknown_refusals" => Err(Status::unknown("")),
            "crowded" => Err(Status::resource_exhausted("no shim can be made")),
            _ => Ok(Response::new(answer)),
        }
    }

    fn finding(&self, nonce: &str) -> Finding {
        let killed = *self.killed.borrow();
        let honest = Finding {
            directory: true,
            started: true,
            process: Some(PROCESS),
            alive: !killed,
            supervised: !killed,
            exit_file: killed.then(|| format!("errand 1 {nonce} signaled 9\n").into()),
            output_bytes: 5,
            ..Finding::default()
        };
        match self.lie.as_str() {
            "another_tasks" => Finding {
                alive: false,
                supervised: false,
                exit_file: Some(format!("errand 1 {ANOTHER} exited 0\n").into()),
                ..honest
            },
            "huge_findings" => Finding { exit_file: Some(vec![b'x'; 64 << 20].into()), ..honest },
            "impossible_times" => Finding {
                process: Some(Process { pid: 1, start_ticks: u64::MAX }),
                output_bytes: u64::MAX,
                gap: Some(Gap { start: u64::MAX, end: 1 }),
                ..honest
            },
            "impossible_processes" => {
                Finding { process: Some(Process { pid: u32::MAX, start_ticks: u64::MAX }), ..honest }
            }
            "immortal" => Finding { exit_file: None, alive: true, supervised: true, ..honest },
            "forgotten" => Finding::default(),
            _ => honest,
        }
    }

    /// The head of a log, and the content that follows it.
    fn log(&self, start: u64, limit: u64) -> (LogHead, Answers<Output>) {
        let piece = |offset, data: Bytes, unpacked| Output { offset, data, unpacked, ..Output::default() };
        let large = Bytes::from(vec![b'x'; 128 * 1024]);
        let endless = LogHead { size: 1 << 40, start, gap: None };
        let mut at = start;
        match self.lie.as_str() {
            "packed_bomb" => {
                // An LZ4 block whose length field goes on: each byte 255 adds 255 bytes.
                let mut block = vec![0x1f, b'x', 1, 0];
                block.resize(100 * 1024, 255);
                let block = Bytes::from(block);
                (
                    endless,
                    Box::pin(iter([1 << 20, 1 << 16, 1, u32::MAX].map(|size| Ok(piece(at, block.clone(), size))))),
                )
            }
            "log_beyond_question" => (
                endless,
                Box::pin(repeat_with(move || {
                    at += large.len() as u64;
                    Ok(piece(at - large.len() as u64, large.clone(), 0))
                })),
            ),
            "endless_log" => (endless, Box::pin(repeat_with(move || Ok(piece(start, Bytes::new(), 0))))),
            "replayed" => (endless, Box::pin(repeat_with(move || Ok(piece(start, Bytes::from_static(b"again"), 0))))),
            "slow_log" => (
                endless,
                Box::pin(unfold(at, move |at| async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Some((Ok(piece(at, Bytes::from_static(b"x"), 0)), at + 1))
                })),
            ),
            "tiny_log" => (
                endless,
                Box::pin(repeat_with(move || {
                    at += 1;
                    Ok(piece(at - 1, Bytes::from_static(b"x"), 0))
                })),
            ),
            "impossible_times" => (LogHead { size: u64::MAX, start: u64::MAX, gap: None }, Box::pin(iter([]))),
            _ => {
                let rest = b"word\n".get(usize::try_from(start).unwrap_or(usize::MAX)..).unwrap_or_default();
                let rest = &rest[..rest.len().min(usize::try_from(limit).unwrap_or(usize::MAX))];
                let piece = (!rest.is_empty()).then(|| Ok(piece(start, Bytes::from_static(rest), 0)));
                (LogHead { size: 5, start, gap: None }, Box::pin(iter(piece)))
            }
        }
    }

    fn reports<T: Send + 'static>(&self, from: u64, wrap: fn(Option<Report>) -> T) -> Answers<T> {
        Box::pin(reports(&self.lie, from, self.killed.subscribe()).map(move |report| Ok(wrap(report))))
    }
}

#[tonic::async_trait]
impl BridgeService for Liar {
    type LaunchStream = Answers<LaunchResponse>;
    type AttachStream = Answers<AttachResponse>;
    type ReadLogStream = Answers<ReadLogResponse>;

    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        let honest = HelloResponse {
            protocol: request.into_inner().protocol,
            version: "0.1.0".to_owned(),
            generation: 1,
            pid: 1,
            boot_time: 1_700_000_000,
            ticks_per_second: 100,
        };
        Ok(Response::new(match self.lie.as_str() {
            "long_version" => HelloResponse { version: "1".repeat(64 << 20), ..honest },
            "strange_version" => HelloResponse { version: "\u{1b}[2J0.1".to_owned(), ..honest },
            "old_protocol" => HelloResponse { protocol: 0, ..honest },
            "impossible_times" => {
                HelloResponse { protocol: u32::MAX, boot_time: u64::MAX, ticks_per_second: 0, pid: u32::MAX, ..honest }
            }
            _ => honest,
        }))
    }

    async fn launch(&self, _request: Request<LaunchRequest>) -> Result<Response<Self::LaunchStream>, Status> {
        self.answer(self.reports(0, |report| LaunchResponse { report })).await
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<Self::AttachStream>, Status> {
        let from = request.into_inner().from;
        self.answer(self.reports(from, |report| AttachResponse { report })).await
    }

    async fn probe(&self, request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let asked = request.into_inner().tasks;
        let findings = if self.is("many_findings") {
            vec![Finding { exit_file: Some(vec![b'x'; 4096].into()), ..self.finding("") }; 10_000]
        } else {
            asked.iter().map(|key| self.finding(&key.nonce)).collect()
        };
        self.answer(ProbeResponse { findings, uptime_ms: if self.is("impossible_times") { u64::MAX } else { 0 } }).await
    }

    async fn signal(&self, request: Request<SignalRequest>) -> Result<Response<SignalResponse>, Status> {
        if request.into_inner().signal == 9 {
            let marked = fs::write(&self.mark, "");
            marked.map_err(|error| Status::internal(error.to_string()))?;
            self.killed.send_replace(true);
        }
        let members = match self.lie.as_str() {
            "immortal" => 1,
            "impossible_processes" => u32::MAX,
            _ => u32::from(!*self.killed.borrow()),
        };
        self.answer(SignalResponse { members }).await
    }

    async fn await_ports(&self, _: Request<AwaitPortsRequest>) -> Result<Response<AwaitPortsResponse>, Status> {
        self.answer(AwaitPortsResponse {
            ports: match self.lie.as_str() {
                "impossible_ports" => vec![80, 70_000],
                "many_ports" => (1..=65_535).collect(),
                _ => Vec::new(),
            },
        })
        .await
    }

    async fn write_input(&self, request: Request<WriteInputRequest>) -> Result<Response<WriteInputResponse>, Status> {
        let request = request.into_inner();
        let honest = WriteInputResponse {
            taken: request.offset.unwrap_or_default() + request.data.len() as u64,
            ended: request.end,
            line_full: false,
        };
        self.answer(match self.lie.as_str() {
            "huge_input_taken" => WriteInputResponse { taken: u64::MAX, ..honest },
            "deaf" => WriteInputResponse { taken: 0, ended: false, line_full: true },
            _ => honest,
        })
        .await
    }

    async fn resize_terminal(
        &self,
        _request: Request<ResizeTerminalRequest>,
    ) -> Result<Response<ResizeTerminalResponse>, Status> {
        self.answer(ResizeTerminalResponse {}).await
    }

    async fn read_log(&self, request: Request<ReadLogRequest>) -> Result<Response<Self::ReadLogStream>, Status> {
        let request = request.into_inner();
        let (start, limit) = match request.from {
            // Lies about a log claim that the log is this long.
            Some(From::Tail(limit)) if self.lie.contains("log") || self.is("packed_bomb") => {
                ((1_u64 << 40).saturating_sub(limit), limit)
            }
            Some(From::Tail(limit)) => (5_u64.saturating_sub(limit), limit),
            Some(From::Offset(offset)) => (offset, request.limit),
            None => (0, request.limit),
        };
        let (head, pieces) = self.log(start, limit);
        let head = iter([Ok(ReadLogResponse { part: Some(Part::Head(head)) })]);
        let pieces = pieces.map(|piece| piece.map(|piece| ReadLogResponse { part: Some(Part::Output(piece)) }));
        self.answer(Box::pin(head.chain(pieces)) as Self::ReadLogStream).await
    }

    async fn scan_log(&self, _request: Request<ScanLogRequest>) -> Result<Response<ScanLogResponse>, Status> {
        let line = |number| ScannedLine {
            number,
            offset: number - 1,
            end: number,
            text: "word".to_owned(),
            matched: true,
            ..ScannedLine::default()
        };
        let honest = ScanLogResponse {
            size: 5,
            position: 5,
            total_lines: 1,
            matching_lines: 1,
            lines: vec![line(1)],
            ..ScanLogResponse::default()
        };
        let large = ScanLogResponse { size: 1 << 40, total_lines: 1 << 30, matching_lines: 1 << 30, ..honest.clone() };
        self.answer(match self.lie.as_str() {
            "many_lines" => ScanLogResponse { lines: (1..=1_000_000).map(line).collect(), ..large },
            "huge_lines" => {
                ScanLogResponse { lines: vec![ScannedLine { text: "x\u{1b}[2J".repeat(1 << 20), ..line(1) }], ..large }
            }
            "lines_out_of_order" => ScanLogResponse { lines: vec![line(9), line(3), line(3)], ..large },
            "impossible_lines" => ScanLogResponse {
                size: u64::MAX,
                position: u64::MAX,
                total_lines: u64::MAX,
                matching_lines: u64::MAX,
                left_out: u64::MAX,
                gap: Some(Gap { start: u64::MAX, end: 0 }),
                lines: vec![ScannedLine { offset: u64::MAX, end: 0, left_out: u64::MAX, ..line(u64::MAX) }],
                ..honest
            },
            _ => honest,
        })
        .await
    }

    async fn remove(&self, _request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        self.answer(RemoveResponse {}).await
    }
}
