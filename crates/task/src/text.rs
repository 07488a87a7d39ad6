//! Texts for a model. Everything from a command or its output is escaped, so that it cannot forge structure.

mod headline;
mod notification;
mod summary;
#[cfg(test)]
mod tests;
mod watch;

use super::{escapes, output};
pub(super) use notification::notification;
pub use summary::summarize;

/// The most characters of output in a task's preview.
const PREVIEW_LIMIT: usize = 200;

/// Converts output to plain text: whole characters, no terminal escapes, no control characters but newline and tab, and of each line only
/// the text that carriage returns did not overwrite.
pub fn plain(bytes: &[u8]) -> String {
    let standing: Vec<&[u8]> = output::trim_start(bytes).split(|byte| *byte == b'\n').map(standing_part).collect();
    escapes::strip(&standing.join(&b'\n'))
}

/// The part of a line that carriage returns did not overwrite.
fn standing_part(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == b'\r').rfind(|part| !part.is_empty()).unwrap_or_default()
}

/// The last 200 characters of output as plain text, for previews.
pub fn preview(tail: &[u8]) -> String {
    preview_of(&plain(tail))
}

/// The last 200 characters of plain text, for previews.
pub fn preview_of(text: &str) -> String {
    let text = text.trim_end();
    let skip = text.chars().count().saturating_sub(PREVIEW_LIMIT);
    text.chars().skip(skip).collect()
}

/// Whether a character could control a terminal, or change the order or the lines in which the text around it is shown.
fn is_unfit(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || character.is_control()
}

/// Appends a character in the form that it has inside an element or a quoted attribute. An unfit character becomes U+FFFD.
fn push_escaped(escaped: &mut String, character: char) {
    match character {
        '&' => escaped.push_str("&amp;"),
        '<' => escaped.push_str("&lt;"),
        '>' => escaped.push_str("&gt;"),
        '"' => escaped.push_str("&quot;"),
        '\n' | '\t' => escaped.push(character),
        unfit if is_unfit(unfit) => escaped.push(char::REPLACEMENT_CHARACTER),
        other => escaped.push(other),
    }
}

/// Escapes text for use inside an element or a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    text.chars().for_each(|character| push_escaped(&mut escaped, character));
    escaped
}

/// Escapes text and puts it on one line: every run of blanks and line breaks becomes one blank.
fn escape_line(text: &str) -> String {
    escape(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The bytes that a character takes when it is escaped.
fn escaped_len(character: char) -> usize {
    match character {
        '&' => 5,
        '<' | '>' => 4,
        '"' => 6,
        '\n' | '\t' => 1,
        unfit if is_unfit(unfit) => char::REPLACEMENT_CHARACTER.len_utf8(),
        other => other.len_utf8(),
    }
}

/// How many bytes at the beginning of a text have an escaped form of at most `limit` bytes.
fn fitting_start(text: &str, limit: usize) -> usize {
    let mut room = limit;
    let end = text.char_indices().find(|(_, character)| match room.checked_sub(escaped_len(*character)) {
        Some(left) => {
            room = left;
            false
        }
        None => true,
    });
    end.map_or(text.len(), |(at, _)| at)
}

/// Where the end of a text begins whose escaped form has at most `limit` bytes.
fn fitting_end(text: &str, limit: usize) -> usize {
    let mut room = limit;
    let before = text.char_indices().rev().find(|(_, character)| match room.checked_sub(escaped_len(*character)) {
        Some(left) => {
            room = left;
            false
        }
        None => true,
    });
    before.map_or(0, |(at, character)| at + character.len_utf8())
}
