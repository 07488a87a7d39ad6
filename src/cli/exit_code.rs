//! The exit codes of this program itself. A command's exit code comes from its outcome.

/// Success.
pub const SUCCESS: u8 = 0;
/// The server refused, or something failed.
pub const FAILURE: u8 = 1;
/// The arguments or the settings are wrong.
pub const USAGE: u8 = 64;
/// No server answers, or the connection to it was lost.
pub const UNAVAILABLE: u8 = 69;
/// `wait` reached its own timeout; the task keeps running.
pub const WAIT_TIMEOUT: u8 = 124;
/// How the command ended is unknown.
pub const LOST: u8 = 125;
/// A second Ctrl-C.
pub const INTERRUPTED: u8 = 130;
/// The reader of the output closed the pipe.
pub const BROKEN_PIPE: u8 = 141;
