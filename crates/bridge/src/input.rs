//! What is written to a command's standard input or terminal.

use bytes::Bytes;

use errand_runtime::RuntimeError;

/// Something to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Position of its first byte in all that was ever written; what was taken before is skipped. None: after all of that.
    pub offset: Option<u64>,
    /// The bytes, at most [`Input::LIMIT`].
    pub data: Bytes,
    /// Whether nothing comes after them.
    pub end: bool,
}

impl Input {
    /// The most bytes at once.
    pub const LIMIT: usize = 64 * 1024;
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputTaken {
    /// How many bytes were ever taken. Less than written when the command does not read.
    pub taken: u64,
    /// Whether the end was taken as well.
    pub ended: bool,
    /// Whether the next byte has no place in the line that the terminal collects.
    pub line_full: bool,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The command takes no input, or has no terminal to be resized.
    #[error("the task was started without it")]
    NotOpen,
    /// The command has closed its input, or is over.
    #[error("the command has closed its input, or is over")]
    Closed,
    /// The bridge cannot.
    #[error("the sandbox's bridge cannot do it: {why}")]
    Unsupported {
        /// Why not.
        why: String,
    },
    /// The sandbox cannot be reached.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
