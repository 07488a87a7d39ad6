//! Answers the server's calls. The bridge process keeps no state of its own about tasks: every answer comes from task directories and
//! shims.

mod follow;
mod free;
mod input;
mod link;
mod ports;
mod read;
mod scan;
mod signal;

use std::{io, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{files::Files, log_reader::LogReader, spawner::Spawner, task_dir::TaskDir};
use errand_proto::bridge::{
    AttachRequest, AttachResponse, AwaitPortsRequest, AwaitPortsResponse, Finding, HelloRequest, HelloResponse,
    LaunchRequest, LaunchResponse, LogHead, ProbeRequest, ProbeResponse, ReadLogRequest, ReadLogResponse,
    RemoveRequest, RemoveResponse, ResizeTerminalRequest, ResizeTerminalResponse, ScanLogRequest, ScanLogResponse,
    ShimOrder, SignalRequest, SignalResponse, SignalTarget, TaskKey, WriteInputRequest, WriteInputResponse,
    bridge_service_server::{BridgeService, BridgeServiceServer},
    file_service_server::FileServiceServer,
    read_log_request::From,
    shim_order,
};
use follow::Follower;
use free::FreeShims;
use link::ShimLink;

/// The newest protocol that this bridge knows.
pub const PROTOCOL: u32 = 1;
/// Reports that may wait until the connection has room. Reports that become ready together, as the last ones do, are sent together.
const QUEUE: usize = 3;
/// How long the answer to a launch waits for the first report, so that both are sent together: each separate message wakes every process on
/// its way. Longer than a shim delays the report of a start.
const FIRST_REPORT: Duration = Duration::from_millis(50);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers the server's calls.
#[derive(Debug)]
pub(crate) struct Bridge {
    root: PathBuf,
    generation: u32,
    spawner: Spawner,
    free: FreeShims,
    retiring: watch::Receiver<bool>,
}

impl Bridge {
    pub(crate) fn new(root: PathBuf, generation: u32, spawner: Spawner, retiring: watch::Receiver<bool>) -> Self {
        Self { root, generation, spawner, free: FreeShims::default(), retiring }
    }

    fn task(&self, id: &str) -> Result<TaskDir, Status> {
        TaskDir::new(&self.root, id).ok_or_else(|| Status::invalid_argument("task_id: not a task's id"))
    }

    /// Asks a shim for a launch: a free shim, or a new one.
    async fn ask_for_launch(&self, request: LaunchRequest) -> io::Result<ShimLink> {
        let order = ShimOrder { kind: Some(shim_order::Kind::Launch(request)) };
        while let Some(mut link) = self.free.take() {
            // A shim that was killed meanwhile has not begun the launch.
            if link.order(&order).await.is_ok() {
                return Ok(link);
            }
        }
        // Written before the shim runs, so that the shim wakes up only once.
        let (mut link, control, rest) = ShimLink::pair(&order)?;
        self.spawner.spawn(&control)?;
        drop(control);
        // If no shim is at the other end, this write fails and every later call on the link fails too.
        let _ = link.go_on(&rest).await;
        Ok(link)
    }

    fn find(&self, key: &TaskKey, fence: bool) -> Result<Finding, Status> {
        let task = self.task(&key.task_id)?;
        let directory = task.path().is_dir();
        let mut processes = task.processes();
        if fence && !processes.are_started() {
            processes = task.fence().map_err(|error| Status::internal(format!("fencing: {error}")))?;
        }
        let started = processes.are_started();
        // Read before the exit file: a process that was alive here may write the exit file meanwhile, and the result is then seen.
        let process = processes.first;
        let alive = processes.is_running();
        let supervised = task.is_supervised(&processes);
        let gap = task.gap();
        Ok(Finding {
            directory,
            started,
            process,
            alive,
            supervised,
            exit_file: task.exit_file().map(Into::into),
            output_bytes: task.output_bytes(gap.as_ref()),
            incomplete: task.is_incomplete(),
            gap,
            usage: task.processes().usage,
        })
    }
}

#[tonic::async_trait]
impl BridgeService for Bridge {
    type LaunchStream = Answers<LaunchResponse>;
    type AttachStream = Answers<AttachResponse>;
    type ReadLogStream = Answers<ReadLogResponse>;

    async fn hello(&self, _request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        Ok(Response::new(HelloResponse {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.generation,
            pid: std::process::id(),
            boot_time: boot_time(),
            ticks_per_second: u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100),
        }))
    }

    async fn launch(&self, request: Request<LaunchRequest>) -> Result<Response<Self::LaunchStream>, Status> {
        if *self.retiring.borrow() {
            return Err(Status::unavailable("a newer bridge takes over"));
        }
        let request = request.into_inner();
        let task = self.task(&request.task_id)?;
        let (nonce, may_skip, watches) = (request.nonce.clone(), request.may_skip, request.watches.clone());
        let link = self
            .ask_for_launch(request)
            .await
            .map_err(|error| Status::resource_exhausted(format!("no shim can be made: {error}")))?;
        let (reports, mut stream) = mpsc::channel(QUEUE);
        let follower = Follower::new(task, nonce, reports, 0, may_skip).watching(watches);
        tokio::spawn(follower.follow_launch(link, self.free.clone()));
        let first = tokio::time::timeout(FIRST_REPORT, stream.recv()).await.ok().flatten();
        let stream = tokio_stream::iter(first).chain(ReceiverStream::new(stream));
        Ok(Response::new(Box::pin(stream.map(|report| report.map(|report| LaunchResponse { report: Some(report) })))))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<Self::AttachStream>, Status> {
        let AttachRequest { task_id, from, nonce, may_skip, watches } = request.into_inner();
        let task = self.task(&task_id)?;
        let (reports, stream) = mpsc::channel(QUEUE);
        let mut link = ShimLink::connect(&task).ok();
        let follower = Follower::new(task, nonce, reports, from, may_skip).watching(watches);
        if let Some(shim) = &mut link
            && (shim.follow(from).await.is_err() || follower.arm(shim).await.is_err())
        {
            link = None;
        }
        tokio::spawn(follower.follow(link));
        let stream = ReceiverStream::new(stream);
        Ok(Response::new(Box::pin(stream.map(|report| report.map(|report| AttachResponse { report: Some(report) })))))
    }

    async fn probe(&self, request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let ProbeRequest { tasks, fence } = request.into_inner();
        let findings = tasks.iter().map(|key| self.find(key, fence)).collect::<Result<_, _>>()?;
        Ok(Response::new(ProbeResponse { findings, uptime_ms: uptime_ms() }))
    }

    async fn signal(&self, request: Request<SignalRequest>) -> Result<Response<SignalResponse>, Status> {
        let request = request.into_inner();
        let target = request.target();
        let SignalRequest { task_id, process, signal, .. } = request;
        let task = self.task(&task_id)?;
        let signal = match signal {
            0 => None,
            number => Some(
                i32::try_from(number)
                    .ok()
                    .and_then(rustix::process::Signal::from_named_raw)
                    .ok_or_else(|| Status::invalid_argument("signal: there is no such signal"))?,
            ),
        };
        let members = match (signal, target) {
            (Some(signal), SignalTarget::Group | SignalTarget::Leader) => {
                signal::send(&task, &task_id, process, signal, target)
            }
            (signal, _) => signal::signal(&task, &task_id, process, signal).await,
        };
        Ok(Response::new(SignalResponse { members }))
    }

    async fn await_ports(&self, request: Request<AwaitPortsRequest>) -> Result<Response<AwaitPortsResponse>, Status> {
        let AwaitPortsRequest { known, is_known, wait_ms } = request.into_inner();
        let ports = ports::differing(is_known.then_some(known), Duration::from_millis(wait_ms)).await;
        let ports = ports.map_err(|error| Status::failed_precondition(format!("/proc/net cannot be read: {error}")))?;
        Ok(Response::new(AwaitPortsResponse { ports }))
    }

    async fn write_input(&self, request: Request<WriteInputRequest>) -> Result<Response<WriteInputResponse>, Status> {
        let request = request.into_inner();
        let task = self.task(&request.task_id)?;
        input::write(&task, request).await.map(Response::new)
    }

    async fn resize_terminal(
        &self,
        request: Request<ResizeTerminalRequest>,
    ) -> Result<Response<ResizeTerminalResponse>, Status> {
        let ResizeTerminalRequest { task_id, size } = request.into_inner();
        let task = self.task(&task_id)?;
        let size = size.ok_or_else(|| Status::invalid_argument("size: missing"))?;
        input::resize(&task, size).await.map(Response::new)
    }

    async fn read_log(&self, request: Request<ReadLogRequest>) -> Result<Response<Self::ReadLogStream>, Status> {
        let ReadLogRequest { task_id, from, limit, may_pack } = request.into_inner();
        let task = self.task(&task_id)?;
        let gap = task.gap();
        let size = task.output_bytes(gap.as_ref());
        let (start, limit) = match from {
            Some(From::Tail(limit)) => (size.saturating_sub(limit), limit),
            Some(From::Offset(offset)) => (offset, limit),
            None => (0, size),
        };
        let log = open_log(&task, start)?;
        let parts = read::send(LogHead { size, start, gap }, log, limit.min(size.saturating_sub(start)), may_pack);
        Ok(Response::new(Box::pin(parts)))
    }

    async fn scan_log(&self, request: Request<ScanLogRequest>) -> Result<Response<ScanLogResponse>, Status> {
        let request = request.into_inner();
        let task = self.task(&request.task_id)?;
        scan::scan(&task, request).await.map(Response::new)
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        let mut paths = Vec::new();
        for id in request.into_inner().task_ids {
            paths.push(self.task(&id)?.path().to_owned());
            paths.push(self.root.join(format!("{id}.command")));
        }
        // A command may have filled its directory with many files. The removal runs beside other calls, and finishes even if the caller is
        // dropped.
        let removed = tokio::spawn(async move { tokio::task::spawn_blocking(move || remove_all(&paths)).await });
        match removed.await {
            Ok(Ok(())) => Ok(Response::new(RemoveResponse {})),
            Ok(Err(error)) | Err(error) => Err(Status::unavailable(format!("no thread to remove them: {error}"))),
        }
    }
}

fn open_log(task: &TaskDir, start: u64) -> Result<LogReader, Status> {
    LogReader::open(task, start).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Status::not_found("there is no log"),
        _ => Status::internal(format!("the log cannot be read: {error}")),
    })
}

