//! Passes input and terminal sizes to the shim.

use std::time::{Duration, Instant};

use tonic::Status;

use super::link::ShimLink;
use crate::task_dir::TaskDir;
use errand_proto::bridge::{
    InputRefusal, ResizeTerminalResponse, ShimOrder, TerminalSize, WriteInputRequest, WriteInputResponse,
    shim_order::Kind as Order, shim_report::Kind,
};

/// The most bytes written by one call.
const LIMIT: usize = 64 * 1024;
/// How long a shim may take to answer a request that it need not wait for.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a new shim may take to open its socket, and how often the socket is tried.
const BIRTH: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// The server tells refusals apart by these words at the beginning of the message.
const NOT_OPEN: &str = "not_open: the command was started without input, or without a terminal";
const CLOSED: &str = "closed: the command has closed its input, or is over";

/// Writes input, and waits for the command to take all of it as long as the request says.
pub(super) async fn write(task: &TaskDir, request: WriteInputRequest) -> Result<WriteInputResponse, Status> {
    if request.data.len() > LIMIT {
        return Err(Status::invalid_argument(format!("data: more than {LIMIT} bytes")));
    }
    let wait = Duration::from_millis(request.wait_ms);
    let mut link = connect(task).await?;
    send(&mut link, Order::Input(request)).await?;
    let taken = match tokio::time::timeout(wait, taken(&mut link)).await {
        Ok(taken) => taken?,
        Err(_) => {
            // A new order ends the first one. The shim answers with what the command had taken by then.
            send(&mut link, Order::Input(WriteInputRequest::default())).await?;
            in_time(taken(&mut link)).await?
        }
    };
    match taken.refusal() {
        InputRefusal::Unspecified => {
            Ok(WriteInputResponse { taken: taken.taken, ended: taken.ended, line_full: taken.line_full })
        }
        InputRefusal::Offset => {
            Err(Status::out_of_range(format!("offset: beyond the {} bytes that were ever taken", taken.taken)))
        }
        other => Err(refusal(other)),
    }
}

/// Changes the size of the command's terminal.
pub(super) async fn resize(task: &TaskDir, size: TerminalSize) -> Result<ResizeTerminalResponse, Status> {
    let mut link = connect(task).await?;
    send(&mut link, Order::Resize(size)).await?;
    let resized = in_time(async {
        loop {
            match link.next().await {
                Some(Kind::Resized(resized)) => return Ok(resized),
                Some(_) => {}
                None => return Err(Status::failed_precondition(CLOSED)),
            }
        }
    })
    .await?;
    match resized.refusal() {
        InputRefusal::Unspecified => Ok(ResizeTerminalResponse {}),
        other => Err(refusal(other)),
    }
}

async fn taken(link: &mut ShimLink) -> Result<errand_proto::bridge::InputTaken, Status> {
    loop {
        match link.next().await {
            Some(Kind::InputTaken(taken)) => return Ok(taken),
            Some(_) => {}
            None => return Err(Status::failed_precondition(CLOSED)),
        }
    }
}

/// Connects to the shim. Waits for a shim that is still starting.
async fn connect(task: &TaskDir) -> Result<ShimLink, Status> {
    let deadline = Instant::now() + BIRTH;
    loop {
        match ShimLink::connect(task) {
            Ok(link) => return Ok(link),
            Err(_) if task.exit_file().is_some() || Instant::now() > deadline => {
                return Err(Status::failed_precondition(CLOSED));
            }
            Err(_) if task.of_direct_bridge() => return Err(Status::failed_precondition(NOT_OPEN)),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn send(link: &mut ShimLink, order: Order) -> Result<(), Status> {
    link.order(&ShimOrder { kind: Some(order) }).await.map_err(|_| Status::failed_precondition(CLOSED))
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(Status::unavailable("the shim does not answer")))
}

fn refusal(refusal: InputRefusal) -> Status {
    Status::failed_precondition(if refusal == InputRefusal::NotOpen { NOT_OPEN } else { CLOSED })
}
