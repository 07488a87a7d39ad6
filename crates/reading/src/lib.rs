//! How output is shown: as a terminal would show it, condensed for a model, by lines, and searched.
//!
//! Pure: no I/O, no clock. Server and guest share it: the guest looks through a log beside the log, and the server through a log that no
//! guest can read for it. Output is hostile: whatever it is, memory is bounded, and the time is proportional to its size.

mod condense;
mod fold;
mod grid;
mod limit;
mod render;
mod scan;

pub use condense::{Condensed, condense, partial_line};
pub use render::{DEFAULT_ROWS, Renderer, rendered};
pub use scan::{
    CONTEXT_LIMIT, Grep, LINE_CHARACTERS, LINES_LIMIT, Line, MATCHES_LIMIT, PATTERN_LIMIT, Pattern, PatternError,
    Query, SCANNED_BYTES, Scan, Scanned, Scanner,
};
