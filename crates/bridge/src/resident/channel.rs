//! One connection to the bridge process in a sandbox: gRPC over the standard streams of one process.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::stream;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, codegen::Service};

use super::checked::{Breach, HEADERS, words};
use crate::coalesce::Coalescing;
use errand_runtime::{Chunk, Exec, ExecInput, ExecOutput, RuntimeError};
use errand_task::error_chain;

/// Flow-control windows, in bytes: of a whole connection, and of one call. The window of a call bounds what is held for a consumer that
/// does not read. The window of the connection is the largest possible one, because all calls share it: a stalled call must not block the
/// others.
const CONNECTION_WINDOW: u32 = i32::MAX.cast_unsigned();
const STREAM_WINDOW: u32 = 512 * 1024;
/// The largest frame, in bytes.
const FRAME: u32 = 128 * 1024;
/// How often an idle connection is pinged, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long to wait before reconnecting to a sandbox after a breach: the first wait, doubled each time, and the longest. The wait starts
/// over after [`FORGIVEN_AFTER`] without a breach.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// The most bytes kept of a process's last messages.
const WORDS: usize = 4096;
/// The most bytes read from a process that does not speak the guest's protocol.
const OTHER: usize = 256 * 1024;

/// A connection for calls. Cheap to clone.
#[derive(Clone)]
pub(super) struct Channel {
    calls: SendRequest<Body>,
    gone: CancellationToken,
    close: CancellationToken,
    breaches: Arc<Breaches>,
}

/// The breaches for which connections to one sandbox were closed.
#[derive(Debug, Default)]
pub(super) struct Breaches(Mutex<Option<Closed>>);

#[derive(Debug, Clone)]
struct Closed {
    reason: Arc<str>,
    at: Instant,
    pause: Duration,
}

impl Breaches {
    /// The reason of the last breach.
    pub(super) fn last(&self) -> Option<Arc<str>> {
        self.closed().map(|closed| closed.reason)
    }

    /// The reason of the last breach, while connections wait because of it. The wait grows with each breach.
    pub(super) fn pausing(&self) -> Option<Arc<str>> {
        self.closed().filter(|closed| closed.at.elapsed() < closed.pause).map(|closed| closed.reason)
    }

    fn closed(&self) -> Option<Closed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, reason: Arc<str>) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause =
            last.as_ref().filter(|last| last.at.elapsed() < FORGIVEN_AFTER).map_or(FIRST_PAUSE, |last| last.pause * 2);
        *last = Some(Closed { reason, at: Instant::now(), pause: pause.min(LONGEST_PAUSE) });
    }
}

/// What a process printed first.
pub(super) enum First {
    /// A bridge process answers.
    Bridge(Channel),
    /// Something else was printed, or nothing.
    Other(String),
}

impl Channel {
    /// Connects to the bridge process at the other end of an exec, if it is one.
    pub(super) async fn open(exec: Exec, breaches: Arc<Breaches>) -> Result<First, RuntimeError> {
        let (mut output, input) = exec.split();
        let (mut words, mut other) = (Vec::new(), 0);
        let first = loop {
            match next(&mut output).await {
                // A bridge process begins with an HTTP/2 settings frame, whose length makes the first byte zero. No text begins that way.
                // Anything may come before it on standard error.
                Some(Ok(Chunk::Stdout(bytes))) if bytes.first() == Some(&0) => break bytes,
                Some(Ok(Chunk::Stdout(bytes) | Chunk::Stderr(bytes))) => {
                    let room = WORDS.saturating_sub(words.len()).min(bytes.len());
                    words.extend_from_slice(&bytes[..room]);
                    other += bytes.len();
                    if other > OTHER {
                        return Ok(First::Other("something else than a bridge speaks there".to_owned()));
                    }
                }
                Some(Err(error)) => return Err(error),
                None => return Ok(First::Other(self::words(String::from_utf8_lossy(&words).trim()))),
            }
        };
        let io = Pipes {
            output: Box::pin(futures_util::StreamExt::chain(stream::iter([Ok(Chunk::Stdout(first))]), output)),
            rest: Bytes::new(),
            input,
        };
        let connected = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(HEADERS)
            .max_concurrent_reset_streams(1024)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(Coalescing::new(BufWriter::new(io))))
            .await;
        let (calls, connection) = connected.map_err(|error| unavailable(&error))?;
        let gone = CancellationToken::new();
        let close = CancellationToken::new();
        let (ended, closing) = (gone.clone().drop_guard(), close.clone());
        tokio::spawn(async move {
            let _ended = ended;
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "the connection to a bridge broke");
                },
                // Closing the connection ends the process in the sandbox.
                () = closing.cancelled() => {}
            }
        });
        Ok(First::Bridge(Self { calls, gone, close, breaches }))
    }

    /// False once the connection is broken.
    pub(super) fn is_open(&self) -> bool {
        !self.gone.is_cancelled() && !self.close.is_cancelled() && !self.calls.is_closed()
    }

    /// Closes the connection because the guest exceeded a bound. Returns the error for the callers.
    pub(super) fn breach(&self, breach: Breach) -> RuntimeError {
        let detail = format!("the connection was closed: the bridge sent {}", words(&breach.0));
        if !self.close.is_cancelled() {
            self.close.cancel();
            self.breaches.add(detail.as_str().into());
            tracing::warn!(%detail, "a bridge broke a bound");
        }
        RuntimeError::Unavailable { detail }
    }

    /// Returns a checked value. Closes the connection on a breach.
    pub(super) fn checked<T>(&self, checked: Result<T, Breach>) -> Result<T, RuntimeError> {
        checked.map_err(|breach| self.breach(breach))
    }

    /// The breaches for which connections to this sandbox were closed.
    pub(super) fn breaches(&self) -> &Breaches {
        &self.breaches
    }
}

async fn next(output: &mut ExecOutput) -> Option<Result<Chunk, RuntimeError>> {
    futures_util::StreamExt::next(output).await
}

fn unavailable(error: &dyn std::error::Error) -> RuntimeError {
    RuntimeError::Unavailable { detail: format!("the bridge does not answer: {}", error_chain(error)) }
}

impl Service<tonic::codegen::http::Request<Body>> for Channel {
    type Response = tonic::codegen::http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.calls.poll_ready(context)
    }

    fn call(&mut self, request: tonic::codegen::http::Request<Body>) -> Self::Future {
        Box::pin(self.calls.send_request(request))
    }
}

/// A process's standard output and input as one connection. Its standard error is logged.
struct Pipes {
    output: ExecOutput,
    rest: Bytes,
    input: ExecInput,
}

impl AsyncRead for Pipes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.output.as_mut().poll_next(context)) {
                Some(Ok(Chunk::Stdout(bytes))) => self.rest = bytes,
                Some(Ok(Chunk::Stderr(words))) => {
                    tracing::debug!(words = %self::words(&String::from_utf8_lossy(&words)), "a bridge complains");
                }
                Some(Err(error)) => return Poll::Ready(Err(std::io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let size = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(size));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipes {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(context)
    }
}
