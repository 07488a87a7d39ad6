//! RunTask: a command with its output, until it ends or moves to the background.

use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tonic::Status;

use super::follow::{Log, Piece};
use crate::api::{Parts, convert, status, validate};
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
    // In a task of its own: a client that goes during the start must not leave a command behind that it wanted stopped.
    parts.tracker.spawn(async move {
        let started = starting.engine.start(start).await;
        let guarded_start = started.map(|started| {
            let guard = stop_on_disconnect.then(|| Disconnect::new(&starting, &started.task));
            (started, guard)
        });
        // When nobody takes it, the guard is dropped, and does its work.
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
            // The client is there, and is told: this is no disconnect.
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

/// A task named by its own record.
fn reference(task: &Task) -> TaskRef {
    TaskRef {
        tenant: task.owner.tenant.clone(),
        bots: BotFilter::One(task.owner.bot.clone()),
        session: None,
        id: task.id,
    }
}

/// Where a stream stands.
enum State {
    /// Nothing was yielded yet.
    Accepted(Box<Task>, Box<Running>),
    /// Output is yielded.
    Running(Box<Running>),
    /// `finished` was handed over, and its notification is still to be acknowledged.
    Finished(Arc<Parts>, Box<Task>),
    /// Nothing more comes.
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
                // The answer is out, and a second notice does no harm: what failed was logged, and the client is not bothered.
                let _ = parts.acknowledge_completion(&task).await;
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
    acknowledge: bool,
}

impl Running {
    async fn next(mut self: Box<Self>) -> (Result<RunTaskResponse, Status>, State) {
        let piece = tokio::select! {
            // The time first: a command that never pauses would else never move to the background.
            biased;
            () = sleep_until(self.deadline) => None,
            piece = self.log.next() => Some(piece),
        };
        let answer = match piece {
            Some(Ok(Some(Piece::Output(part)))) => return (event(Event::Output(part)), State::Running(self)),
            Some(Ok(Some(Piece::Finished(task)))) => return self.finished(task),
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

    fn finished(mut self: Box<Self>, task: Box<Task>) -> (Result<RunTaskResponse, Status>, State) {
        self.disarm();
        let answer = event(Event::Finished(convert::task((*task).clone())));
        let next = if self.acknowledge { State::Finished(self.parts, task) } else { State::Over };
        (answer, next)
    }

    /// The stream ends by itself: whatever becomes of the client, it does not end the task any more.
    fn disarm(&mut self) {
        if let Some(disconnect) = self.disconnect.take() {
            disconnect.disarm();
        }
    }
}

fn event(event: Event) -> Result<RunTaskResponse, Status> {
    Ok(RunTaskResponse { event: Some(event) })
}

/// Stops a task when it is dropped: the stream that held it was dropped before its end, so the client has gone.
struct Disconnect {
    parts: Arc<Parts>,
    reference: Option<TaskRef>,
    runtime: Handle,
}

impl Disconnect {
    /// Must be made inside the async runtime, on which the stop will run.
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
        // Connections also end because the server does.
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
