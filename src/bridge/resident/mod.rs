//! The bridge that stays: a small program in the sandbox, spoken to over the standard streams of one process for all of its tasks.
//!
//! The other end is the crate `errand-bridge`. What is said there is `proto/errand/bridge/v1`.

mod calls;
mod connections;
mod convert;
mod files;
mod install;
#[allow(unreachable_pub)]
mod proto;
mod wire;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use tonic::Streaming;

use super::{
    Attached, Attachment, Finding, Input, InputError, InputTaken, LaunchSettings, LogReader, Piece, ReadError, Report,
};
use crate::{
    runtime::{Runtime, RuntimeError},
    task::{Nonce, ProcessIdentity, Signal, TaskId, TaskSpec, TerminalSize},
};
use calls::{answer, meaning, refused_input};
use connections::{Bridge, Connections, Link, client};
pub(super) use files::ResidentFiles;

/// How long the bridge waits for a command to take its input, in milliseconds. Whoever wants more asks again.
const INPUT_WAIT: u64 = 1000;
/// How often a launch is tried whose answer was lost: the sandbox runs it once, however often it hears of it.
const LAUNCHES: u32 = 3;

/// Runs commands through the program that stays in the sandbox.
pub(super) struct ResidentBridge {
    connections: Connections,
}

impl ResidentBridge {
    /// A bridge with its task directories below `root`, an absolute path inside every sandbox.
    pub(super) fn new(runtime: Arc<dyn Runtime>, root: String) -> Self {
        Self { connections: Connections::new(runtime, root) }
    }

    /// What there is in a sandbox, without asking.
    pub(super) fn known(&self, sandbox: &str) -> Option<Presence> {
        self.connections.known(sandbox).map(Presence::of)
    }

    /// Forgets a sandbox that is gone.
    pub(super) fn forget(&self, sandbox: &str) {
        self.connections.forget(sandbox);
    }

    /// Whether there is a connection now.
    pub(super) fn is_connected(&self, sandbox: &str) -> bool {
        matches!(self.connections.known(sandbox), Some(Link::Bridge(bridge)) if bridge.wire.is_open())
    }

    /// What there is in a sandbox; the bridge is put there where it can run.
    pub(super) async fn prepare(&self, sandbox: &str) -> Result<Presence, RuntimeError> {
        self.connections.link(sandbox).await.map(Presence::of)
    }

    async fn bridge(&self, sandbox: &str) -> Result<Bridge, RuntimeError> {
        match self.connections.link(sandbox).await? {
            Link::Bridge(bridge) => Ok(bridge),
            Link::Impossible(why) => Err(RuntimeError::Refused { detail: why.to_string() }),
        }
    }

    /// The files of a sandbox.
    pub(super) async fn files(&self, sandbox: &str) -> Result<ResidentFiles, RuntimeError> {
        Ok(ResidentFiles::new(&self.bridge(sandbox).await?.wire))
    }

