//! Reads the log of a task: in its sandbox, or what is retained of it once the sandbox has it no more.

use bytes::Bytes;
use futures_util::stream;

use super::{EngineError, Inner};
use errand_bridge::{LogPiece, LogReader, OutputPiece, Piece};
use errand_task::{RetainedOutput, Task};

impl Inner {
    /// Opens a part of a task's log. The retained output takes the place of a log that is gone or whose sandbox does not run.
    ///
    /// # Errors
    /// [`EngineError::LogGone`] and [`EngineError::SandboxNotRunning`] when nothing is retained either; when the sandbox or the store fails.
    pub(super) async fn open_log(&self, task: &Task, piece: Piece) -> Result<LogReader, EngineError> {
        let opened = self.open_in_sandbox(task, piece).await;
        match opened {
            Err(EngineError::LogGone | EngineError::SandboxNotRunning) if task.status().is_terminal() => {
                match self.store.retained_output(&task.owner.tenant, task.id).await? {
                    Some(output) => Ok(reader(output, piece)),
                    // That it printed nothing is all that there is to know.
                    None if task.output.bytes == 0 => Ok(reader(RetainedOutput::default(), piece)),
                    None => opened,
                }
            }
            opened => opened,
        }
    }

    async fn open_in_sandbox(&self, task: &Task, piece: Piece) -> Result<LogReader, EngineError> {
        let sandbox = self.sandboxes.of_task(task).await?;
        Ok(sandbox.bridge.read(task.id, piece).await?)
    }
}

/// Reads a part of a retained output as if it were the log.
fn reader(output: RetainedOutput, piece: Piece) -> LogReader {
    let total = output.total;
    let (from, limit) = match piece {
        Piece::From { offset, limit } => (offset, limit),
        Piece::Tail { limit } => (total.saturating_sub(limit), limit),
    };
    let gaps = output.summary().gaps;
    let start = gaps.iter().fold(from, |position, gap| gap.past(position));
    let mut left = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut pieces = Vec::new();
    for (run, bytes) in output.from(start) {
        let bytes = &bytes[..bytes.len().min(left)];
        left -= bytes.len();
        if !bytes.is_empty() {
            let piece = OutputPiece { offset: run.offset, stream: run.stream, bytes: Bytes::copy_from_slice(bytes) };
            pieces.push(Ok(LogPiece::Plain(piece)));
        }
    }
    LogReader::new(total, start, gaps.last().copied(), Box::pin(stream::iter(pieces)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;
    use errand_task::Stream;

    async fn read(piece: Piece) -> (u64, u64, Vec<(u64, Stream, String)>) {
        let mut output = RetainedOutput::of(30);
        output.push(0, Stream::Stdout, b"abc");
        output.push(3, Stream::Stderr, b"de");
        output.push(20, Stream::Stdout, b"uvwxy");
        let reader = reader(output, piece);
        let (size, start) = (reader.size, reader.start);
        let pieces = reader.collect().await.unwrap();
        let text = |piece: OutputPiece| (piece.offset, piece.stream, String::from_utf8(piece.bytes.to_vec()).unwrap());
        (size, start, pieces.into_iter().map(text).collect())
    }

    #[tokio::test]
    async fn retained_output_reads_like_a_log() {
        let piece = |offset, stream, text: &str| (offset, stream, text.to_owned());
        let whole = read(Piece::From { offset: 0, limit: 99 }).await;
        let pieces =
            vec![piece(0, Stream::Stdout, "abc"), piece(3, Stream::Stderr, "de"), piece(20, Stream::Stdout, "uvwxy")];
        assert_eq!(whole, (30, 0, pieces));
        // Bytes that are not there do not count against the limit.
        let part = read(Piece::From { offset: 4, limit: 3 }).await;
        assert_eq!(part, (30, 4, vec![piece(4, Stream::Stderr, "e"), piece(20, Stream::Stdout, "uv")]));
        let tail = read(Piece::Tail { limit: 8 }).await;
        assert_eq!(tail, (30, 22, vec![piece(22, Stream::Stdout, "wxy")]));
        assert_eq!(read(Piece::Tail { limit: 2 }).await, (30, 30, Vec::new()), "the end is not there");
        assert_eq!(read(Piece::From { offset: 10, limit: 1 }).await.1, 20);
    }
}
