//! Makes lines of pieces of output. A line is shown as a terminal would show it; however long it is, only parts of it are held.

use super::{LINE_CHARACTERS, Pattern};
use crate::render::Renderer;
use errand_task::Stream;

/// How many bytes of a line are looked at together. A line that is not longer is searched as a whole.
const PIECE: usize = 32 * 1024;
/// How far back a match may begin in a longer line that ends in what follows. A longer match may be missed.
const LONGEST: usize = 8 * 1024;
/// How many characters before a match are shown of a long line.
const BEFORE: usize = 500;

/// A line without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// Position of the first byte, and after the last one with the line's end.
    pub(super) offset: u64,
    pub(super) end: u64,
    /// The stream of all bytes of the line.
    pub(super) stream: Stream,
    /// Whether the pattern was found in it.
    pub(super) matched: bool,
    /// How many characters it has besides those that are shown.
    pub(super) left_out: u64,
}

/// A line that is being put together from several pieces, or that has more than plain text.
#[derive(Debug)]
pub(super) struct Assembly {
    renderer: Renderer,
    /// What was rendered and is still to be looked at.
    settled: String,
    /// The line of which something was fed; none between two lines.
    begun: Option<(u64, Stream)>,
    part: Part,
}

/// What is known of the line so far.
#[derive(Debug, Default)]
struct Part {
    characters: u64,
    shown: String,
    shown_characters: usize,
    matched: bool,
    /// The end of what was searched, in case a match begins there.
    overlap: String,
}

impl Assembly {
    pub(super) fn new() -> Self {
        Self { renderer: Renderer::of_lines(), settled: String::new(), begun: None, part: Part::default() }
    }

    /// Whether a line has begun and not ended.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Adds bytes of one line, without its end.
    pub(super) fn add(&mut self, offset: u64, stream: Stream, bytes: &[u8], pattern: Option<&Pattern>) {
        self.begun = match self.begun {
            None => Some((offset, stream)),
            Some((first, before)) if before == stream => Some((first, stream)),
            Some((first, _)) => Some((first, Stream::Both)),
        };
        for piece in bytes.chunks(PIECE) {
            self.renderer.feed(piece, &mut self.settled);
            if self.settled.len() >= PIECE {
                self.part.take(&self.settled, false, pattern);
                self.settled.clear();
            }
        }
    }

    /// Ends the line that has begun, and returns it with what is shown of it.
    pub(super) fn end(&mut self, end: u64, pattern: Option<&Pattern>, shown: &mut String) -> Option<Ended> {
        let (offset, stream) = self.begun.take()?;
        self.renderer.finish(&mut self.settled);
        self.part.take(&self.settled, true, pattern);
        self.settled.clear();
        let Part { characters, shown: text, shown_characters, matched, .. } = std::mem::take(&mut self.part);
        *shown = text;
        Some(Ended { offset, end, stream, matched, left_out: characters - shown_characters as u64 })
    }
}

impl Part {
    /// Takes the next text of the line; the last one if `last`.
    fn take(&mut self, text: &str, last: bool, pattern: Option<&Pattern>) {
        let window = pattern.filter(|_| !self.matched).and_then(|pattern| self.search(text, last, pattern));
        self.characters += text.chars().count() as u64;
        match window {
            Some(window) => {
                self.shown_characters = window.chars().count();
                self.shown = window;
            }
            // The beginning of the line, or what follows the part that is shown.
            None => {
                let more = first_characters(text, LINE_CHARACTERS - self.shown_characters);
                self.shown_characters += more.chars().count();
                self.shown.push_str(more);
            }
        }
    }

    /// Looks for the pattern in the next text. Returns the part around a match that is not shown with the beginning of the line.
    fn search(&mut self, text: &str, last: bool, pattern: &Pattern) -> Option<String> {
        let overlap = std::mem::take(&mut self.overlap);
        let joined = [overlap.as_str(), text].concat();
        // Where the line has begun earlier, `^` must not match at the first character.
        let from = if overlap.is_empty() { 0 } else { joined.chars().next().map_or(0, char::len_utf8) };
        // A match that ends where the text ends may be none, or a longer one, with the text that follows.
        let found = pattern.find(&joined, from);
        let Some((start, _)) = found.filter(|(start, end)| last || *end < joined.len() || end - start >= LONGEST)
        else {
            self.overlap = last_bytes(&joined, LONGEST).to_owned();
            return None;
        };
        self.matched = true;
        let before = self.characters - overlap.chars().count() as u64 + joined[..start].chars().count() as u64;
        if before + BEFORE as u64 <= LINE_CHARACTERS as u64 {
            return None;
        }
        let begin = joined[..start].char_indices().rev().take(BEFORE).last().map_or(start, |(at, _)| at);
        Some(first_characters(&joined[begin..], LINE_CHARACTERS).to_owned())
    }
}

/// The beginning of a text.
fn first_characters(text: &str, most: usize) -> &str {
    // Skip counting: a text has at most as many characters as bytes.
    if text.len() <= most {
        return text;
    }
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

/// The end of a text, in whole characters.
fn last_bytes(text: &str, most: usize) -> &str {
    let from = text.len().saturating_sub(most);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    &text[from..]
}

#[cfg(test)]
impl Assembly {
    /// Bytes that are held.
    pub(super) fn held(&self) -> usize {
        let Part { shown, overlap, .. } = &self.part;
        self.renderer.held() + self.settled.capacity() + shown.capacity() + overlap.capacity()
    }
}
