//! RunTask: runs a command and streams its output, until the command ends or moves to the background.

use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tonic::Status;

use super::follow::{Log, Piece};
use crate::api::{
    Parts, convert, status,
    validate::{self, Acknowledge},
};
use errand_engine::{EngineError, Started, TaskRef};
use errand_proto::v1::{RunTaskResponse, run_task_response::Event};
use errand_store::BotFilter;
use errand_task::{StopCause, Task};

/// Starts the command and opens its stream.
pub(super) async fn run(
    parts: Arc<Parts>,
    request: validate::Run,
) -> Result<impl Stream<Item = Result<RunTaskResponse, Status>> + Send + use<>, Status> {
    let validate::Run { start, background_after, stop_on_disconnect, format, acknowledge } = request;
    let (guarded, guard) = oneshot::channel();
    let starting = Arc::clone(&parts);
    // Runs in its own tokio task, so that a client that disconnects during the start does not leave a command behind that it wanted
    // stopped.
    parts.tracker.spawn(async move {
        let started = starting.engine.start(start).await;
        let guarded_start = started.map(|started| {
            let guard = stop_on_disconnect.then(|| Disconnect::new(&starting, &started.task));
            (started, guard)
        });
        // If the receiver is gone, the guard is dropped and stops the task.
        let _ = guarded.send(guarded_start);
    });
    let started = guard.await.map_err(|_| status::shutting_down())?;
    let (Started { task, .. }, disconnect) = started.map_err(status::engine)?;
    let deadline = Instant::now() + background_after;
    let reference = reference(&task);
    let opened = parts.engine.stream_output(&reference, 0, true).await.map_err(status::engine);
    let output = match opened {
        Ok(output) => output,
        Err(status) => {
            // The client is still connected and gets the error: this is not a disconnect.
            if let Some(disconnect) = disconnect {
                disconnect.disarm();
            }
            return Err(status);
        }
    };
    let log = Log::new(output, format, parts.shutdown.clone());
    let running = Running { parts, log, reference, deadline, disconnect, acknowledge };
    let state = State::Accepted(Box::new(task), Box::new(running));
    Ok(stream::unfold(state, State::next))
}

/// A reference to a task, from its own record.
fn reference(task: &Task) -> TaskRef {
    TaskRef {
        tenant: task.owner.tenant.clone(),
        bots: BotFilter::One(task.owner.bot.clone()),
        session: None,
        id: task.id,
    }
}

/// The state of a stream.
enum State {
    /// Nothing was yielded yet.
    Accepted(Box<Task>, Box<Running>),
    /// Output is being yielded.
    Running(Box<Running>),
    /// `finished` was yielded, and its notification is still to be acknowledged.
    Finished(Arc<Parts>, Box<Task>),
    /// The stream has ended.
    Over,
}

impl State {
    async fn next(self) -> Option<(Result<RunTaskResponse, Status>, Self)> {
        match self {
            Self::Accepted(task, running) => {
                Some((event(Event::Accepted(convert::task(*task))), Self::Running(running)))
            }
            Self::Running(running) => Some(running.next().await),
            Self::Finished(parts, task) => {
                // The client has its answer, and a second notification does no harm. The failure is logged, so the client is not told.
                let _ = parts.acknowledge(&task.owner.tenant, task.id, Acknowledge::AtOnce).await;
                None
            }
            Self::Over => None,
        }
    }
}

/// A stream that yields output.
struct Running {
    parts: Arc<Parts>,
    log: Log,
    reference: TaskRef,
    deadline: Instant,
    disconnect: Option<Disconnect>,
    acknowledge: Acknowledge,
}

impl Running {
    async fn next(mut self: Box<Self>) -> (Result<RunTaskResponse, Status>, State) {
        let piece = tokio::select! {
            // The deadline comes first: otherwise a command that prints without pause would never move to the background.
            biased;
            () = sleep_until(self.deadline) => None,
            piece = self.log.next() => Some(piece),
        };
        let answer = match piece {
            Some(Ok(Some(Piece::Output(part)))) => return (event(Event::Output(part)), State::Running(self)),
            Some(Ok(Some(Piece::Finished(task)))) => return self.finished(task).await,
            Some(Ok(None)) => Err(status::shutting_down()),
            Some(Err(status)) => Err(status),
            None => match self.parts.engine.task(&self.reference).await {
                Ok(task) => event(Event::Backgrounded(convert::task(task))),
                Err(error) => Err(status::engine(error)),
            },
        };
        self.disarm();
        (answer, State::Over)
    }

    async fn finished(mut self: Box<Self>, task: Box<Task>) -> (Result<RunTaskResponse, Status>, State) {
        self.disarm();
        let finished = Some(Event::Finished(convert::task((*task).clone())));
        match self.acknowledge {
            Acknowledge::No => (Ok(answer(finished, None)), State::Over),
            Acknowledge::AtOnce => (Ok(answer(finished, None)), State::Finished(self.parts, task)),
            Acknowledge::OnReceipt => {
                // If the notification cannot be held back, the client is told of the end all the same, and its session once more.
                let held = self.parts.acknowledge(&task.owner.tenant, task.id, self.acknowledge).await;
                (Ok(answer(finished, held.ok().filter(|lease| !lease.is_empty()))), State::Over)
            }
        }
    }

    /// Called when the stream ends normally: a disconnect no longer stops the task.
    fn disarm(&mut self) {
        if let Some(disconnect) = self.disconnect.take() {
            disconnect.disarm();
        }
    }
}

fn event(event: Event) -> Result<RunTaskResponse, Status> {
    Ok(answer(Some(event), None))
}

fn answer(event: Option<Event>, lease_id: Option<String>) -> RunTaskResponse {
    RunTaskResponse { event, lease_id }
}

/// Stops a task when dropped. The stream that holds it was dropped before its end, so the client has disconnected.
struct Disconnect {
    parts: Arc<Parts>,
    reference: Option<TaskRef>,
    runtime: Handle,
}

impl Disconnect {
    /// Must be called inside the async runtime, which will run the stop.
    fn new(parts: &Arc<Parts>, task: &Task) -> Self {
        Self { parts: Arc::clone(parts), reference: Some(reference(task)), runtime: Handle::current() }
    }

    fn disarm(mut self) {
        self.reference = None;
    }
}

impl Drop for Disconnect {
    fn drop(&mut self) {
        let Some(reference) = self.reference.take() else { return };
        // Connections also end when the server shuts down, which must not stop the task.
        if self.parts.shutdown.is_cancelled() {
            return;
        }
        let engine = self.parts.engine.clone();
        let stop = async move {
            let grace = engine.settings().stop_grace;
            tracing::info!(task = %reference.id, "the client has gone: the task is stopped");
            match engine.stop(&reference, StopCause::Disconnect, grace).await {
                Ok(_) | Err(EngineError::NoSuchTask | EngineError::ShuttingDown) => {}
                Err(error) => {
                    tracing::error!(task = %reference.id, error = %errand_task::error_chain(&error), "a task was not stopped");
                }
            }
        };
        self.parts.tracker.spawn_on(stop, &self.runtime);
    }
}
