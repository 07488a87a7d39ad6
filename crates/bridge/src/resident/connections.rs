//! Connections to bridge processes: one per sandbox, made when first needed and again after it breaks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tonic::codegen::http::Uri;
use tracing::Instrument as _;

use super::{
    checked::{self, SMALL_MESSAGE},
    install::{Reached, reach},
    proto::{HelloRequest, bridge_service_client::BridgeServiceClient},
    wire::{Breaches, Wire},
};
use errand_runtime::{Runtime, RuntimeError};

/// The protocol that this server speaks.
const PROTOCOL: u32 = 1;
/// How long a bridge process may take to start and answer.
const LIMIT: Duration = Duration::from_secs(30);
/// How long to wait before reconnecting after a broken connection: the first wait, doubled each time, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Remark on a guest in a sandbox that was adopted, or made by another version.
const REPLACEABLE: &str = "from a file that commands of its user can replace";
/// How long to wait before trying again in a sandbox in which the guest could not run.
const IMPOSSIBLE_FOR: Duration = Duration::from_secs(600);

/// A connected bridge process.
#[derive(Clone)]
pub(super) struct Bridge {
    pub(super) wire: Wire,
    /// When the sandbox's kernel started, and its clock ticks per second: start times of processes are computed from both.
    pub(super) boot: Duration,
    pub(super) ticks_per_second: u32,
    /// The guest's version.
    pub(super) version: String,
}

/// What was found in a sandbox.
#[derive(Clone)]
pub(super) enum Link {
    /// A bridge process answers.
    Bridge(Bridge),
    /// The guest cannot run in this sandbox, for this reason.
    Impossible(Arc<str>),
}

/// The state of one sandbox's connection.
#[derive(Default)]
struct Slot {
    /// The last result and when it was found. The connection may have broken since.
    link: Mutex<Option<(Link, Instant)>>,
    /// Held by the caller that connects, while the others wait.
    connecting: tokio::sync::Mutex<Option<Failed>>,
    /// Why this server closed connections to the sandbox.
    breaches: Arc<Breaches>,
}

/// A failed attempt to connect.
struct Failed {
    /// When to retry.
    again_at: Instant,
    /// How long to wait after the next failure.
    pause: Duration,
    /// The error.
    detail: String,
}

impl Slot {
    fn known(&self) -> Option<Link> {
        locked(&self.link).as_ref().map(|(link, _)| link.clone())
    }

    /// The last result, as long as it is valid.
    fn current(&self) -> Option<Link> {
        let (link, found_at) = locked(&self.link).clone()?;
        let holds = match &link {
            Link::Bridge(bridge) => bridge.wire.is_open(),
            Link::Impossible(_) => found_at.elapsed() < IMPOSSIBLE_FOR,
        };
        holds.then_some(link)
    }
}

/// The connections to all sandboxes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connections {
    runtime: Arc<dyn Runtime>,
    root: Arc<str>,
    slots: Arc<Mutex<HashMap<String, Arc<Slot>>>>,
}

impl Connections {
    pub(super) fn new(runtime: Arc<dyn Runtime>, root: String) -> Self {
        Self { runtime, root: root.into(), slots: Arc::default() }
    }

    /// Whether long output should be compressed, see [`Runtime::prefers_compressed_streams`].
    pub(super) fn prefers_compression(&self) -> bool {
        self.runtime.prefers_compressed_streams()
    }

    /// What was last found in a sandbox, without asking it.
    pub(super) fn known(&self, sandbox: &str) -> Option<Link> {
        locked(&self.slots).get(sandbox)?.known()
    }

    /// Why this server closed the last connection to a sandbox, if it did.
    pub(super) fn breach(&self, sandbox: &str) -> Option<Arc<str>> {
        locked(&self.slots).get(sandbox)?.breaches.last()
    }

    /// Forgets a sandbox that no longer exists.
    pub(super) fn forget(&self, sandbox: &str) {
        locked(&self.slots).remove(sandbox);
    }

