//! Receives what the file scripts print: entries, contents, error messages.

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};

use super::super::{
    in_time,
    records::{Malformed, Record, Records},
};
use crate::FileError;
use errand_runtime::{Chunk, Exec, ExecOutput, RuntimeError};
use errand_task::FileEntry;

/// How many bytes of a script's standard error are kept.
const COMPLAINT_LIMIT: usize = 16 * 1024;

/// Keeps the beginning of what a script prints on standard error, up to a limit. The beginning names the problem; the line `end` comes
/// alone.
pub(super) fn complain(complaints: &mut BytesMut, bytes: &[u8]) {
    let room = COMPLAINT_LIMIT.saturating_sub(complaints.len());
    complaints.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// Everything that a script prints until it ends.
pub(super) async fn listen(mut output: ExecOutput) -> Result<(BytesMut, BytesMut), RuntimeError> {
    let (mut stdout, mut stderr) = (BytesMut::new(), BytesMut::new());
    while let Some(chunk) = output.next().await {
        match chunk? {
            Chunk::Stdout(bytes) => complain(&mut stdout, &bytes),
            Chunk::Stderr(bytes) => complain(&mut stderr, &bytes),
        }
    }
    Ok((stdout, stderr))
}

/// A directory that is being listed.
pub(super) struct Listing {
    pub(super) exec: Exec,
    pub(super) records: Records,
    pub(super) complaints: BytesMut,
    /// Whether a record has arrived.
    pub(super) said: bool,
}

impl Listing {
    /// The next entry; none after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<FileEntry>, FileError> {
        loop {
            match self.records.next() {
                Some(Ok(Record::Entry(entry))) => {
                    self.said = true;
                    return Ok(Some(entry));
                }
                Some(Ok(Record::Line(line))) if line == "end" => return Ok(None),
                Some(Ok(Record::Line(line))) => complain(&mut self.complaints, format!("{line}\n").as_bytes()),
                Some(Err(Malformed)) => {
                    let detail = "the sandbox's list of files cannot be understood".to_owned();
                    return Err(RuntimeError::Refused { detail }.into());
                }
                None => match in_time(async { Ok::<_, FileError>(self.exec.next().await.transpose()?) }).await? {
                    Some(Chunk::Stdout(bytes)) => self.records.push(&bytes),
                    Some(Chunk::Stderr(bytes)) => complain(&mut self.complaints, &bytes),
                    None => return Err(broke_off()),
                },
            }
        }
    }
}

pub(super) fn broke_off() -> FileError {
    RuntimeError::Unavailable { detail: "the sandbox broke off in the middle of its answer".to_owned() }.into()
}

/// How much of a file should arrive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) offset: u64,
    pub(super) limit: u64,
    /// The file's size when it was opened.
    pub(super) size: u64,
}

impl Expected {
    /// Whether `read` bytes are all that was requested; `size` is the file's size at the end. A file may grow or shrink while it is read,
    /// and a file of the kernel reports no size at all.
    pub(super) fn is_met_by(self, read: u64, size: u64) -> bool {
        read >= self.limit || read >= size.min(self.size).saturating_sub(self.offset)
    }
}

/// A file that is being read.
pub(super) struct Content {
    pub(super) exec: Exec,
    /// Content that arrived together with the entry.
    pub(super) first: Option<BytesMut>,
    pub(super) complaints: BytesMut,
    pub(super) read: u64,
    pub(super) expected: Expected,
}

impl Content {
    pub(super) fn stream(self) -> impl futures_util::Stream<Item = Result<Bytes, FileError>> + Send {
        stream::unfold(Some(self), |content| async move {
            let mut content = content?;
            match content.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(content))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FileError> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            self.read += first.len() as u64;
            return Ok(Some(first.freeze()));
        }
        loop {
            match in_time(async { Ok::<_, FileError>(self.exec.next().await.transpose()?) }).await? {
                Some(Chunk::Stdout(bytes)) if bytes.is_empty() => {}
                Some(Chunk::Stdout(bytes)) => {
                    self.read += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Some(Chunk::Stderr(bytes)) => complain(&mut self.complaints, &bytes),
                None => return self.end(),
            }
        }
    }

    /// The end of the stream is the end of the file only if the script says so and no byte was lost in transit.
    pub(super) fn end(&self) -> Result<Option<Bytes>, FileError> {
        let said = String::from_utf8_lossy(&self.complaints);
        let size = said.lines().find_map(|line| line.strip_prefix("end ")?.trim().parse().ok());
        match size {
            Some(size) if self.expected.is_met_by(self.read, size) => Ok(None),
            Some(_) | None => Err(broke_off()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn short_read_must_end_at_the_file_end() {
        let expected = Expected { offset: 10, limit: 50, size: 100 };
        assert!(expected.is_met_by(50, 100));
        assert!(!expected.is_met_by(49, 100));
        assert!(expected.is_met_by(20, 30), "it has shrunk");
        assert!(Expected { offset: 200, ..expected }.is_met_by(0, 100));
        assert!(Expected { offset: 0, limit: u64::MAX, size: 0 }.is_met_by(7, 0), "one of the kernel's");
    }
}
