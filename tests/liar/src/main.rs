//! The liar: a program that tests put in place of the bridge process. It speaks the bridge protocol and tells the server the lie named in
//! the file `lie` beside it.
//!
//! Outside of its lie, it behaves like a bridge process with a command that runs until it is killed.

mod calls;
mod files;
mod raw;
mod reports;

use std::{convert::Infallible, fs, io, os::fd::AsFd as _, path::Path, pin::Pin};

use errand_proto::bridge::{bridge_service_server::BridgeServiceServer, file_service_server::FileServiceServer};
use futures_util::Stream;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::net::unix::pipe;
use tonic::{Status, body::Body};

use calls::Liar;

/// The messages of an answer.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn main() -> io::Result<()> {
    // Arguments: `connect`, the root of the task directories, a generation.
    let root = std::env::args().nth(2).unwrap_or_default();
    let directory = Path::new(&root).join(".bridge");
    let lie = fs::read_to_string(directory.join("lie"))?;
    let lie = lie.trim();
    if raw::tell(lie) {
        return Ok(());
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(Liar::new(lie, directory.join("killed"))))
}

/// Answers calls on the standard streams until the server closes them.
async fn serve(liar: Liar) -> io::Result<()> {
    let input = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let output = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    let services = Services {
        lie: liar.lie.clone(),
        bridge: BridgeServiceServer::new(liar.clone()).max_decoding_message_size(usize::MAX),
        files: FileServiceServer::new(liar),
    };
    // Some lies end by breaking the connection.
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(tokio::io::join(input, output)), TowerToHyperService::new(services))
        .await;
    Ok(())
}

/// Both services, and responses that belong to neither.
#[derive(Clone)]
struct Services {
    lie: String,
    bridge: BridgeServiceServer<Liar>,
    files: FileServiceServer<Liar>,
}

type Answer = Pin<Box<dyn Future<Output = Result<hyper::Response<Body>, Infallible>> + Send>>;

impl tonic::codegen::Service<hyper::Request<hyper::body::Incoming>> for Services {
    type Response = hyper::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: hyper::Request<hyper::body::Incoming>) -> Answer {
        let path = request.uri().path();
        if let Some(body) = raw::Endless::of(&self.lie, path) {
            let response = hyper::Response::builder().header("content-type", "application/grpc").body(Body::new(body));
            return Box::pin(async { Ok(response.unwrap_or_default()) });
        }
        if path.starts_with("/errand.bridge.v1.FileService/") {
            self.files.call(request)
        } else {
            self.bridge.call(request)
        }
    }
}