    /// Returns the connection to a sandbox's bridge process. One caller connects while the others wait for it.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] during the wait after a broken connection, and every error of connecting.
    pub(super) async fn link(&self, sandbox: &str) -> Result<Link, RuntimeError> {
        let slot = Arc::clone(locked(&self.slots).entry(sandbox.to_owned()).or_default());
        if let Some(link) = slot.current() {
            return Ok(link);
        }
        // Connects in a separate tokio task. A caller that is not polled for a while, such as a stream whose client reads nothing, would
        // otherwise block the callers that wait for it.
        let (connections, sandbox) = (self.clone(), sandbox.to_owned());
        let linking = tokio::spawn(async move { connections.link_anew(&slot, &sandbox).await }.in_current_span());
        linking.await.unwrap_or_else(|error| {
            Err(RuntimeError::Unavailable { detail: format!("connecting to the bridge ended: {error}") })
        })
    }

    async fn link_anew(&self, slot: &Slot, sandbox: &str) -> Result<Link, RuntimeError> {
        let mut failed = slot.connecting.lock().await;
        if let Some(link) = slot.current() {
            return Ok(link);
        }
        if let Some(failed) = &*failed
            && failed.again_at > Instant::now()
        {
            return Err(RuntimeError::Unavailable { detail: failed.detail.clone() });
        }
        if let Some(reason) = slot.breaches.pausing() {
            return Err(RuntimeError::Unavailable { detail: reason.to_string() });
        }
        let connected = self.connect(sandbox, &slot.breaches).await;
        match &connected {
            Ok(link) => {
                *failed = None;
                *locked(&slot.link) = Some((link.clone(), Instant::now()));
            }
            Err(RuntimeError::NoSuchSandbox { .. }) => self.forget(sandbox),
            // Wait before retrying only after an error that may end at any moment and must not be retried in a tight loop.
            Err(RuntimeError::Unavailable { detail }) => {
                let pause = failed.as_ref().map_or(FIRST_PAUSE, |failed| failed.pause);
                let next = (pause * 2).min(LONGEST_PAUSE);
                *failed = Some(Failed { again_at: Instant::now() + pause, pause: next, detail: detail.clone() });
            }
            Err(_) => *failed = None,
        }
        connected
    }

    async fn connect(&self, sandbox: &str, breaches: &Arc<Breaches>) -> Result<Link, RuntimeError> {
        let connecting = async {
            let (wire, installed) = match reach(&*self.runtime, sandbox, &self.root, breaches).await? {
                Reached::Bridge { wire, installed } => (wire, installed),
                Reached::Impossible(why) => {
                    tracing::info!(sandbox, %why, "the resident bridge cannot run in this sandbox");
                    return Ok(Link::Impossible(why.into()));
                }
            };
            let hello = client(&wire).hello(HelloRequest { protocol: PROTOCOL }).await;
            let hello = hello.map_err(|status| super::calls::meaning(&wire, &status))?.into_inner();
            wire.checked(checked::hello(&hello))?;
            if hello.protocol < PROTOCOL {
                return Ok(Link::Impossible(
                    format!("the bridge there ({}) is too old, and could not be replaced", hello.version).into(),
                ));
            }
            tracing::debug!(sandbox, version = %hello.version, pid = hello.pid, "connected to a bridge");
            Ok(Link::Bridge(Bridge {
                wire,
                boot: Duration::from_secs(hello.boot_time),
                ticks_per_second: hello.ticks_per_second.max(1),
                version: if installed { format!("{}, {REPLACEABLE}", hello.version) } else { hello.version },
            }))
        };
        tokio::time::timeout(LIMIT, connecting).await.unwrap_or_else(|_| {
            Err(RuntimeError::Unavailable { detail: format!("the bridge did not come up within {LIMIT:?}") })
        })
    }
}

/// A panic elsewhere cannot leave the value half-changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// HTTP requires an authority; there is only one possible peer.
pub(super) fn origin() -> Uri {
    Uri::from_static("http://bridge")
}

/// A client on a connection. Answers are small unless the call says otherwise.
pub(super) fn client(wire: &Wire) -> BridgeServiceClient<Wire> {
    BridgeServiceClient::with_origin(wire.clone(), origin()).max_decoding_message_size(SMALL_MESSAGE)
}
