//! Admits every request of the three services: the gate before the call, and the revocation of the token during it.
//!
//! This is the one place that ends the calls and streams of a revoked token, so that no service has to check for it.

use std::{
    collections::HashSet,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Bytes, Service, http},
    server::NamedService,
};

use super::{Admitted, Gate, TenantUse, usage::Held};
use crate::api::{connection::Peer, receipts::Receipts};
use errand_proto as proto;

/// A service behind the gate.
#[derive(Clone)]
pub(in crate::api) struct Admission<S> {
    service: S,
    gate: Gate,
    receipts: Receipts,
}

impl<S> Admission<S> {
    pub(in crate::api) fn new(service: S, gate: Gate, receipts: Receipts) -> Self {
        Self { service, gate, receipts }
    }
}

impl<S: NamedService> NamedService for Admission<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Admission<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let kind = Kind::of(request.uri().path());
        let admitted = self.gate.admit(&request).and_then(|admitted| Ok((admitted, upload(kind, &request)?)));
        let (Admitted { caller, usage, held, revoked }, upload) = match admitted {
            Ok(admitted) => admitted,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        let receipts = self.receipts.of(request.headers(), &caller);
        let limits = Arc::clone(&usage);
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert::<Arc<TenantUse>>(limits);
        let call = self.service.call(request);
        Box::pin(async move {
            let _upload = upload;
            // First, so that the call itself already sees what its receipts acknowledge.
            if let Some(receipts) = receipts {
                receipts.await;
            }
            let response = match &revoked {
                None => call.await?,
                Some(revoked) => tokio::select! {
                    biased;
                    () = revoked.cancelled() => return Ok(over().into_http()),
                    response = call => response?,
                },
            };
            // A response that is not streamed is complete by now.
            Ok(if kind.streams { response.map(|body| Body::new(Watched::new(body, revoked, held))) } else { response })
        })
    }
}

/// What a caller is told when its token is no longer valid.
fn over() -> Status {
    Status::unauthenticated("the token was revoked or its rights were changed")
}

/// Takes one of the connection's upload slots if the call is an upload.
fn upload<B>(kind: Kind, request: &http::Request<B>) -> Result<Option<Held>, Status> {
    match request.extensions().get::<Peer>() {
        Some(peer) if kind.uploads => peer.upload().map(Some),
        Some(_) | None => Ok(None),
    }
}

/// In which directions a call streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// The client streams to the server.
    uploads: bool,
    /// The server streams to the client.
    streams: bool,
}

impl Kind {
    fn of(path: &str) -> Self {
        static STREAMS: LazyLock<(HashSet<String>, HashSet<String>)> = LazyLock::new(streaming);
        let (uploads, streams) = &*STREAMS;
        Self { uploads: uploads.contains(path), streams: streams.contains(path) }
    }
}

/// The paths of the calls in which the client streams, and of those in which the server streams, taken from the protocol's descriptors.
fn streaming() -> (HashSet<String>, HashSet<String>) {
    let (mut uploads, mut streams) = (HashSet::new(), HashSet::new());
    let files = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap_or_default().file;
    for file in files {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                if method.client_streaming() {
                    uploads.insert(path.clone());
                }
                if method.server_streaming() {
                    streams.insert(path);
                }
            }
        }
    }
    (uploads, streams)
}

/// A response stream that ends with UNAUTHENTICATED when the token is revoked. It holds its slot until it ends.
struct Watched {
    body: Body,
    revoked: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    held: Option<Held>,
}

impl Watched {
    fn new(body: Body, revoked: Option<CancellationToken>, held: Held) -> Self {
        Self { body, revoked: revoked.map(|token| Box::pin(token.cancelled_owned())), held: Some(held) }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(revoked) = &mut self.revoked
            && revoked.as_mut().poll(context).is_ready()
        {
            self.revoked = None;
            // Drops the original body at once, to free its resources.
            self.body = Body::empty();
            self.held = None;
            let (parts, _) = over().into_http::<Body>().into_parts();
            return Poll::Ready(Some(Ok(Frame::trailers(parts.headers))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streaming_calls_match_the_protocol() {
        let kind = |uploads, streams| Kind { uploads, streams };
        for (path, expected) in [
            ("/errand.v1.NotificationService/Subscribe", kind(false, true)),
            ("/errand.v1.TaskService/StreamOutput", kind(false, true)),
            ("/errand.v1.TaskService/RunTask", kind(false, true)),
            ("/errand.v1.TaskService/WatchTasks", kind(false, true)),
            ("/errand.v1.SandboxService/ReadFile", kind(false, true)),
            ("/errand.v1.SandboxService/WriteFile", kind(true, false)),
            ("/errand.v1.TaskService/WaitTask", kind(false, false)),
            ("/errand.v1.TaskService/StartTask", kind(false, false)),
        ] {
            assert_eq!(Kind::of(path), expected, "{path}");
        }
    }
}
