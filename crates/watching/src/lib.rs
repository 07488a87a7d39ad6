//! Searches the output of a command for patterns, piece by piece as it arrives. Pure: no I/O, no clock.
//!
//! The guest uses it beside the log, and the server where no guest can. [`Scanner`] is one search for all watches of a task; [`compile`] says
//! which patterns are accepted, here and wherever else output is searched.

mod pattern;
mod scanner;
mod tally;

pub use pattern::{COMPILED_LIMIT, PATTERN_LIMIT, PatternError, check, compile};
pub use scanner::{LONGEST, Scanner};
pub use tally::{Found, TEXT_LIMIT};
