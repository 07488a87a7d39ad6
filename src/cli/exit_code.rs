//! The exit codes of the program itself. Those of commands come from their outcomes.

/// All went well.
pub const SUCCESS: u8 = 0;
/// The server refused, or something failed.
pub const FAILURE: u8 = 1;
/// The arguments or the settings are wrong.
pub const USAGE: u8 = 64;
/// No server answers, or the connection to it was lost.
pub const UNAVAILABLE: u8 = 69;
/// `wait` ran out of its own time; the task goes on.
pub const WAIT_TIMEOUT: u8 = 124;
/// Nobody can know how the command ended.
pub const LOST: u8 = 125;
/// A second Ctrl-C.
pub const INTERRUPTED: u8 = 130;
/// Whoever read the output went away.
pub const BROKEN_PIPE: u8 = 141;
