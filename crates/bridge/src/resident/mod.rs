//! The resident bridge: runs commands through the guest, which stays in the sandbox. One process's standard streams carry the calls for all
//! of the sandbox's tasks.
//!
//! The other end is the crate `errand-guest`. The protocol is `proto/errand/bridge/v1`.

mod calls;
mod channel;
mod checked;
mod connection;
mod convert;
mod files;
mod install;
mod scan;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use errand_proto::bridge as proto;
use futures_util::stream;
use tonic::Streaming;

use super::{
    Attached, Attachment, BridgeState, Finding, Input, InputError, InputTaken, LaunchSettings, LogReader, PORTS_WAIT,
    Piece, ReadError, Report, SandboxBridge, ScannedLog,
};
use calls::{ANSWER_LIMIT, answer, in_time, meaning, refused_input, within};
use channel::Channel;
use checked::{Breach, FINDING, PORTS_MESSAGE, SMALL_MESSAGE, STREAM_MESSAGE};
use connection::{Bridge, Connection, Link, client};
use errand_reading::Scan;
use errand_runtime::{Runtime, RuntimeError, SandboxRef};
use errand_task::{ArmedWatch, Nonce, ProcessIdentity, Signal, SignalTarget, TaskId, TaskSpec, TerminalSize};

/// How long the guest waits for a command to take its input, in milliseconds. To wait longer, the server calls again.
const INPUT_WAIT: u64 = 1000;
/// How long the answer to an input or a resize may take, including that wait.
const INPUT_LIMIT: Duration = Duration::from_secs(10);
/// How often a launch is tried whose answer was lost. The guest runs a launch once, however often it is asked.
const LAUNCHES: u32 = 3;

/// Runs commands through the guest of one sandbox.
pub(super) struct ResidentBridge {
    connection: Arc<Connection>,
    root: Arc<str>,
}

impl ResidentBridge {
    /// A bridge to a sandbox of this runtime, with task directories below `root`, an absolute path inside the sandbox.
    pub(super) fn new(runtime: Arc<dyn Runtime>, sandbox: &SandboxRef, root: Arc<str>) -> Self {
        Self { connection: Arc::new(Connection::new(runtime, Arc::clone(&sandbox.id), Arc::clone(&root))), root }
    }

    /// A bridge that knows nothing of the sandbox but the earlier breaches.
    pub(super) fn renewed(&self) -> Self {
        Self { connection: Arc::new(self.connection.renewed()), root: Arc::clone(&self.root) }
    }

    /// What was last found in the sandbox, without asking it.
    pub(super) fn known(&self) -> Option<Presence> {
        match self.connection.known() {
            Some(link) => Some(Presence::of(link)),
            None => self.connection.breach().map(|breach| Presence::Refused { breach }),
        }
    }

    /// Installs and starts the guest if it can run, and returns what is there.
    pub(super) async fn presence(&self) -> Result<Presence, RuntimeError> {
        self.connection.link().await.map(Presence::of)
    }

    async fn bridge(&self) -> Result<Bridge, RuntimeError> {
        match self.connection.link().await? {
            Link::Bridge(bridge) => Ok(bridge),
            Link::Impossible(why) => Err(RuntimeError::Refused { detail: why.to_string() }),
        }
    }
}

#[async_trait]
impl SandboxBridge for ResidentBridge {
    async fn prepare(&self) -> Result<BridgeState, RuntimeError> {
        self.presence().await.map(Presence::state)
    }

    fn state(&self) -> Option<BridgeState> {
        self.known().map(Presence::state)
    }

    fn is_connected(&self) -> bool {
        matches!(self.connection.known(), Some(Link::Bridge(bridge)) if bridge.channel.is_open())
    }

    fn enforces_timeout(&self) -> bool {
        matches!(self.known(), Some(Presence::There { .. }))
    }

    fn output_file(&self, task: TaskId) -> String {
        crate::output_file(&self.root, task)
    }

