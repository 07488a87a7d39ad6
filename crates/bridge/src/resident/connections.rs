//! The connections to bridges: one for each sandbox, made when it is first needed and again when it broke.

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
/// How long a bridge may take to come up and answer.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a broken connection is left alone at first, doubled each time, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What is told of a bridge in a sandbox that was adopted, or made by another version.
const REPLACEABLE: &str = "from a file that commands of its user can replace";
/// After this time a sandbox that the bridge could not run in is tried again.
const IMPOSSIBLE_FOR: Duration = Duration::from_secs(600);

/// A bridge that answers.
#[derive(Clone)]
pub(super) struct Bridge {
    pub(super) wire: Wire,
    /// When the sandbox's kernel was started, and its clock ticks in a second: what start times of processes are measured by.
    pub(super) boot: Duration,
    pub(super) ticks_per_second: u32,
    /// Its version.
    pub(super) version: String,
}

/// What there is in a sandbox.
#[derive(Clone)]
pub(super) enum Link {
    /// The resident bridge.
    Bridge(Bridge),
    /// It cannot run there, and why.
    Impossible(Arc<str>),
}

/// One sandbox.
#[derive(Default)]
struct Slot {
    /// What was found there last and when, though it may have broken since.
    link: Mutex<Option<(Link, Instant)>>,
    /// Held by whoever connects, while the others wait.
    connecting: tokio::sync::Mutex<Option<Failed>>,
    /// Why connections were closed from this side.
    breaches: Arc<Breaches>,
}

/// An attempt to connect that failed.
struct Failed {
    /// When to try again.
    again_at: Instant,
    /// How long to wait after the next failure.
    pause: Duration,
    /// What went wrong.
    detail: String,
}

impl Slot {
    fn known(&self) -> Option<Link> {
        locked(&self.link).as_ref().map(|(link, _)| link.clone())
    }

    /// What was found last, as long as that holds.
    fn current(&self) -> Option<Link> {
        let (link, found_at) = locked(&self.link).clone()?;
        let holds = match &link {
            Link::Bridge(bridge) => bridge.wire.is_open(),
            Link::Impossible(_) => found_at.elapsed() < IMPOSSIBLE_FOR,
        };
        holds.then_some(link)
    }
}

/// All connections. Cheap to clone.
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

    /// Whether everything passes through an engine, see [`Runtime::is_through_engine`].
    pub(super) fn through_engine(&self) -> bool {
        self.runtime.is_through_engine()
    }

    /// What was last found in a sandbox, without asking.
    pub(super) fn known(&self, sandbox: &str) -> Option<Link> {
        locked(&self.slots).get(sandbox)?.known()
    }

    /// Why the last connection to a sandbox was closed from this side, if one was.
    pub(super) fn breach(&self, sandbox: &str) -> Option<Arc<str>> {
        locked(&self.slots).get(sandbox)?.breaches.last()
    }

    /// Forgets a sandbox that is gone.
    pub(super) fn forget(&self, sandbox: &str) {
        locked(&self.slots).remove(sandbox);
    }

    /// The bridge in a sandbox. One caller connects while the others wait for it.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] while a connection that broke is left alone, and whatever connecting fails with.
    pub(super) async fn link(&self, sandbox: &str) -> Result<Link, RuntimeError> {
        let slot = Arc::clone(locked(&self.slots).entry(sandbox.to_owned()).or_default());
        if let Some(link) = slot.current() {
            return Ok(link);
        }
        // In a task of its own: a caller that is not polled for a while, such as a stream whose client takes nothing, would hold up the
        // others as long as that lasts.
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
            // Only what may be over at any moment, and must not be asked about all the time, is left alone.
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

/// A panic elsewhere leaves nothing half done in it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// HTTP wants to know whom it speaks to; there is only one.
pub(super) fn origin() -> Uri {
    Uri::from_static("http://bridge")
}

/// Makes calls on a connection. Answers are small unless the call says otherwise.
pub(super) fn client(wire: &Wire) -> BridgeServiceClient<Wire> {
    BridgeServiceClient::with_origin(wire.clone(), origin()).max_decoding_message_size(SMALL_MESSAGE)
}
