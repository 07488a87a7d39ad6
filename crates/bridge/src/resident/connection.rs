//! The connection to a sandbox's bridge process: made when first needed, and again after it breaks.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tonic::codegen::http::Uri;
use tracing::Instrument as _;

use super::{
    channel::{Breaches, Channel},
    checked::{self, SMALL_MESSAGE},
    install::{Reached, reach},
    proto::{HelloRequest, bridge_service_client::BridgeServiceClient},
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
    pub(super) channel: Channel,
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

/// The connection to one sandbox, shared by all of its callers.
pub(super) struct Connection {
    pub(super) runtime: Arc<dyn Runtime>,
    /// The runtime's id of the sandbox.
    id: Arc<str>,
    root: Arc<str>,
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

impl Connection {
    pub(super) fn new(runtime: Arc<dyn Runtime>, id: Arc<str>, root: Arc<str>) -> Self {
        Self { runtime, id, root, link: Mutex::default(), connecting: Default::default(), breaches: Arc::default() }
    }

    /// A new connection to the same sandbox. Keeps the wait that earlier breaches have caused.
    pub(super) fn renewed(&self) -> Self {
        let fresh = Self::new(Arc::clone(&self.runtime), Arc::clone(&self.id), Arc::clone(&self.root));
        Self { breaches: Arc::clone(&self.breaches), ..fresh }
    }

    /// What was last found in the sandbox, without asking it.
    pub(super) fn known(&self) -> Option<Link> {
        locked(&self.link).as_ref().map(|(link, _)| link.clone())
    }

    /// The last result, as long as it is valid.
    fn current(&self) -> Option<Link> {
        let (link, found_at) = locked(&self.link).clone()?;
        let holds = match &link {
            Link::Bridge(bridge) => bridge.channel.is_open(),
            Link::Impossible(_) => found_at.elapsed() < IMPOSSIBLE_FOR,
        };
        holds.then_some(link)
    }

    /// Why this server closed the last connection to the sandbox, if it did.
    pub(super) fn breach(&self) -> Option<Arc<str>> {
        self.breaches.last()
    }

    /// Connects to the sandbox's bridge process, or returns the open connection. One caller connects while the others wait for it.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] during the wait after a broken connection, and every error of connecting.
    pub(super) async fn link(self: &Arc<Self>) -> Result<Link, RuntimeError> {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        // Connects in a separate tokio task. A caller that is not polled for a while, such as a stream whose client reads nothing, would
        // otherwise block the callers that wait for it.
        let connection = Arc::clone(self);
        let linking = tokio::spawn(async move { connection.link_anew().await }.in_current_span());
        linking.await.unwrap_or_else(|error| {
            Err(RuntimeError::Unavailable { detail: format!("connecting to the bridge ended: {error}") })
        })
    }

    async fn link_anew(&self) -> Result<Link, RuntimeError> {
        let mut failed = self.connecting.lock().await;
        if let Some(link) = self.current() {
            return Ok(link);
        }
        if let Some(failed) = &*failed
            && failed.again_at > Instant::now()
        {
            return Err(RuntimeError::Unavailable { detail: failed.detail.clone() });
        }
        if let Some(reason) = self.breaches.pausing() {
            return Err(RuntimeError::Unavailable { detail: reason.to_string() });
        }
        let connected = self.connect().await;
        match &connected {
            Ok(link) => {
                *failed = None;
                *locked(&self.link) = Some((link.clone(), Instant::now()));
            }
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

    async fn connect(&self) -> Result<Link, RuntimeError> {
        let connecting = async {
            let (channel, installed) = match reach(&*self.runtime, &self.id, &self.root, &self.breaches).await? {
                Reached::Bridge { channel, installed } => (channel, installed),
                Reached::Impossible(why) => {
                    tracing::info!(sandbox = %self.id, %why, "the resident bridge cannot run in this sandbox");
                    return Ok(Link::Impossible(why.into()));
                }
            };
            let hello = client(&channel).hello(HelloRequest { protocol: PROTOCOL }).await;
            let hello = hello.map_err(|status| super::calls::meaning(&channel, &status))?.into_inner();
            channel.checked(checked::hello(&hello))?;
            if hello.protocol < PROTOCOL {
                return Ok(Link::Impossible(
                    format!("the bridge there ({}) is too old, and could not be replaced", hello.version).into(),
                ));
            }
            tracing::debug!(sandbox = %self.id, version = %hello.version, pid = hello.pid, "connected to a bridge");
            Ok(Link::Bridge(Bridge {
                channel,
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
pub(super) fn client(channel: &Channel) -> BridgeServiceClient<Channel> {
    BridgeServiceClient::with_origin(channel.clone(), origin()).max_decoding_message_size(SMALL_MESSAGE)
}
