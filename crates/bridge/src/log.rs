//! A part of a log, independent of the bridge that reads it.

use std::{fmt, pin::Pin};

use bytes::Bytes;
use futures_util::{Stream as Items, StreamExt as _};

use super::OutputPiece;
use errand_runtime::RuntimeError;
use errand_task::{Gap, Stream};

/// Output in order. A gap shows as a jump in the offsets.
pub type Pieces = Pin<Box<dyn Items<Item = Result<LogPiece, RuntimeError>> + Send>>;

/// Output as the log stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPiece {
    /// Uncompressed output.
    Plain(OutputPiece),
    /// Compressed output.
    Packed(PackedPiece),
}

/// Output of one stream as an LZ4 block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedPiece {
    /// Position of the first byte in all output.
    pub offset: u64,
    /// The stream that the output comes from.
    pub stream: Stream,
    /// How many bytes the block unpacks to. At most [`PackedPiece::LIMIT`].
    pub size: usize,
    /// The block.
    pub block: Bytes,
}

impl PackedPiece {
    /// The most bytes that a block may unpack to.
    pub const LIMIT: usize = 1024 * 1024;

    /// Position after the last byte.
    pub fn end(&self) -> u64 {
        self.offset + self.size as u64
    }

    /// The output as it was printed.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] when the block is invalid, or unpacks to another size.
    pub fn unpack(self) -> Result<OutputPiece, RuntimeError> {
        let unpacked = (self.size <= Self::LIMIT).then(|| lz4_flex::block::decompress(&self.block, self.size).ok());
        match unpacked.flatten().filter(|bytes| bytes.len() == self.size) {
            Some(bytes) => Ok(OutputPiece { offset: self.offset, stream: self.stream, bytes: bytes.into() }),
            None => Err(RuntimeError::Refused { detail: "the bridge's packed output cannot be understood".to_owned() }),
        }
    }
}

/// Which part of a log to read. Positions count all output, including what the log has not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// From an offset on.
    From {
        /// The first byte.
        offset: u64,
        /// The most bytes.
        limit: u64,
    },
    /// The end of the log.
    Tail {
        /// The most bytes.
        limit: u64,
    },
}

/// A part of a log, as it was when it was opened.
pub struct LogReader {
    /// Size of all output in bytes, including what the log has not kept.
    pub size: u64,
    /// Position of the first byte of the part.
    pub start: u64,
    /// What the log has not kept because of the output limit.
    pub gap: Option<Gap>,
    pieces: Pieces,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log was removed.
    #[error("the log is gone")]
    Gone,
    /// The sandbox cannot be reached.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader").field("size", &self.size).field("start", &self.start).finish_non_exhaustive()
    }
}

impl LogReader {
    /// A reader of these pieces.
    pub fn new(size: u64, start: u64, gap: Option<Gap>, pieces: Pieces) -> Self {
        Self { size, start, gap, pieces }
    }

    /// The next output of the part, compressed or not, as it comes; none at the end. Cancel safe.
    ///
    /// # Errors
    /// When the sandbox can no longer be reached.
    pub async fn next_as_it_is(&mut self) -> Option<Result<LogPiece, RuntimeError>> {
        self.pieces.next().await
    }

    /// The next output of the part, unpacked; none at the end. Cancel safe.
    ///
    /// # Errors
    /// When the sandbox can no longer be reached.
    pub async fn next(&mut self) -> Option<Result<OutputPiece, RuntimeError>> {
        let piece = self.next_as_it_is().await?;
        Some(piece.and_then(|piece| match piece {
            LogPiece::Plain(piece) => Ok(piece),
            LogPiece::Packed(piece) => piece.unpack(),
        }))
    }

    /// The whole part at once.
    ///
    /// # Errors
    /// When the sandbox can no longer be reached.
    pub async fn collect(mut self) -> Result<Vec<OutputPiece>, RuntimeError> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await {
            all.push(piece?);
        }
        Ok(all)
    }

    /// The bytes of the whole part at once, without their positions and streams.
    ///
    /// # Errors
    /// When the sandbox can no longer be reached.
    pub async fn bytes(self) -> Result<Vec<u8>, RuntimeError> {
        Ok(self.collect().await?.iter().flat_map(|piece| piece.bytes.iter().copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn packed_output_is_unpacked_or_refused() {
        let lines = b"one of many lines\n".repeat(100);
        let packed = lz4_flex::block::compress(&lines);
        let piece = |block: &[u8], size| {
            PackedPiece { offset: 7, stream: Stream::Stdout, size, block: Bytes::copy_from_slice(block) }.unpack()
        };
        let wanted = OutputPiece { offset: 7, stream: Stream::Stdout, bytes: lines.clone().into() };
        assert_eq!(piece(&packed, lines.len()).unwrap(), wanted);
        for (block, size) in [
            (&b"nonsense"[..], lines.len()),
            (&packed, 1),
            (&packed, lines.len() + 1),
            (&packed, PackedPiece::LIMIT + 1),
            (&packed, usize::MAX),
        ] {
            assert!(matches!(piece(block, size), Err(RuntimeError::Refused { .. })), "{size}");
        }
    }
}