/// Removes these paths. A file that cannot be removed stays and costs space on the sandbox's disk.
fn remove_all(paths: &[PathBuf]) {
    for path in paths {
        if std::fs::remove_dir_all(path).is_err() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// When the kernel was booted, in seconds since 1970.
fn boot_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0)
}

/// Both services of the bridge process in one.
#[derive(Clone)]
pub(crate) struct Services {
    bridge: BridgeServiceServer<Bridge>,
    files: FileServiceServer<Files>,
}

impl Services {
    pub(crate) fn new(bridge: Arc<Bridge>, files: Arc<Files>) -> Self {
        Self {
            bridge: BridgeServiceServer::from_arc(bridge).max_decoding_message_size(errand_proto::frame::LIMIT),
            files: FileServiceServer::from_arc(files),
        }
    }
}

impl tonic::codegen::Service<hyper::Request<hyper::body::Incoming>> for Services {
    type Response = hyper::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: hyper::Request<hyper::body::Incoming>) -> Self::Future {
        if request.uri().path().starts_with("/errand.bridge.v1.FileService/") {
            self.files.call(request)
        } else {
            self.bridge.call(request)
        }
    }
}

/// The clock by which start times of processes are measured, in milliseconds since boot. It goes on while the machine sleeps, and setting
/// the time of day does not change it.
fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0)
}
