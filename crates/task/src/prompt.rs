//! Recognises from its output that a silent command waits for input.
//!
//! Only the end of the last line counts: a question further up has been answered already, or was no question. The table [`rules::RULES`]
//! lists the endings that are prompts, with the tools that print them.

mod line;
mod matches;
mod rules;
#[cfg(test)]
mod tests;

use super::{shorten::LINE_LIMIT, text};
use line::Line;
use rules::RULES;

/// The most bytes of a line that are examined.
const LOOKED_AT: usize = 1024;

/// The last line of the output that is not blank.
pub fn last_line(tail: &[u8]) -> String {
    let text = text::plain(tail);
    evidence(text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default())
}

/// The last bytes of a line, at most the limit.
fn evidence(line: &str) -> String {
    let skip = line.chars().count().saturating_sub(LINE_LIMIT);
    line.chars().skip(skip).collect()
}

/// The last line of the output if it is unfinished and ends like a prompt.
pub fn waiting_line(tail: &[u8]) -> Option<String> {
    // A line with a newline is a statement, not a question.
    let start = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let open = &tail[start.max(tail.len().saturating_sub(LOOKED_AT))..];
    let text = text::plain(open);
    let line = Line::new(&text)?;
    RULES.iter().any(|rule| (rule.matches)(&line)).then(|| evidence(line.text))
}
