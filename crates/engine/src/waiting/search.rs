//! Searches output for a pattern, piece by piece. Pure: no I/O, no clock.

use regex::bytes::Regex;

use errand_bridge::OutputPiece;
use errand_task::{WatchPattern, plain};
use errand_watching::{LONGEST, PatternError, compile};

/// How many bytes before a possible match are kept: `^` and `\b` see what they stand after, and the match is shown with them.
const CONTEXT: usize = 500;
/// The most characters of the lines that a match is shown with.
const LINE_LIMIT: usize = 2000;
/// How many bytes from the beginning of a match on are looked at for its lines.
const LINE_BYTES: usize = 16 * 1024;

/// What to look for in output. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OutputPattern {
    regex: Regex,
    /// The length of every match where the pattern is the text itself.
    text_length: Option<usize>,
}

impl OutputPattern {
    /// The text itself.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn substring(text: &str) -> Result<Self, PatternError> {
        Ok(Self { regex: compile(&WatchPattern::Text(text.to_owned()))?, text_length: Some(text.len()) })
    }

    /// A regular expression.
    ///
    /// # Errors
    /// When it is empty, too long, too large or malformed.
    pub fn regex(pattern: &str) -> Result<Self, PatternError> {
        Ok(Self { regex: compile(&WatchPattern::Regex(pattern.to_owned()))?, text_length: None })
    }

    /// Whether a search takes so little time that it can run between other work.
    pub(super) fn is_quick(&self) -> bool {
        self.text_length.is_some()
    }
}

/// A match in the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputMatch {
    /// Position of its first byte in all output.
    pub offset: u64,
    /// Position after its last byte.
    pub end: u64,
    /// The lines that it is in, as plain text, at most 2000 characters.
    pub line: String,
    /// True when `line` is only a part of the lines.
    pub line_cut: bool,
}

/// A search in progress. Holds at most what was pushed last, and about 9 KiB before that.
#[derive(Debug)]
pub(super) struct Search {
    pattern: OutputPattern,
    buffer: Vec<u8>,
    /// Position of the buffer's first byte in all output.
    start: u64,
    /// Index in the buffer of the first byte that a match may begin with.
    from: usize,
}

/// What a search of the output so far found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// A match that more output would not change.
    Match(OutputMatch),
    /// A match that ends where the output ends: with more output it may be none.
    AtTheEnd(OutputMatch),
}

impl Search {
    /// A search from `offset` on, and the position from which output is to be pushed.
    pub(super) fn new(pattern: OutputPattern, offset: u64) -> (Self, u64) {
        let start = offset.saturating_sub(CONTEXT as u64);
        let from = usize::try_from(offset - start).unwrap_or(CONTEXT);
        (Self { pattern, buffer: Vec::new(), start, from }, start)
    }

    /// No match begins before this position.
    pub(super) fn position(&self) -> u64 {
        self.start + self.from as u64
    }

    /// Appends output. After a gap, the search begins anew.
    pub(super) fn push(&mut self, piece: &OutputPiece) {
        if piece.offset != self.start + self.buffer.len() as u64 {
            let searched = self.position();
            self.buffer.clear();
            self.start = piece.offset;
            self.from = usize::try_from(searched.saturating_sub(piece.offset)).unwrap_or(0);
        }
        self.buffer.extend_from_slice(&piece.bytes);
    }

    /// Searches what was pushed, and forgets what no match can begin in.
    pub(super) fn find(&mut self) -> Found {
        let found =
            (self.from <= self.buffer.len()).then(|| self.pattern.regex.find_at(&self.buffer, self.from)).flatten();
        let Some(found) = found.map(|found| found.range()) else {
            self.forget();
            return Found::Nothing;
        };
        let (line, line_cut) = line(&self.buffer, self.start, found.start, found.end);
        let at = |index: usize| self.start + index as u64;
        let shown = OutputMatch { offset: at(found.start), end: at(found.end), line, line_cut };
        if self.pattern.text_length.is_none() && found.end == self.buffer.len() && found.len() < LONGEST {
            // More output may also complete a match that begins earlier.
            self.forget();
            return Found::AtTheEnd(shown);
        }
        self.from = found.end;
        Found::Match(shown)
    }

