//! Receives what is uploaded: a head, then content, then an end. Without the end the target is dropped, which undoes it.

use bytes::Bytes;
use tonic::{Status, Streaming};

use super::{Files, refusal::Refusal};
use errand_proto::bridge::{
    WriteFileHead, WriteFileRequest, WriteTreeHead, WriteTreeRequest, write_file_request, write_tree_request,
};

/// A message of an upload.
pub(super) enum Step<H> {
    Head(H),
    Data(Bytes),
    End,
}

/// The messages of one kind of upload.
pub(super) trait Upload {
    type Head;

    /// What the message holds; none for an empty one.
    fn step(self) -> Option<Step<Self::Head>>;
}

impl Upload for WriteFileRequest {
    type Head = WriteFileHead;

    fn step(self) -> Option<Step<WriteFileHead>> {
        self.part.map(|part| match part {
            write_file_request::Part::Head(head) => Step::Head(head),
            write_file_request::Part::Data(data) => Step::Data(data),
            write_file_request::Part::End(_) => Step::End,
        })
    }
}

impl Upload for WriteTreeRequest {
    type Head = WriteTreeHead;

    fn step(self) -> Option<Step<WriteTreeHead>> {
        self.part.map(|part| match part {
            write_tree_request::Part::Head(head) => Step::Head(head),
            write_tree_request::Part::Data(data) => Step::Data(data),
            write_tree_request::Part::End(_) => Step::End,
        })
    }
}

/// The head, which comes first.
pub(super) async fn head<M: Upload>(messages: &mut Streaming<M>) -> Result<M::Head, Status> {
    match messages.message().await?.and_then(Upload::step) {
        Some(Step::Head(head)) => Ok(head),
        Some(Step::Data(_) | Step::End) | None => Err(Status::invalid_argument("the first message must be the head")),
    }
}

/// Writes the content to a target, and returns the target once the end has come.
pub(super) async fn content<M: Upload, T: Send + 'static>(
    files: &Files,
    messages: &mut Streaming<M>,
    mut target: T,
    write: fn(&mut T, &[u8]) -> Result<(), Refusal>,
    words: &[u8],
) -> Result<T, Status> {
    loop {
        match messages.message().await?.and_then(Upload::step) {
            Some(Step::Data(data)) => {
                let written = files.blocking(move || write(&mut target, &data).map(|()| target)).await;
                target = written.map_err(|refusal| refusal.into_status(words))?;
            }
            Some(Step::End) => return Ok(target),
            Some(Step::Head(_)) => return Err(Status::invalid_argument("there is one head")),
            None => return Err(Status::aborted("the stream ended before its content did; nothing was written")),
        }
    }
}
