//! StreamOutput, and what it shares with RunTask: a log in parts that fit into messages. The stream ends when the task or the server ends.

use std::{collections::VecDeque, time::Duration};

use futures_util::{Stream, stream};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::api::{
    Parts, convert,
    rendered::{self, Streamed},
    status, validate,
};
use errand_engine::{OutputStream, StreamItem};
use errand_proto::v1::{OutputPart, StreamOutputResponse, stream_output_response::Event};
use errand_task::Task;

/// How long streams continue after shutdown has begun. The tasks that the shutdown stops end at the same time, and this lets their
/// followers learn of it.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// What a log yields.
pub(super) enum Piece {
    /// More output.
    Output(OutputPart),
    /// The task has finished, and all of its output was yielded. This is the last piece.
    Finished(Box<Task>),
}

/// A log that is being sent to a client. Holds at most one piece of the log.
pub(super) struct Log {
    output: OutputStream,
    parts: rendered::Parts,
    ready: VecDeque<Piece>,
    shutdown: CancellationToken,
}

impl Log {
    pub(super) fn new(output: OutputStream, format: Streamed, shutdown: CancellationToken) -> Self {
        Self { output, parts: rendered::Parts::new(format), ready: VecDeque::new(), shutdown }
    }

    /// The next piece; none after the last one. Cancel safe.
    ///
    /// # Errors
    /// When the log cannot be read, or the server shuts down. The stream has ended then.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, Status> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            let item = tokio::select! {
                item = self.output.next() => item,
                () = ended(&self.shutdown) => return Err(status::shutting_down()),
            };
            match item.transpose().map_err(status::engine)? {
                Some(StreamItem::Output(piece)) => {
                    self.ready.extend(self.parts.push(&piece).into_iter().map(Piece::Output));
                }
                Some(StreamItem::Packed(piece)) => {
                    let parts = self.parts.push_packed(piece).map_err(|error| status::engine(error.into()))?;
                    self.ready.extend(parts.into_iter().map(Piece::Output));
                }
                Some(StreamItem::Finished(task)) => {
                    self.ready.extend(self.parts.finish().map(Piece::Output));
                    self.ready.push_back(Piece::Finished(task));
                }
                None => match self.parts.pause() {
                    Some(part) => self.ready.push_back(Piece::Output(part)),
                    None => return Ok(None),
                },
            }
        }
    }
}

async fn ended(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(LAST_WORDS).await;
}

/// Opens a log for a client.
pub(super) async fn follow(
    parts: &Parts,
    request: validate::Stream,
) -> Result<impl Stream<Item = Result<StreamOutputResponse, Status>> + Send + use<>, Status> {
    let validate::Stream { task, offset, follow, format } = request;
    let output = parts.engine.stream_output(&task, offset, follow).await.map_err(status::engine)?;
    let log = Log::new(output, format, parts.shutdown.clone());
    Ok(stream::unfold(Some(log), |log| async {
        let mut log = log?;
        match log.next().await {
            Ok(Some(Piece::Output(part))) => Some((Ok(response(Event::Output(part))), Some(log))),
            Ok(Some(Piece::Finished(task))) => Some((Ok(response(Event::Finished(convert::task(*task)))), None)),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    }))
}

fn response(event: Event) -> StreamOutputResponse {
    StreamOutputResponse { event: Some(event) }
}
