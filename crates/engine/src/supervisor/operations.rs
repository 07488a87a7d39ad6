//! What the machine's operations do: calls to the store, the runtime and the bridge. Nothing is decided here.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::{
    Supervisor,
    machine::{Input, Notice, Operation, RestRead},
    shown::Shown,
};
use crate::{
    EngineError, live::LiveTask, output::WINDOW, permits::LaunchPermit, queue::Spot, retention::outputs,
    sandboxes::Place,
};
use errand_bridge::{Attachment, Piece, ReadError, SandboxBridge};
use errand_runtime::RuntimeError;
use errand_store::StoreError;
use errand_task::{Gap, ProcessIdentity, Signal, Task, TaskId};

/// An operation that runs.
pub(super) struct Running {
    /// Whether it commits a record.
    pub(super) is_commit: bool,
    pub(super) answer: BoxFuture<'static, Answer>,
}

/// What came of an operation.
pub(super) enum Answer {
    /// The machine is told so.
    Plain(Input),
    Stored(Result<Box<Task>, StoreError>),
    Admitted(Result<Box<Task>, StoreError>),
    /// The permit, and the sandbox; none when the sandbox was deleted.
    Placed(Option<LaunchPermit>, Result<Option<Place>, EngineError>),
    Launched(Result<Attachment, RuntimeError>),
    Attached(Result<Attachment, RuntimeError>),
}

impl Supervisor {
    /// Begins an operation.
    pub(super) fn begin(&self, operation: Operation) -> Running {
        let is_commit = matches!(operation, Operation::Store { .. } | Operation::Admit { .. });
        let (inner, sandbox) = (Arc::clone(&self.inner), self.sandbox.clone());
        let task = self.machine.task();
        let (id, nonce) = (task.id, task.nonce);
        let answer: BoxFuture<'static, Answer> = match operation {
            Operation::Store { task, notice, log_bytes } => self.store(*task, notice, log_bytes),
            Operation::AwaitTurn => {
                let turn = self.spot.as_ref().map(Spot::turn);
                plain(async move {
                    match turn {
                        Some(turn) => turn.notified().await,
                        None => std::future::pending().await,
                    }
                    Input::TurnHasCome
                })
            }
            Operation::Admit { task } => {
                let caps = inner.settings.caps;
                Box::pin(async move { Answer::Admitted(inner.store.admit_task(*task, caps).await.map(Box::new)) })
            }
            Operation::Place => {
                let task = task.clone();
                Box::pin(async move {
                    let permit = inner.launches.acquire(&task.owner.tenant, task.sandbox).await;
                    Answer::Placed(permit, inner.sandboxes.for_launch(&task).await)
                })
            }
            Operation::CountMemoryKills => now(Input::MemoryKills(sandbox.memory_kills())),
            Operation::Launch(settings) => {
                let (task, watches) = (task.clone(), self.machine.watches_to_search());
                Box::pin(async move {
                    let launched = async {
                        let spec = inner.revealed(&task).await?;
                        sandbox.bridge.launch(id, nonce, &spec, settings, &watches).await
                    };
                    Answer::Launched(launched.await)
                })
            }
            Operation::Attach { from, limit } => {
                let watches = self.machine.watches_to_search();
                Box::pin(async move {
                    Answer::Attached(within(limit, sandbox.bridge.attach(id, nonce, from, &watches)).await)
                })
            }
            Operation::ReadTail { limit } => now(Input::Tail(self.live.output.tail(limit))),
            Operation::Inspect => plain(async move { Input::Inspected(sandbox.inspect().await) }),
            Operation::Probe { fence, limit } => plain(async move {
                let asked = [(id, nonce)];
                let findings = within(limit, sandbox.bridge.probe(&asked, fence)).await;
                Input::Probed(findings.map(|findings| findings.into_iter().next()))
            }),
            Operation::ReadAtRest { path, limit } => {
                plain(async move { Input::AtRest(sandbox.read_at_rest(&path, limit).await) })
            }
            Operation::Clear { process, signal, limit } => plain(async move {
                let sent = sandbox.bridge.signal(id, process, signal);
                Input::Cleared(match limit {
                    Some(limit) => within(limit, sent).await,
                    None => sent.await,
                })
            }),
            Operation::ReadRest { limit } => {
                let live = Arc::clone(&self.live);
                plain(async move { Input::RestRead(read_rest(&*sandbox.bridge, id, &live, limit).await) })
            }
            Operation::FindMemoryLimit => {
                let (owner, of) = (task.owner.clone(), task.sandbox);
                plain(async move {
                    Input::MemoryLimit(match inner.store.sandbox(&owner.tenant, &owner.bot).await {
                        Ok(Some(sandbox)) if sandbox.id == of => Some(sandbox.spec.memory_bytes),
                        Ok(_) => None,
                        Err(error) => {
                            tracing::debug!(%error, "the memory limit of the sandbox is not known");
                            None
                        }
                    })
                })
            }
        };
        Running { is_commit, answer }
    }

    /// Stores a record and a notification about it.
    fn store(&self, mut task: Task, notice: Option<Notice>, log_bytes: u64) -> BoxFuture<'static, Answer> {
        self.summarize(&mut task, log_bytes);
        let shown = notice.map(|notice| (notice, Shown::of(&self.live, &task)));
        let ends = task.status().is_terminal();
        let end = ends.then(|| outputs::end(&self.inner.settings, &task, &self.live.output, !self.without_output));
        let (store, bridge) = (Arc::clone(&self.inner.store), Arc::clone(&self.sandbox.bridge));
        let live = Arc::clone(&self.live);
        Box::pin(async move {
            let notification = match shown {
                Some((notice, shown)) => {
                    Some(live.masks.notification(shown.notification(notice, &task, &*bridge).await))
                }
                None => None,
            };
            let stored = match end {
                Some(end) => store.finish_task(task, notification, end).await,
                None => store.update_task(task, notification).await,
            };
            Answer::Stored(stored.map(Box::new))
        })
    }

    /// Sends a signal to every process of the command.
    pub(super) fn send(
        &self,
        process: Option<ProcessIdentity>,
        signal: Signal,
    ) -> BoxFuture<'static, Result<u32, RuntimeError>> {
        let (bridge, id) = (Arc::clone(&self.sandbox.bridge), self.machine.task().id);
        Box::pin(async move { bridge.signal(id, process, Some(signal)).await })
    }

    /// Whether the guest enforces the timeout and reports activity.
    pub(super) fn guest_enforces_timeout(&self) -> bool {
        self.sandbox.bridge.enforces_timeout()
    }
}

