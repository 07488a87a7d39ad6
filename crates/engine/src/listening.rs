//! The TCP ports that listen in a sandbox, for all callers that wait for one. One tokio task per sandbox asks the bridge, as long as a call
//! waits; the bridge answers when the ports change.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{EngineError, Inner, sandbox::Sandbox};
use errand_runtime::RuntimeError;
use errand_task::{SandboxId, Task};

/// The shortest time between two questions, whatever the sandbox answers: it can claim new ports at any rate.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long to wait before a sandbox is asked again that did not answer. Doubled with each retry.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is known of a sandbox's ports.
#[derive(Debug, Clone, Default)]
struct Known {
    ports: BTreeSet<u16>,
    /// Why the sandbox does not show its sockets.
    refusal: Option<String>,
}

/// The sandboxes that calls wait for a port of.
#[derive(Default)]
pub(super) struct Listeners {
    sandboxes: Mutex<HashMap<SandboxId, watch::Sender<Known>>>,
}

/// A view of one sandbox's ports.
pub(super) struct Listening(watch::Receiver<Known>);

impl Listening {
    /// Whether a port listens, as far as is known.
    ///
    /// # Errors
    /// When the sandbox does not show its sockets.
    pub(super) fn contains(&self, port: u16) -> Result<bool, EngineError> {
        let known = self.0.borrow();
        match &known.refusal {
            Some(detail) => Err(RuntimeError::Refused { detail: detail.clone() }.into()),
            None => Ok(known.ports.contains(&port)),
        }
    }

    /// Waits until something else is known. Cancel safe.
    pub(super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The server is shutting down: nothing more will be known.
            std::future::pending::<()>().await;
        }
    }
}

impl Listeners {
    fn sandboxes(&self) -> MutexGuard<'_, HashMap<SandboxId, watch::Sender<Known>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ports of a task's sandbox.
    ///
    /// # Errors
    /// When the sandbox was deleted, or the store fails.
    pub(super) async fn of(&self, inner: &Arc<Inner>, task: &Task) -> Result<Listening, EngineError> {
        let (id, sandbox) = (task.sandbox, inner.sandboxes.of_task(task).await?);
        let mut sandboxes = self.sandboxes();
        if let Some(known) = sandboxes.get(&id) {
            return Ok(Listening(known.subscribe()));
        }
        let known = watch::Sender::new(Known::default());
        let listening = Listening(known.subscribe());
        sandboxes.insert(id, known.clone());
        drop(sandboxes);
        let asking = Arc::clone(inner);
        inner.tracker.spawn(async move {
            asking.keep_running("a wait for ports", || ask(&asking, &sandbox, id, &known)).await;
            asking.listeners.forget(id, &known);
        });
        Ok(listening)
    }

    /// True when no call waits for this sandbox any more; it is forgotten then.
    fn forget_unused(&self, id: SandboxId, known: &watch::Sender<Known>) -> bool {
        let mut sandboxes = self.sandboxes();
        // Checked with the lock held, under which callers subscribe.
        let unused = known.receiver_count() == 0;
        if unused && sandboxes.get(&id).is_some_and(|other| other.same_channel(known)) {
            sandboxes.remove(&id);
        }
        unused
    }

    /// Forgets a sandbox that is no longer asked.
    fn forget(&self, id: SandboxId, known: &watch::Sender<Known>) {
        let mut sandboxes = self.sandboxes();
        if sandboxes.get(&id).is_some_and(|other| other.same_channel(known)) {
            sandboxes.remove(&id);
        }
    }
}

/// Asks a sandbox for its ports as long as a call waits.
async fn ask(inner: &Inner, sandbox: &Sandbox, id: SandboxId, known: &watch::Sender<Known>) {
    let mut told: Option<BTreeSet<u16>> = None;
    let mut pause = FIRST_PAUSE;
    while !inner.listeners.forget_unused(id, known) {
        let answer = tokio::select! {
            () = inner.leave.cancelled() => return,
            () = known.closed() => continue,
            answer = sandbox.bridge.listening(told.as_ref()) => answer,
        };
        let wait = match answer {
            Ok(ports) => {
                publish(known, Known { ports: ports.clone(), refusal: None });
                told = Some(ports);
                pause = FIRST_PAUSE;
                INTERVAL
            }
            Err(error) => {
                if let RuntimeError::Refused { detail } = error {
                    publish(known, Known { refusal: Some(detail), ..Known::default() });
                } else {
                    // The sandbox is gone, stopped or silent. What becomes of the tasks in it ends the waits for them.
                    tracing::debug!(%error, sandbox = %sandbox.name, "the ports of a sandbox cannot be read");
                }
                told = None;
                let wait = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                wait
            }
        };
        tokio::select! {
            () = inner.leave.cancelled() => return,
            () = known.closed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn publish(known: &watch::Sender<Known>, news: Known) {
    known.send_if_modified(|old| {
        let changed = old.ports != news.ports || old.refusal != news.refusal;
        *old = news;
        changed
    });
}
