//! What a client uploads.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream;
use tonic::{Status, Streaming};

use crate::api::validate::{Misplaced, misplaced};
use errand_engine::{Abandoned, FileSource};
use errand_proto::v1::{WriteFileRequest, WriteTreeRequest, write_file_request, write_tree_request};

/// A message after the head of an upload.
pub(super) enum Part {
    Data(Bytes),
    End,
}

/// The messages of one kind of upload.
pub(super) trait Upload: Send + 'static {
    /// What a message after the first one holds.
    fn part(self) -> Result<Part, Misplaced>;
}

impl Upload for WriteFileRequest {
    fn part(self) -> Result<Part, Misplaced> {
        match self.part {
            Some(write_file_request::Part::Data(data)) => Ok(Part::Data(data)),
            Some(write_file_request::Part::End(_)) => Ok(Part::End),
            Some(write_file_request::Part::Head(_)) => Err(Misplaced::Head),
            None => Err(Misplaced::Empty),
        }
    }
}

impl Upload for WriteTreeRequest {
    fn part(self) -> Result<Part, Misplaced> {
        match self.part {
            Some(write_tree_request::Part::Data(data)) => Ok(Part::Data(data)),
            Some(write_tree_request::Part::End(_)) => Ok(Part::End),
            Some(write_tree_request::Part::Head(_)) => Err(Misplaced::Head),
            None => Err(Misplaced::Empty),
        }
    }
}

/// Why the upload was abandoned.
#[derive(Clone, Default)]
pub(super) struct Reason(Arc<Mutex<Option<Status>>>);

impl Reason {
    fn keep(&self, status: Status) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }

    pub(super) fn take(&self) -> Option<Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The content that a client sends. It is complete only if the client says so, because the library below reports a cancelled call as a
/// normal end of the stream.
pub(super) fn source<M: Upload>(messages: Streaming<M>, reason: Reason) -> FileSource {
    Box::pin(stream::unfold(Some((messages, reason)), |state| async move {
        let (mut messages, reason) = state?;
        let wrong = match messages.message().await {
            Ok(message) => match message.map_or(Err(Misplaced::Missing), Upload::part) {
                Ok(Part::Data(data)) => return Some((Ok(data), Some((messages, reason)))),
                Ok(Part::End) => return None,
                Err(wrong) => misplaced(wrong),
            },
            Err(status) => status,
        };
        reason.keep(wrong);
        Some((Err(Abandoned), None))
    }))
}