    async fn launch(
        &self,
        task: TaskId,
        nonce: Nonce,
        spec: &TaskSpec,
        settings: LaunchSettings,
        watches: &[ArmedWatch],
    ) -> Result<Attachment, RuntimeError> {
        let request = convert::launch(task, nonce, spec, settings, watches);
        let mut asked = 0;
        loop {
            let bridge = match self.bridge().await {
                Ok(bridge) => bridge,
                // No request was sent before the first connection.
                Err(error) if asked == 0 => return Err(error),
                // An earlier request may have arrived. What happened to the sandbox since then says nothing about that.
                Err(error) => return Err(RuntimeError::Uncertain { detail: error.to_string() }),
            };
            asked += 1;
            let mut client = client(&bridge.channel).max_decoding_message_size(STREAM_MESSAGE);
            match answer(&bridge.channel, client.launch(request.clone())).await {
                Ok(reports) => return Ok(Follow::attachment(reports, bridge.channel, 0)),
                Err(error)
                    if asked == LAUNCHES || (asked > 1 && !matches!(error, RuntimeError::Unavailable { .. })) =>
                {
                    return Err(RuntimeError::Uncertain { detail: error.to_string() });
                }
                // The bridge process or the connection ended. The next attempt finds out whether the launch had arrived.
                Err(RuntimeError::Unavailable { detail }) => tracing::debug!(detail, "launching again"),
                Err(error) => return Err(error),
            }
        }
    }

    async fn attach(
        &self,
        task: TaskId,
        nonce: Nonce,
        from: u64,
        watches: &[ArmedWatch],
    ) -> Result<Attachment, RuntimeError> {
        let bridge = self.bridge().await?;
        let request = proto::AttachRequest {
            task_id: task.to_string(),
            from,
            nonce: nonce.to_string(),
            may_skip: true,
            watches: watches.iter().map(convert::watch).collect(),
        };
        let mut client = client(&bridge.channel).max_decoding_message_size(STREAM_MESSAGE);
        let reports = answer(&bridge.channel, client.attach(request)).await?;
        Ok(Follow::attachment(reports, bridge.channel, from))
    }

    async fn probe(&self, tasks: &[(TaskId, Nonce)], fence: bool) -> Result<Vec<Finding>, RuntimeError> {
        let bridge = self.bridge().await?;
        let keys = tasks
            .iter()
            .map(|(task, nonce)| proto::TaskKey { task_id: task.to_string(), nonce: nonce.to_string() })
            .collect();
        let mut client = client(&bridge.channel).max_decoding_message_size(SMALL_MESSAGE + FINDING * tasks.len());
        let answer = answer(&bridge.channel, client.probe(proto::ProbeRequest { tasks: keys, fence })).await?;
        let (uptime, found) = (Duration::from_millis(answer.uptime_ms), answer.findings);
        bridge.channel.checked(checked::findings(&found, tasks.len()))?;
        let found = found.into_iter().zip(tasks);
        Ok(found.map(|(finding, (_, nonce))| convert::finding(&bridge, uptime, finding, *nonce)).collect())
    }

    async fn signal(
        &self,
        task: TaskId,
        process: Option<ProcessIdentity>,
        signal: Option<Signal>,
    ) -> Result<u32, RuntimeError> {
        let bridge = self.bridge().await?;
        let request = proto::SignalRequest {
            task_id: task.to_string(),
            process: process.map(convert::process),
            signal: signal.map_or(0, |signal| signal.number().unsigned_abs()),
            target: proto::SignalTarget::Unspecified.into(),
        };
        let members = answer(&bridge.channel, client(&bridge.channel).signal(request)).await?.members;
        bridge.channel.checked(checked::members(members))
    }

    async fn send_signal(
        &self,
        task: TaskId,
        leader: ProcessIdentity,
        signal: Signal,
        target: SignalTarget,
    ) -> Result<u32, RuntimeError> {
        let bridge = self.bridge().await?;
        let target = match target {
            SignalTarget::Group => proto::SignalTarget::Group,
            SignalTarget::Leader => proto::SignalTarget::Leader,
        };
        let request = proto::SignalRequest {
            task_id: task.to_string(),
            process: Some(convert::process(leader)),
            signal: signal.number().unsigned_abs(),
            target: target.into(),
        };
        let members = answer(&bridge.channel, client(&bridge.channel).signal(request)).await?.members;
        bridge.channel.checked(checked::members(members))
    }

