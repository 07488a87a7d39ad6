//! Input for a command's standard input or terminal.

use bytes::Bytes;

use errand_runtime::RuntimeError;

/// Input to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Position of the first byte, counted over everything ever written to this command. Bytes that the command has already taken are
    /// skipped. None: right after the bytes already taken.
    pub offset: Option<u64>,
    /// The bytes, at most [`Input::LIMIT`].
    pub data: Bytes,
    /// Whether these bytes are the end of the input.
    pub end: bool,
}

impl Input {
    /// The most bytes in one call.
    pub const LIMIT: usize = 64 * 1024;
}

/// How much of the input the command took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputTaken {
    /// How many bytes the command has taken in all. Less than written if the command does not read.
    pub taken: u64,
    /// Whether the end of the input was taken as well.
    pub ended: bool,
    /// Whether the next byte does not fit into the line that the terminal is collecting.
    pub line_full: bool,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The command takes no input, or has no terminal to resize.
    #[error("the task was started without it")]
    NotOpen,
    /// The command has closed its input, or has ended.
    #[error("the command has closed its input, or is over")]
    Closed,
    /// The sandbox's kind of bridge does not support input.
    #[error("the sandbox's bridge cannot do it: {why}")]
    Unsupported {
        /// Why not.
        why: String,
    },
    /// The sandbox cannot be reached.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
