//! The gRPC services of `errand.v1`, with health and reflection.
//!
//! Owns the conversion between the wire and the domain, the access rights, and the one table from errors to statuses. It starts and stops
//! nothing itself: it reads requests, calls the engine, the store and the notifier, and answers.

mod auth;
mod connection;
mod convert;
mod files;
mod malformed;
mod notifications;
mod output;
mod page;
mod readiness;
mod reading;
mod receipts;
mod rendered;
mod sandboxes;
mod status;
mod tasks;
mod trace;
mod validate;

use std::{sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Status,
    transport::{Server, server::TcpIncoming},
};
use tonic_reflection::server::Builder as Reflection;
use tower::util::MapResponseLayer;

use errand_engine::Engine;
use errand_engine::notify::Notifier;
use errand_proto as proto;
use errand_proto::v1::{
    notification_service_server::NotificationServiceServer, sandbox_service_server::SandboxServiceServer,
    task_service_server::TaskServiceServer,
};
use errand_store::TaskStore;
use errand_task::{LeaseId, TaskId, TenantId};

pub use auth::{Caller, RequestLimits, Tokens, TokensError};
pub use readiness::Readiness;

use auth::{Admission, Gate};
use notifications::Notifications;
use receipts::Receipts;
use sandboxes::Sandboxes;
use tasks::Tasks;
use validate::Acknowledge;

type TaskServer = TaskServiceServer<Tasks>;
type NotificationServer = NotificationServiceServer<Notifications>;
type SandboxServer = SandboxServiceServer<Sandboxes>;

/// The largest request, in bytes: a command of 1 MiB with its environment, and room to report by how much a longer one is too long.
const REQUEST_LIMIT: usize = 4 * 1024 * 1024;
/// How often an idle client is pinged, and how long its answer may take.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// The most concurrent calls on one connection. A platform may hold a subscription for each of its sessions on one connection.
const STREAMS_LIMIT: u32 = 10_000;
/// The most unread bytes of one call.
const CALL_UNREAD_LIMIT: u32 = 256 * 1024;
/// The most unread bytes of all calls on one connection. Only uploads can leave data unread for long, and [`connection::UPLOADS`] of them
/// leave room for the other calls. The HTTP/2 library counts a small request as 256 bytes, and closes a connection as an attack when such
/// requests take up half of this limit. The most concurrent calls stay below that.
const UNREAD_LIMIT: u32 = 16 * 1024 * 1024;
/// The most bytes of a request's metadata.
const METADATA_LIMIT: u32 = 16 * 1024;

/// Why the API ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The protocol's descriptors cannot be served.
    #[error("the built-in protocol descriptors are damaged")]
    Descriptors(#[source] tonic_reflection::server::Error),
    /// The connections cannot be served.
    #[error("cannot serve connections")]
    Transport(#[source] tonic::transport::Error),
}

/// The parts that the API needs.
pub struct Api {
    /// Runs the tasks.
    pub engine: Engine,
    /// Opens subscriptions.
    pub notifier: Notifier,
    /// Keeps the notifications.
    pub store: Arc<dyn TaskStore>,
    /// The tokens that admit callers. None: every caller is admitted.
    pub tokens: Option<Tokens>,
    /// Whether every caller may adopt any container when there are no tokens.
    pub allow_adopt: bool,
    /// How much of the server a tenant may use at a time.
    pub limits: RequestLimits,
    /// The most connections at the same time.
    pub max_connections: u32,
    /// Whether requests are admitted.
    pub readiness: Readiness,
    /// How long notifications are leased when a request does not say.
    pub lease_duration: Duration,
    /// Every tokio task that outlives its request. Wait for it at shutdown.
    pub tracker: TaskTracker,
    /// Cancelled when streams and waits must end with UNAVAILABLE. The notifier should end its streams with the same token.
    pub shutdown: CancellationToken,
}

impl Api {
    /// Serves connections of `listener` until `drain` is cancelled and the connections have ended.
    ///
    /// # Errors
    /// When no connections can be served at all.
    pub async fn serve(self, listener: TcpListener, drain: CancellationToken) -> Result<(), ApiError> {
        let gate = Gate::new(self.tokens, self.allow_adopt, self.readiness.clone(), self.limits);
        let receipts = Receipts::new(Arc::clone(&self.store));
        let parts = Arc::new(Parts {
            engine: self.engine,
            notifier: self.notifier,
            store: self.store,
            lease_duration: self.lease_duration,
            subscriptions_per_bot: self.limits.subscriptions_per_bot,
            tracker: self.tracker,
            shutdown: self.shutdown,
        });
        let tasks = TaskServer::new(Tasks::new(Arc::clone(&parts))).max_decoding_message_size(REQUEST_LIMIT);
        let notifications =
            NotificationServer::new(Notifications::new(Arc::clone(&parts))).max_decoding_message_size(REQUEST_LIMIT);
        let sandboxes = SandboxServer::new(Sandboxes::new(parts)).max_decoding_message_size(REQUEST_LIMIT);
        let callers = TcpIncoming::from(listener).with_nodelay(Some(true));
        let callers = connection::limited(callers, self.max_connections);
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(STREAMS_LIMIT)
            .initial_connection_window_size(UNREAD_LIMIT)
            .initial_stream_window_size(CALL_UNREAD_LIMIT)
            .http2_max_header_list_size(METADATA_LIMIT)
            .layer(MapResponseLayer::new(malformed::answer))
            .add_service(self.readiness.health_server())
            .add_service(reflection().build_v1().map_err(ApiError::Descriptors)?)
            .add_service(reflection().build_v1alpha().map_err(ApiError::Descriptors)?)
            .add_service(Admission::new(tasks, gate.clone(), receipts.clone()))
            .add_service(Admission::new(notifications, gate.clone(), receipts.clone()))
            .add_service(Admission::new(sandboxes, gate, receipts))
            .serve_with_incoming_shutdown(callers, drain.cancelled_owned())
            .await
            .map_err(ApiError::Transport)
    }
}

fn reflection() -> Reflection<'static> {
    Reflection::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// What the services share.
struct Parts {
    engine: Engine,
    notifier: Notifier,
    store: Arc<dyn TaskStore>,
    lease_duration: Duration,
    subscriptions_per_bot: u32,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Parts {
    /// Waits for `work`, unless the server shuts down first.
    async fn unless_ending<T>(&self, work: impl Future<Output = T>) -> Result<T, Status> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.shutdown.cancelled() => Err(status::shutting_down()),
        }
    }

    /// Acknowledges a completion that an answer tells of, so that its session is not notified again. Returns the lease that holds it back until
    /// the answer is known to have arrived; empty if there is none.
    async fn acknowledge(&self, tenant: &TenantId, task: TaskId, how: Acknowledge) -> Result<String, Status> {
        match how {
            Acknowledge::No => Ok(String::new()),
            Acknowledge::AtOnce => {
                let acknowledged = self.store.acknowledge_completion(tenant, task).await;
                acknowledged.map(|_| String::new()).map_err(status::store)
            }
            Acknowledge::OnReceipt => {
                let lease = LeaseId::of_task(task);
                let held = self.store.hold_completion(tenant, task, lease, self.lease_duration).await;
                Ok(if held.map_err(status::store)? { lease.to_string() } else { String::new() })
            }
        }
    }
}