    async fn listening(&self, known: Option<&BTreeSet<u16>>) -> Result<BTreeSet<u16>, RuntimeError> {
        let bridge = self.bridge().await?;
        let request = proto::AwaitPortsRequest {
            known: known.into_iter().flatten().map(|port| u32::from(*port)).collect(),
            is_known: known.is_some(),
            wait_ms: u64::try_from(PORTS_WAIT.as_millis()).unwrap_or(u64::MAX),
        };
        let mut client = client(&bridge.channel).max_decoding_message_size(PORTS_MESSAGE);
        let answer = within(PORTS_WAIT + ANSWER_LIMIT, client.await_ports(request)).await?;
        let ports = answer.map_err(|status| meaning(&bridge.channel, &status))?.into_inner().ports;
        bridge.channel.checked(checked::ports(&ports))
    }

    async fn write_input(&self, task: TaskId, input: Input) -> Result<InputTaken, InputError> {
        let bridge = self.bridge().await?;
        let request = proto::WriteInputRequest {
            task_id: task.to_string(),
            offset: input.offset,
            data: input.data,
            end: input.end,
            wait_ms: INPUT_WAIT,
        };
        let answer = within(INPUT_LIMIT, client(&bridge.channel).write_input(request)).await?;
        let answer = answer.map_err(|status| refused_input(&bridge.channel, &status))?.into_inner();
        let taken = bridge.channel.checked(checked::taken(answer.taken))?;
        Ok(InputTaken { taken, ended: answer.ended, line_full: answer.line_full })
    }

    async fn resize_terminal(&self, task: TaskId, size: TerminalSize) -> Result<(), InputError> {
        let bridge = self.bridge().await?;
        let request = proto::ResizeTerminalRequest { task_id: task.to_string(), size: Some(convert::size(size)) };
        let answer = within(INPUT_LIMIT, client(&bridge.channel).resize_terminal(request)).await?;
        answer.map_err(|status| refused_input(&bridge.channel, &status))?;
        Ok(())
    }

    async fn read(&self, task: TaskId, piece: Piece) -> Result<LogReader, ReadError> {
        use proto::{read_log_request::From, read_log_response::Part};
        let bridge = self.bridge().await?;
        let (from, limit) = match piece {
            Piece::From { offset, limit } => (From::Offset(offset), limit),
            Piece::Tail { limit } => (From::Tail(limit), 0),
        };
        let may_pack = self.connection.runtime.prefers_compressed_streams();
        let request = proto::ReadLogRequest { task_id: task.to_string(), from: Some(from), limit, may_pack };
        let channel = bridge.channel;
        let mut client = client(&channel).max_decoding_message_size(STREAM_MESSAGE);
        let mut parts = match in_time(client.read_log(request)).await? {
            Ok(parts) => parts.into_inner(),
            Err(status) if status.code() == tonic::Code::NotFound => return Err(ReadError::Gone),
            Err(status) => return Err(meaning(&channel, &status).into()),
        };
        let head = match in_time(parts.message()).await?.map_err(|status| meaning(&channel, &status))? {
            Some(proto::ReadLogResponse { part: Some(Part::Head(head)) }) => head,
            _ => return Err(RuntimeError::Refused { detail: "the log's head did not come".to_owned() }.into()),
        };
        let log = channel.checked(checked::Log::open(&head, piece))?;
        // A guest that stops in the middle of a log is given up. An error is the last item.
        let pieces = stream::unfold(Some((parts, channel, log)), |reading| async move {
            let (mut parts, channel, mut log) = reading?;
            let piece = match in_time(parts.message()).await {
                Ok(Ok(Some(proto::ReadLogResponse { part: Some(Part::Output(output)) }))) => {
                    channel.checked(log.take(output))
                }
                Ok(Ok(Some(_))) => Err(channel.breach(Breach("something else than output in a log".to_owned()))),
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => Err(meaning(&channel, &status)),
                Err(late) => Err(late),
            };
            let rest = piece.is_ok().then_some((parts, channel, log));
            Some((piece, rest))
        });
        Ok(LogReader::new(
            checked::position(head.size),
            checked::position(head.start),
            head.gap.map(convert::gap),
            Box::pin(pieces),
        ))
    }