    pub(super) async fn launch(
        &self,
        sandbox: &str,
        task: TaskId,
        nonce: Nonce,
        spec: &TaskSpec,
        settings: LaunchSettings,
    ) -> Result<Attachment, RuntimeError> {
        let request = convert::launch(task, nonce, spec, settings);
        let mut asked = 0;
        loop {
            let bridge = match self.bridge(sandbox).await {
                Ok(bridge) => bridge,
                // Nothing was sent before there is a connection.
                Err(error) if asked == 0 => return Err(error),
                // An earlier request may have arrived: whatever happened to the sandbox since says nothing about that.
                Err(error) => return Err(RuntimeError::Uncertain { detail: error.to_string() }),
            };
            asked += 1;
            match answer(client(&bridge.wire).launch(request.clone())).await {
                Ok(reports) => return Ok(Attachment::new(Follow(reports))),
                Err(error)
                    if asked == LAUNCHES || (asked > 1 && !matches!(error, RuntimeError::Unavailable { .. })) =>
                {
                    return Err(RuntimeError::Uncertain { detail: error.to_string() });
                }
                // The bridge ended, or the way to it: whether it had heard of the launch, the next one learns.
                Err(RuntimeError::Unavailable { detail }) => tracing::debug!(detail, "launching again"),
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn attach(
        &self,
        sandbox: &str,
        task: TaskId,
        nonce: Nonce,
        from: u64,
    ) -> Result<Attachment, RuntimeError> {
        let bridge = self.bridge(sandbox).await?;
        let request =
            proto::AttachRequest { task_id: task.to_string(), from, nonce: nonce.to_string(), may_skip: true };
        let reports = answer(client(&bridge.wire).attach(request)).await?;
        Ok(Attachment::new(Follow(reports)))
    }

    pub(super) async fn probe(
        &self,
        sandbox: &str,
        tasks: &[(TaskId, Nonce)],
        fence: bool,
    ) -> Result<Vec<Finding>, RuntimeError> {
        let bridge = self.bridge(sandbox).await?;
        let keys = tasks
            .iter()
            .map(|(task, nonce)| proto::TaskKey { task_id: task.to_string(), nonce: nonce.to_string() })
            .collect();
        let answer = answer(client(&bridge.wire).probe(proto::ProbeRequest { tasks: keys, fence })).await?;
        let (uptime, found) = (Duration::from_millis(answer.uptime_ms), answer.findings);
        if found.len() != tasks.len() {
            return Err(RuntimeError::Refused { detail: "the bridge answered other questions".to_owned() });
        }
        let found = found.into_iter().zip(tasks);
        Ok(found.map(|(finding, (_, nonce))| convert::finding(&bridge, uptime, finding, *nonce)).collect())
    }

    pub(super) async fn signal(
        &self,
        sandbox: &str,
        task: TaskId,
        process: Option<ProcessIdentity>,
        signal: Option<Signal>,
    ) -> Result<u32, RuntimeError> {
        let bridge = self.bridge(sandbox).await?;
        let request = proto::SignalRequest {
            task_id: task.to_string(),
            process: process.map(convert::process),
            signal: signal.map_or(0, |signal| signal.number().unsigned_abs()),
        };
        Ok(answer(client(&bridge.wire).signal(request)).await?.members)
    }

    pub(super) async fn write_input(
        &self,
        sandbox: &str,
        task: TaskId,
        input: Input,
    ) -> Result<InputTaken, InputError> {
        let bridge = self.bridge(sandbox).await?;
        let request = proto::WriteInputRequest {
            task_id: task.to_string(),
            offset: input.offset,
            data: input.data,
            end: input.end,
            wait_ms: INPUT_WAIT,
        };
        let taken =
            client(&bridge.wire).write_input(request).await.map_err(|status| refused_input(&status))?.into_inner();
        Ok(InputTaken { taken: taken.taken, ended: taken.ended, line_full: taken.line_full })
    }

    pub(super) async fn resize_terminal(
        &self,
        sandbox: &str,
        task: TaskId,
        size: TerminalSize,
    ) -> Result<(), InputError> {
        let bridge = self.bridge(sandbox).await?;
        let request = proto::ResizeTerminalRequest { task_id: task.to_string(), size: Some(convert::size(size)) };
        client(&bridge.wire).resize_terminal(request).await.map_err(|status| refused_input(&status))?;
        Ok(())
    }

    pub(super) async fn read(&self, sandbox: &str, task: TaskId, piece: Piece) -> Result<LogReader, ReadError> {
        use proto::{read_log_request::From, read_log_response::Part};
        let bridge = self.bridge(sandbox).await?;
        let (from, limit) = match piece {
            Piece::From { offset, limit } => (From::Offset(offset), limit),
            Piece::Tail { limit } => (From::Tail(limit), 0),
        };
        let may_pack = self.connections.through_engine();
        let request = proto::ReadLogRequest { task_id: task.to_string(), from: Some(from), limit, may_pack };
        let mut parts = match client(&bridge.wire).read_log(request).await {
            Ok(parts) => parts.into_inner(),
            Err(status) if status.code() == tonic::Code::NotFound => return Err(ReadError::Gone),
            Err(status) => return Err(meaning(&status).into()),
        };
        let head = match parts.message().await.map_err(|status| meaning(&status))? {
            Some(proto::ReadLogResponse { part: Some(Part::Head(head)) }) => head,
            _ => return Err(RuntimeError::Refused { detail: "the log's head did not come".to_owned() }.into()),
        };
        let pieces = parts.filter_map(|part| async {
            match part {
                Ok(proto::ReadLogResponse { part: Some(Part::Output(output)) }) => Some(convert::log_piece(output)),
                Ok(_) => None,
                Err(status) => Some(Err(meaning(&status))),
            }
        });
        Ok(LogReader::new(
            convert::position(head.size),
            convert::position(head.start),
            head.gap.map(convert::gap),
            Box::pin(pieces),
        ))
    }

    pub(super) async fn remove(&self, sandbox: &str, tasks: &[TaskId]) -> Result<(), RuntimeError> {
        let bridge = self.bridge(sandbox).await?;
        let task_ids = tasks.iter().map(TaskId::to_string).collect();
        answer(client(&bridge.wire).remove(proto::RemoveRequest { task_ids })).await?;
        Ok(())
    }
}

/// Whether a sandbox has the resident bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presence {
    /// It does, in this version.
    There {
        /// The bridge's version.
        version: String,
    },
    /// It cannot, and why.
    Impossible {
        /// Why not.
        why: String,
    },
}

impl Presence {
    fn of(link: Link) -> Self {
        match link {
            Link::Bridge(bridge) => Self::There { version: bridge.version },
            Link::Impossible(why) => Self::Impossible { why: why.to_string() },
        }
    }
}

/// The reports on one task, as they come.
struct Follow<T>(Streaming<T>);

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
            match self.0.message().await {
                Ok(Some(message)) => {
                    if let Some(report) = message.report().and_then(convert::report) {
                        return Ok(report);
                    }
                }
                Ok(None) => return Ok(Report::Broken),
                Err(status) => {
                    tracing::debug!(%status, "an attachment broke off");
                    return Ok(Report::Broken);
                }
            }
        }
    }
}
