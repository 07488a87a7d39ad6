//! A piece of a log, whichever bridge reads it.

use std::{fmt, pin::Pin};

use futures_util::{Stream, StreamExt as _};

use super::OutputPiece;
use crate::{runtime::RuntimeError, task::Gap};

/// Output in order. A gap in it shows as a jump of the offsets.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<OutputPiece, RuntimeError>> + Send>>;

/// Which piece of a log. Positions count all output, also what the log has not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// From a byte on.
    From {
        /// The first byte.
        offset: u64,
        /// The most bytes.
        limit: u64,
    },
    /// The end.
    Tail {
        /// The most bytes.
        limit: u64,
    },
}

/// A piece of a log, as it was when it was opened.
pub struct LogReader {
    /// Bytes of all output, with what the log has not kept.
    pub size: u64,
    /// The first byte of the piece.
    pub start: u64,
    /// What the log has not kept because of the output limit.
    pub gap: Option<Gap>,
    pieces: Pieces,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was removed.
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

    /// The next output of the piece; none at its end. Cancel safe.
    ///
    /// # Errors
    /// When the sandbox cannot be reached any more.
    pub async fn next(&mut self) -> Option<Result<OutputPiece, RuntimeError>> {
        self.pieces.next().await
    }

    /// The whole piece at once.
    ///
    /// # Errors
    /// When the sandbox cannot be reached any more.
    pub async fn collect(mut self) -> Result<Vec<OutputPiece>, RuntimeError> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await {
            all.push(piece?);
        }
        Ok(all)
    }

    /// The bytes of the whole piece at once, without what tells their positions and streams.
    ///
    /// # Errors
    /// When the sandbox cannot be reached any more.
    pub async fn bytes(self) -> Result<Vec<u8>, RuntimeError> {
        Ok(self.collect().await?.iter().flat_map(|piece| piece.bytes.iter().copied()).collect())
    }
}