fn now(input: Input) -> BoxFuture<'static, Answer> {
    Box::pin(std::future::ready(Answer::Plain(input)))
}

fn plain(input: impl Future<Output = Input> + Send + 'static) -> BoxFuture<'static, Answer> {
    Box::pin(async move { Answer::Plain(input.await) })
}

/// Gives a sandbox so long to answer.
pub(super) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    timeout(limit, answer).await.unwrap_or_else(|_| {
        Err(RuntimeError::Unavailable { detail: format!("the sandbox did not answer within {limit:?}") })
    })
}

/// Reads the unread end of the log, as much of it as memory can hold.
async fn read_rest(bridge: &dyn SandboxBridge, id: TaskId, live: &LiveTask, limit: Duration) -> RestRead {
    let mut log = None;
    let read = timeout(limit, read_unseen(bridge, id, live, &mut log)).await;
    let again = match read {
        // Even without a log, its size is known.
        Ok(Ok(()) | Err(ReadError::Gone)) => false,
        Ok(Err(ReadError::Runtime(RuntimeError::Unavailable { detail }))) => {
            tracing::debug!(detail, "the rest of the output could not be read");
            true
        }
        Ok(Err(ReadError::Runtime(error))) => {
            tracing::debug!(%error, "the rest of the output could not be read");
            false
        }
        Err(_) => {
            tracing::warn!(?limit, "the rest of the output did not come in time and is left unread");
            false
        }
    };
    RestRead { log, end: live.output.end(), again }
}

async fn read_unseen(
    bridge: &dyn SandboxBridge,
    id: TaskId,
    live: &LiveTask,
    log: &mut Option<(u64, Option<Gap>)>,
) -> Result<(), ReadError> {
    let (seen, window) = (live.output.end(), WINDOW as u64);
    let mut reader = bridge.read(id, Piece::From { offset: seen, limit: window }).await?;
    if reader.size > seen.saturating_add(window) {
        reader = bridge.read(id, Piece::Tail { limit: window }).await?;
        live.output.leave_out(reader.start);
    }
    let size = reader.size;
    *log = Some((size, reader.gap));
    while live.output.end() < size
        && let Some(piece) = reader.next().await
    {
        match piece?.up_to(size) {
            Some(piece) => live.output.push_at_once(piece),
            None => return Ok(()),
        }
    }
    Ok(())
}