    async fn scan(&self, task: TaskId, scan: &Scan) -> Result<Option<ScannedLog>, ReadError> {
        let bridge = self.bridge().await?;
        scan::scan(&bridge.channel, task, scan).await.map(Some)
    }

    async fn remove(&self, tasks: &[TaskId]) -> Result<(), RuntimeError> {
        let bridge = self.bridge().await?;
        let task_ids = tasks.iter().map(TaskId::to_string).collect();
        answer(&bridge.channel, client(&bridge.channel).remove(proto::RemoveRequest { task_ids })).await?;
        Ok(())
    }
}

/// Whether a sandbox has a working guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presence {
    /// The guest runs.
    There {
        /// The guest's version.
        version: String,
        /// Why the last connection to it was closed, if this server closed it.
        breach: Option<Arc<str>>,
    },
    /// A program answers as the guest, but every connection to it was closed so far.
    Refused {
        /// Why the last connection was closed.
        breach: Arc<str>,
    },
    /// The guest cannot run there.
    Impossible {
        /// The reason.
        why: String,
    },
}

impl Presence {
    /// The state of the bridge that the sandbox has.
    pub(super) fn state(self) -> BridgeState {
        match self {
            Self::There { version, breach: None } => BridgeState::resident(format!("version {version}")),
            Self::There { version, breach: Some(breach) } => {
                BridgeState::resident(format!("version {version}; {breach}"))
            }
            Self::Refused { breach } => BridgeState::resident(breach.to_string()),
            Self::Impossible { why } => BridgeState::direct(format!("the resident bridge cannot run there: {why}")),
        }
    }

    fn of(link: Link) -> Self {
        match link {
            Link::Bridge(bridge) => Self::There { version: bridge.version, breach: bridge.channel.breaches().last() },
            Link::Impossible(why) => Self::Impossible { why: why.to_string() },
        }
    }
}

/// The reports on one task, as they arrive.
struct Follow<T> {
    reports: Streaming<T>,
    channel: Channel,
    bounds: checked::Reports,
}

impl<T: Carries> Follow<T> {
    fn attachment(reports: Streaming<T>, channel: Channel, from: u64) -> Attachment {
        Attachment::new(Self { reports, channel, bounds: checked::Reports::from(from) })
    }
}

/// An answer that carries a report.
trait Carries: Send + 'static {
    fn report(self) -> Option<proto::Report>;
}

impl Carries for proto::LaunchResponse {
    fn report(self) -> Option<proto::Report> {
        self.report
    }
}

impl Carries for proto::AttachResponse {
    fn report(self) -> Option<proto::Report> {
        self.report
    }
}

#[async_trait]
impl<T: Carries> Attached for Follow<T> {
    async fn next(&mut self) -> Result<Report, RuntimeError> {
        loop {
            let pause = self.bounds.pause();
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
                self.bounds.paused();
            }
            match self.reports.message().await {
                Ok(Some(message)) => {
                    let report = message.report();
                    if self.channel.checked(self.bounds.check(report.as_ref())).is_err() {
                        return Ok(Report::Broken);
                    }
                    if let Some(report) = report.and_then(convert::report) {
                        return Ok(report);
                    }
                }
                Ok(None) => return Ok(Report::Broken),
                Err(status) => {
                    let error = meaning(&self.channel, &status);
                    tracing::debug!(%error, "an attachment broke off");
                    return Ok(Report::Broken);
                }
            }
        }
    }
}
