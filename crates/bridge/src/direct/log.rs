//! A running `read.sh`: a head line arrives on its standard error, the bytes on its standard output.

use bytes::Bytes;
use futures_util::stream;

use super::{gap, in_time};
use crate::{LogPiece, LogReader, OutputPiece, ReadError};
use errand_runtime::{Chunk, Exec, RuntimeError};
use errand_task::Gap;

/// The most bytes of a log that are held until the head line arrives.
const FIRST_LIMIT: usize = 1024 * 1024;
/// The most characters of a script's message that are passed on.
const WORDS: usize = 1024;

/// Waits for the head line of `read.sh`.
pub(super) async fn open(mut exec: Exec, limit: u64) -> Result<LogReader, ReadError> {
    let mut first: Option<Bytes> = None;
    while let Some(chunk) = exec.next().await {
        match chunk? {
            // The head line and the bytes arrive in two streams, in either order.
            Chunk::Stdout(bytes) => {
                if first.as_ref().map_or(0, Bytes::len) + bytes.len() > FIRST_LIMIT {
                    return Err(RuntimeError::Refused { detail: "the log came without its head".to_owned() }.into());
                }
                first = Some(match first {
                    Some(before) => [before, bytes].concat().into(),
                    None => bytes,
                });
            }
            Chunk::Stderr(line) => {
                let line = String::from_utf8_lossy(&line);
                let mut words = line.split_whitespace();
                return match (words.next(), words.next().map(str::parse), words.next().map(str::parse)) {
                    (Some("log"), Some(Ok(size)), Some(Ok(start))) => {
                        let (size, start): (u64, u64) = (size, start);
                        let (size, start) = (size.min(i64::MAX as u64), start.min(i64::MAX as u64));
                        let gap = words.next().zip(words.next()).and_then(|(lacks, resumes)| gap(lacks, resumes, size));
                        let rest = Rest { exec: Some(exec), first, position: start, gap, left: limit };
                        Ok(LogReader::new(size, start, gap, Box::pin(stream::unfold(rest, next))))
                    }
                    (Some("gone"), ..) => Err(ReadError::Gone),
                    _ => Err(RuntimeError::Refused { detail: line.trim().chars().take(WORDS).collect() }.into()),
                };
            }
        }
    }
    Err(RuntimeError::Unavailable { detail: "the log's head did not come".to_owned() }.into())
}

/// The rest of the requested part of a log.
struct Rest {
    /// None after an error.
    exec: Option<Exec>,
    /// Bytes that arrived before the head line.
    first: Option<Bytes>,
    position: u64,
    gap: Option<Gap>,
    /// How many of the requested bytes are still to come.
    left: u64,
}

impl Rest {
    /// Assigns a position to bytes. Bytes after the gap are left for the next call.
    fn place(&mut self, mut bytes: Bytes) -> OutputPiece {
        if let Some(gap) = self.gap {
            self.position = gap.past(self.position);
            let before = usize::try_from(gap.start.saturating_sub(self.position)).unwrap_or(usize::MAX);
            if self.position < gap.start && bytes.len() > before {
                self.first = Some(bytes.split_off(before));
            }
        }
        let piece = OutputPiece::both(self.position, bytes);
        self.position = piece.end();
        self.left -= piece.bytes.len() as u64;
        piece
    }
}

async fn next(mut rest: Rest) -> Option<(Result<LogPiece, RuntimeError>, Rest)> {
    let mut exec = rest.exec.take()?;
    let bytes = match rest.first.take() {
        Some(first) => first,
        None => loop {
            match in_time(async { exec.next().await.transpose() }).await {
                Ok(None) => return None,
                Ok(Some(Chunk::Stdout(bytes))) => break bytes,
                Ok(Some(Chunk::Stderr(line))) => {
                    tracing::debug!(line = %line.escape_ascii(), "reading a log");
                }
                Err(error) => return Some((Err(error), rest)),
            }
        },
    };
    let size = bytes.len() as u64;
    if size > rest.left {
        let detail = format!("the sandbox sent {size} bytes of a log where {} were left of what was asked", rest.left);
        return Some((Err(RuntimeError::Refused { detail }), rest));
    }
    rest.exec = Some(exec);
    Some((Ok(LogPiece::Plain(rest.place(bytes))), rest))
}
