//! Finds lines in output: by number, or by what is in them. Output comes in pieces, and only what is found is held.
//!
//! A line is what stands between two newlines, as a terminal would show it: without colours, and with only the text that was not
//! overwritten. Lines are numbered from 1 and count what was kept of the output.

mod assembly;
mod collect;
mod pattern;

use errand_task::Stream;

use assembly::{Assembly, Ended};
use collect::Collector;
pub use pattern::{PATTERN_LIMIT, Pattern, PatternError};

/// The most characters that are shown of a line.
pub const LINE_CHARACTERS: usize = 2000;
/// The most lines that can be asked for, and the farthest from the end that a selection may begin.
pub const LINES_LIMIT: usize = 2000;
/// The most matching lines that can be asked for.
pub const MATCHES_LIMIT: usize = 1000;
/// The most lines of context before and after a match.
pub const CONTEXT_LIMIT: usize = 20;
/// The most bytes of all lines that are found, [`LINE_COST`] for each included.
pub const SCANNED_BYTES: usize = 512 * 1024;
/// How much of that a line takes besides its text.
const LINE_COST: usize = 64;

/// What to find in the output of a task. The caller has validated the numbers.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Which lines.
    pub query: Query,
    /// Only the output of this stream; none: all output.
    pub stream: Option<Stream>,
}

/// Which lines to find.
#[derive(Debug, Clone)]
pub enum Query {
    /// Lines by number.
    Lines {
        /// How many lines to skip; if negative, the selection begins this many lines before the end, at most [`LINES_LIMIT`].
        offset: i64,
        /// The most lines, at most [`LINES_LIMIT`].
        limit: usize,
    },
    /// Lines by what is in them.
    Grep(Grep),
}

/// A search of lines.
#[derive(Debug, Clone)]
pub struct Grep {
    /// What to look for in each line.
    pub pattern: Pattern,
    /// How many lines before each match are found too, at most [`CONTEXT_LIMIT`].
    pub before: usize,
    /// How many lines after each match, at most [`CONTEXT_LIMIT`].
    pub after: usize,
    /// The most matching lines, at most [`MATCHES_LIMIT`]. Others are counted.
    pub most: usize,
}

impl Scan {
    /// The most lines that may be found.
    pub fn most_lines(&self) -> usize {
        let most = match &self.query {
            Query::Lines { limit, .. } => *limit,
            Query::Grep(grep) => grep.most.saturating_mul(1 + grep.before + grep.after),
        };
        most.min(SCANNED_BYTES / LINE_COST)
    }
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number; the first line is 1.
    pub number: u64,
    /// Position of its first byte in all output.
    pub offset: u64,
    /// Position after its last byte, with the newline.
    pub end: u64,
    /// Its text without the newline, at most [`LINE_CHARACTERS`] characters: the beginning, or the part around the match.
    pub text: String,
    /// How many characters it has besides.
    pub left_out: u64,
    /// Whether it matches the pattern.
    pub matched: bool,
    /// The stream that all of it was written to.
    pub stream: Stream,
}

impl Line {
    /// How much of [`SCANNED_BYTES`] it takes.
    pub fn cost(&self) -> usize {
        self.text.len() + LINE_COST
    }
}

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The lines, in ascending order.
    pub lines: Vec<Line>,
    /// How many lines there are.
    pub total_lines: u64,
    /// How many lines match; 0 when lines were asked for by number.
    pub matching_lines: u64,
    /// How many lines were asked for, or match, and are not in `lines`.
    pub left_out: u64,
    /// Position up to which the output was read.
    pub position: u64,
}

/// A scan in progress. Holds what was found and at most about 300 KiB more.
#[derive(Debug)]
pub struct Scanner {
    stream: Option<Stream>,
    assembly: Assembly,
    collector: Collector,
    /// The text of a line that was assembled.
    text: String,
    position: u64,
}

impl Scanner {
    /// Begins a scan.
    pub fn new(scan: &Scan) -> Self {
        Self {
            stream: scan.stream,
            assembly: Assembly::new(),
            collector: Collector::new(&scan.query),
            text: String::new(),
            position: 0,
        }
    }

    /// Scans the next output. `offset` is its position; where it does not follow the output before, that ends a line.
    pub fn push(&mut self, offset: u64, stream: Stream, bytes: &[u8]) {
        if offset != self.position {
            self.end_line(self.position);
        }
        self.position = offset + bytes.len() as u64;
        if self.stream.is_some_and(|wanted| wanted != stream) {
            return;
        }
        let (mut offset, mut rest) = (offset, bytes);
        while let Some(size) = memchr::memchr(b'\n', rest) {
            let (line, end) = (&rest[..size], offset + size as u64 + 1);
            if !self.assembly.has_begun()
                && let Some(text) = plain(line)
            {
                self.collector.take_plain(Ended { offset, end, stream, matched: false, left_out: 0 }, text);
            } else {
                self.assembly.add(offset, stream, line, self.collector.pattern());
                self.end_line(end);
            }
            (offset, rest) = (end, &rest[size + 1..]);
        }
        if !rest.is_empty() {
            self.assembly.add(offset, stream, rest, self.collector.pattern());
        }
    }

    /// Ends the scan. Output without a newline at its end is a line too.
    pub fn finish(mut self) -> Scanned {
        self.end_line(self.position);
        Scanned { position: self.position, ..self.collector.finish() }
    }

    fn end_line(&mut self, end: u64) {
        if let Some(line) = self.assembly.end(end, self.collector.pattern(), &mut self.text) {
            self.collector.take(line, &self.text);
        }
    }
}

/// The text of a line if it is shown as it is, and whole.
fn plain(line: &[u8]) -> Option<&str> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > LINE_CHARACTERS || line.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7F) {
        return None;
    }
    // The control characters beyond ASCII begin with this byte.
    let text = std::str::from_utf8(line).ok()?;
    (!line.contains(&0xC2) || !text.chars().any(|c| c.is_control() && c != '\t')).then_some(text)
}

#[cfg(test)]
mod tests;
