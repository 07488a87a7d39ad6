//! A running `read.sh`: a head line on its standard error, the bytes on its standard output.

use bytes::Bytes;
use futures_util::stream;

use super::gap;
use crate::{
    bridge::{LogPiece, LogReader, OutputPiece, ReadError},
    runtime::{Chunk, Exec, Runtime, RuntimeError},
    task::Gap,
};

/// Waits for what `read.sh` says before the bytes.
pub(super) async fn open(mut exec: Exec, runtime: &dyn Runtime) -> Result<LogReader, ReadError> {
    let mut first: Option<Bytes> = None;
    while let Some(chunk) = exec.next().await {
        match chunk? {
            // The head line and the bytes come in two streams, in either order.
            Chunk::Stdout(bytes) => {
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
                        let gap = words.next().zip(words.next()).and_then(|(lacks, resumes)| gap(lacks, resumes, size));
                        let rest = Rest { exec, first, position: start, gap };
                        Ok(LogReader::new(size, start, gap, Box::pin(stream::unfold(rest, next))))
                    }
                    (Some("gone"), ..) => Err(ReadError::Gone),
                    _ => Err(RuntimeError::Refused { detail: line.trim().to_owned() }.into()),
                };
            }
        }
    }
    let said = String::from_utf8_lossy(&first.unwrap_or_default()).into_owned();
    Err(runtime
        .explain(&said)
        .unwrap_or(RuntimeError::Unavailable { detail: "the log's head did not come".to_owned() })
        .into())
}

/// What is left of the piece.
struct Rest {
    exec: Exec,
    /// Bytes that came before the head line.
    first: Option<Bytes>,
    position: u64,
    gap: Option<Gap>,
}

impl Rest {
    /// Gives bytes their position. Those behind the gap are left for the next time.
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
        piece
    }
}

async fn next(mut rest: Rest) -> Option<(Result<LogPiece, RuntimeError>, Rest)> {
    let bytes = match rest.first.take() {
        Some(first) => first,
        None => loop {
            match rest.exec.next().await? {
                Ok(Chunk::Stdout(bytes)) => break bytes,
                Ok(Chunk::Stderr(line)) => tracing::debug!(line = %String::from_utf8_lossy(&line), "reading a log"),
                Err(error) => return Some((Err(error), rest)),
            }
        },
    };
    Some((Ok(LogPiece::Plain(rest.place(bytes))), rest))
}
