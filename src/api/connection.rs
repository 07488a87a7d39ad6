//! A client's connection: how many there may be, which tenants use one, and how long one may stay anonymous.
//!
//! The owner of a connection is unknown until its first request. A connection that shows no valid token in time is closed, so that
//! strangers cannot fill the server.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt as _, future::ready};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::{Status, transport::server::Connected};

use super::auth::{Held, RequestLimits, TenantUse};
use super::status;
use errand_bridge::coalesce::Coalescing;
use errand_task::TenantId;

/// How long a connection may last without a request from a caller that the gate knows.
const STRANGER_LIMIT: Duration = Duration::from_secs(10);
/// The most concurrent uploads on one connection. Upload data that a sandbox does not take stays unread, up to one flow-control window per
/// upload. Together, these leave a quarter of the connection's window to the other calls.
pub(super) const UPLOADS: u32 = 48;
/// How often the server logs that there are too many connections.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// When to retry after a limit was reached that the end of another call relieves.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A connection of a client.
pub(super) struct Connection {
    stream: Coalescing<TcpStream>,
    peer: Peer,
    /// When the connection is closed unless its caller is known by then; none once the caller is known.
    stranger: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// Accepts connections, at most `limit` at the same time. A further one is closed at once.
pub(super) fn limited(
    callers: impl Stream<Item = io::Result<TcpStream>>,
    limit: u32,
) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(usize::try_from(limit).unwrap_or(usize::MAX)));
    let mut logged: Option<Instant> = None;
    callers.filter_map(move |caller| {
        ready(match caller {
            Err(error) => Some(Err(error)),
            Ok(stream) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => Some(Ok(Connection::new(stream, place))),
                Err(_) => {
                    if logged.is_none_or(|at| at.elapsed() > LOG_INTERVAL) {
                        logged = Some(Instant::now());
                        tracing::warn!(
                            limit,
                            "there are too many connections: new ones are closed; see --max-connections"
                        );
                    }
                    None
                }
            },
        })
    })
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        let stranger = Some(Box::pin(sleep(STRANGER_LIMIT)));
        Self { stream: Coalescing::new(stream), peer: Peer::default(), stranger, _place: place }
    }

    /// Whether the time to show a valid token is over.
    fn is_overdue(&mut self, context: &mut Context<'_>) -> bool {
        let Some(limit) = &mut self.stranger else { return false };
        if self.peer.inner.known.load(Ordering::Relaxed) {
            self.stranger = None;
            return false;
        }
        limit.as_mut().poll(context).is_ready()
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// The callers at the other end, as far as their requests have shown. Each request carries this.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    inner: Arc<PeerInner>,
}

#[derive(Debug, Default)]
struct PeerInner {
    known: AtomicBool,
    uploads: Arc<AtomicU32>,
    /// The tenants that have called over this connection. There can be several behind a proxy.
    tenants: Mutex<Vec<(TenantId, Held)>>,
}

impl Peer {
    /// Counts the connection as one of the tenant's, the first time only.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when the tenant has the most connections that it may have.
    pub(super) fn belongs_to(
        &self,
        tenant: &TenantId,
        usage: &TenantUse,
        limits: &RequestLimits,
    ) -> Result<(), Status> {
        let mut tenants = self.inner.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if !tenants.iter().any(|(known, _)| known == tenant) {
            tenants.push((tenant.clone(), usage.connect(limits)?));
            self.inner.known.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes one of the connection's upload slots.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED.
    pub(super) fn upload(&self) -> Result<Held, Status> {
        Held::take(&self.inner.uploads, UPLOADS).ok_or_else(|| {
            let message = format!("there are {UPLOADS} uploads on this connection, the most that there may be");
            let quota = format!("{UPLOADS} uploads at the same time");
            status::exhausted("connection", &quota, &message, Some(RETRY_DELAY))
        })
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_overdue(context) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no valid token was shown in time")));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