    /// Forgets the output that no match can begin in any more.
    fn forget(&mut self) {
        let longest = self.pattern.text_length.unwrap_or(LONGEST);
        self.from = self.from.max(self.buffer.len().saturating_sub(longest));
        let forgotten = self.from.saturating_sub(CONTEXT).min(self.buffer.len());
        self.buffer.drain(..forgotten);
        self.start += forgotten as u64;
        self.from -= forgotten;
    }
}

/// The lines around a match, as plain text, and whether some of them was cut off. The buffer begins at `position` of all output.
fn line(buffer: &[u8], position: u64, start: usize, end: usize) -> (String, bool) {
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let begin = buffer[..start].iter().rposition(is_break).map_or(0, |at| at + 1);
    let until = buffer[end..].iter().position(is_break).map_or(buffer.len(), |at| end + at);
    let from = begin.max(start.saturating_sub(CONTEXT));
    let to = until.min(start.saturating_add(LINE_BYTES));
    let text = plain(&buffer[from..to]);
    let text = text.trim_end();
    let line: String = text.chars().take(LINE_LIMIT).collect();
    // Without a line break before the match, the line may have begun in output that is forgotten.
    let begun_earlier = from > begin || (begin == 0 && position > 0);
    let cut = begun_earlier || to < until || line.len() < text.len();
    (line, cut)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> OutputPattern {
        OutputPattern::substring(text).unwrap()
    }

    fn regex(pattern: &str) -> OutputPattern {
        OutputPattern::regex(pattern).unwrap()
    }

    /// Searches pieces that follow each other without a gap. Returns the first match, and whether it is final.
    fn searched(pattern: OutputPattern, offset: u64, pieces: &[&[u8]]) -> Option<(u64, u64, bool)> {
        let (mut search, mut position) = Search::new(pattern, offset);
        let mut last = None;
        let output: Vec<u8> = pieces.concat();
        let mut end = 0;
        for piece in pieces {
            end += piece.len();
            let from = usize::try_from(position).unwrap().min(end);
            search.push(&OutputPiece::both(from as u64, output[from..end].to_vec()));
            position = end as u64;
            match search.find() {
                Found::Nothing => last = None,
                Found::Match(found) => return Some((found.offset, found.end, true)),
                Found::AtTheEnd(found) => last = Some((found.offset, found.end, false)),
            }
        }
        last
    }

    #[test]
    fn match_is_found_across_pieces() {
        assert_eq!(searched(text("ready"), 0, &[b"not re", b"a", b"dy"]), Some((4, 9, true)));
        assert_eq!(searched(text("€"), 0, &["a€".as_bytes().split_at(2).0, &"€".as_bytes()[1..]]), Some((1, 4, true)));
        assert_eq!(
            searched(regex("^listening on \\d+$"), 0, &[b"x\nlist", b"ening on 80", b"80\nmore"]),
            Some((2, 19, true))
        );
        assert_eq!(searched(regex("two\nthree"), 0, &[b"one\ntwo", b"\nthree\n"]), Some((4, 13, true)));
    }

    #[test]
    fn match_at_the_end_is_not_final() {
        assert_eq!(searched(regex("done$"), 0, &[b"done"]), Some((0, 4, false)));
        assert_eq!(searched(regex("done$"), 0, &[b"done", b" not"]), None);
        assert_eq!(searched(regex("done$"), 0, &[b"done", b"\n"]), Some((0, 4, true)));
        // A text is the same whatever follows.
        assert_eq!(searched(text("done"), 0, &[b"done"]), Some((0, 4, true)));
    }

    #[test]
    fn search_begins_at_the_offset() {
        let output: &[&[u8]] = &[b"ready\nready\n"];
        assert_eq!(searched(text("ready"), 1, output), Some((6, 11, true)));
        assert_eq!(searched(regex("^eady"), 1, output), None);
        assert_eq!(searched(regex("^ready"), 6, output), Some((6, 11, true)));
        assert_eq!(searched(text("ready"), 7, output), None);
    }

    #[test]
    fn no_match_spans_a_gap() {
        let (mut search, _) = Search::new(text("ab"), 0);
        search.push(&OutputPiece::both(0, "a"));
        assert_eq!(search.find(), Found::Nothing);
        search.push(&OutputPiece::both(9, "b ab"));
        let Found::Match(found) = search.find() else { unreachable!("it is there") };
        assert_eq!((found.offset, found.end), (11, 13));
    }

    #[test]
    fn memory_of_a_search_is_bounded() {
        let (mut search, _) = Search::new(regex("(?s)x.*y"), 0);
        let piece = vec![b'x'; 64 * 1024];
        for round in 0..100 {
            search.push(&OutputPiece::both(round * piece.len() as u64, piece.clone()));
            assert_eq!(search.find(), Found::Nothing);
            assert!(search.buffer.len() <= LONGEST + CONTEXT, "{}", search.buffer.len());
        }
        assert_eq!(search.position(), 100 * 64 * 1024 - LONGEST as u64);
        // A match that could go on for ever is taken as it is.
        let endless = searched(regex("(?s)x.*"), 0, &[&piece]);
        assert_eq!(endless, Some((0, piece.len() as u64, true)));
    }

    #[test]
    fn shown_line_is_plain_and_bounded() {
        let shown = |output: &str, wanted: &str| {
            let (mut search, _) = Search::new(text(wanted), 0);
            search.push(&OutputPiece::both(0, output.to_owned()));
            let Found::Match(found) = search.find() else { unreachable!("it is there") };
            (found.line, found.line_cut)
        };
        assert_eq!(shown("one\n\u{1b}[32mserver\u{1b}[0m ready\r\nnext", "ready"), ("server ready".to_owned(), false));
        assert_eq!(shown("10%\r99%\r100% ready", "ready"), ("100% ready".to_owned(), false));
        let long = format!("{}ready{}", "a".repeat(5000), "€".repeat(5000));
        let (line, cut) = shown(&long, "ready");
        assert!(line.contains("ready") && cut);
        assert_eq!(line.chars().count(), LINE_LIMIT);
    }

    #[test]
    fn unfit_patterns_are_refused() {
        let refused = |pattern: &str| OutputPattern::regex(pattern).unwrap_err();
        assert_eq!(refused(""), PatternError::Empty);
        assert_eq!(OutputPattern::substring(&"x".repeat(513)).unwrap_err(), PatternError::TooLong(513));
        assert_eq!(refused("(a{1000}){1000}"), PatternError::TooLarge);
        assert!(matches!(refused("(a"), PatternError::Malformed(why) if why.contains("unclosed group")));
        assert!(OutputPattern::regex(r"\bhttps?://\S+:\d{2,5}\b").is_ok());
        assert!(OutputPattern::regex(&"x".repeat(512)).is_ok());
    }

    proptest! {
        #[test]
        fn pieces_change_no_match(output in "[ab\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6), offset in 0u64..20) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(output.len())).chain([0, output.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &output.as_bytes()[cut[0]..cut[1]]).collect();
            let offset = offset.min(output.len() as u64);
            for pattern in ["a+b", "^a", "b$", "ab|ba", r"\ba+\b"] {
                let whole = searched(regex(pattern), offset, &[output.as_bytes()]).map(|(from, _, _)| from);
                prop_assert_eq!(searched(regex(pattern), offset, &pieces).map(|(from, _, _)| from), whole, "{} {:?}", pattern, output);
            }
        }
    }
}
