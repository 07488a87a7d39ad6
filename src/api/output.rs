//! Output on the wire: as bytes, or as text in which no character is split between two parts.

use super::convert::count;
use crate::{
    engine::{OutputSlice, ReadSelection},
    proto::v1::{OutputFormat, OutputPart, ReadOutputResponse, output_part::Content},
    task::output::{split_whole, trim_start},
};

/// The most bytes of the log in one message of a stream.
pub(super) const PART_LIMIT: usize = 64 * 1024;
/// The most bytes of one character.
const CHARACTER_LIMIT: usize = 4;

/// How output is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Unchanged.
    Bytes,
    /// As UTF-8; what is not becomes U+FFFD.
    Text,
}

impl From<OutputFormat> for Format {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Unspecified | OutputFormat::Bytes => Self::Bytes,
            OutputFormat::Text => Self::Text,
        }
    }
}

/// One part. `next_offset` counts the bytes of the log, also for text.
fn part(format: Format, offset: u64, bytes: &[u8]) -> OutputPart {
    let content = match format {
        Format::Bytes => Content::Data(bytes.to_vec()),
        Format::Text => Content::Text(String::from_utf8_lossy(bytes).into_owned()),
    };
    OutputPart { offset: count(offset), content: Some(content), next_offset: count(offset + bytes.len() as u64) }
}

/// Makes parts of a log as it comes.
#[derive(Debug)]
pub(super) struct Parts {
    format: Format,
    /// Bytes that came and are the beginning of a character, at most three.
    kept: Vec<u8>,
    /// Position after the last byte that came.
    position: u64,
}

impl Parts {
    pub(super) fn new(format: Format) -> Self {
        Self { format, kept: Vec::new(), position: 0 }
    }

    /// The parts that are whole now that `bytes`, at `offset`, have come.
    pub(super) fn push(&mut self, offset: u64, bytes: &[u8]) -> Vec<OutputPart> {
        self.position = offset + bytes.len() as u64;
        match self.format {
            Format::Bytes => self.cut(offset, bytes).0,
            Format::Text => {
                let start = offset - self.kept.len() as u64;
                let bytes = [&std::mem::take(&mut self.kept), bytes].concat();
                let (parts, rest) = self.cut(start, &bytes);
                self.kept = rest.to_vec();
                parts
            }
        }
    }

    /// What is left when nothing more will come.
    pub(super) fn finish(&mut self) -> Option<OutputPart> {
        let kept = std::mem::take(&mut self.kept);
        (!kept.is_empty()).then(|| part(self.format, self.position - kept.len() as u64, &kept))
    }

    /// Cuts bytes into parts, and the rest that makes none yet.
    fn cut<'a>(&self, mut offset: u64, mut bytes: &'a [u8]) -> (Vec<OutputPart>, &'a [u8]) {
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            let piece = &bytes[..bytes.len().min(PART_LIMIT)];
            let whole = match self.format {
                Format::Bytes => piece,
                Format::Text => split_whole(piece, true).0,
            };
            if whole.is_empty() {
                break;
            }
            parts.push(part(self.format, offset, whole));
            offset += whole.len() as u64;
            bytes = &bytes[whole.len()..];
        }
        (parts, bytes)
    }
}

/// The answer to ReadOutput.
pub(super) fn slice(slice: OutputSlice, selection: ReadSelection, format: Format) -> ReadOutputResponse {
    let OutputSlice { parts, total, finished } = slice;
    let parts: Vec<OutputPart> = joined(parts)
        .into_iter()
        .map(|(offset, bytes)| match format {
            Format::Bytes => part(format, offset, &bytes),
            Format::Text => text(offset, &bytes, selection, total, finished),
        })
        .filter(|part| part.next_offset > part.offset)
        .collect();
    let held: i64 = parts.iter().map(|part| part.next_offset - part.offset).sum();
    ReadOutputResponse { parts, total_bytes: count(total), omitted_bytes: (count(total) - held).max(0) }
}

/// Pieces without the seams between those that touch.
fn joined(pieces: Vec<(u64, Vec<u8>)>) -> Vec<(u64, Vec<u8>)> {
    let mut joined: Vec<(u64, Vec<u8>)> = Vec::new();
    for (offset, bytes) in pieces {
        match joined.last_mut() {
            Some((start, before)) if *start + before.len() as u64 == offset => before.extend(bytes),
            _ => joined.push((offset, bytes)),
        }
    }
    joined
}

/// A piece as text. A character that its edges cut is left to the piece beside it.
fn text(offset: u64, bytes: &[u8], selection: ReadSelection, total: u64, finished: bool) -> OutputPart {
    let trimmed = match selection {
        // The caller chose the beginning: most likely where the piece before ended.
        ReadSelection::Range { .. } => bytes,
        ReadSelection::Tail { .. } | ReadSelection::HeadTail { .. } if offset > 0 => trim_start(bytes),
        ReadSelection::Tail { .. } | ReadSelection::HeadTail { .. } => bytes,
    };
    let offset = offset + (bytes.len() - trimmed.len()) as u64;
    let log_goes_on = offset + (trimmed.len() as u64) < total;
    let (whole, _) = split_whole(trimmed, log_goes_on || !finished);
    // A piece too small for its character would be empty for ever; whoever reads on from it would never arrive.
    let stuck = whole.is_empty() && log_goes_on && bytes.len() < CHARACTER_LIMIT;
    part(Format::Text, offset, if stuck { trimmed } else { whole })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use proptest::prelude::*;

    use super::*;

    fn text_of(part: &OutputPart) -> String {
        match part.content.clone().unwrap() {
            Content::Text(text) => text,
            Content::Data(data) => String::from_utf8(data).unwrap(),
        }
    }

    fn read(bytes: &[u8], offset: u64, total: u64, finished: bool, selection: ReadSelection) -> ReadOutputResponse {
        slice(OutputSlice { parts: vec![(offset, bytes.to_vec())], total, finished }, selection, Format::Text)
    }

    #[test]
    fn a_long_output_comes_in_parts_of_bounded_size() {
        let bytes = vec![b'x'; PART_LIMIT * 2 + 5];
        let parts = Parts::new(Format::Bytes).push(10, &bytes);
        let spans: Vec<_> = parts.iter().map(|part| (part.offset, part.next_offset)).collect();
        let limit = count(PART_LIMIT as u64);
        assert_eq!(spans, [(10, 10 + limit), (10 + limit, 10 + 2 * limit), (10 + 2 * limit, 15 + 2 * limit)]);
    }

    #[test]
    fn a_character_at_the_limit_goes_whole_into_the_next_part() {
        let text = format!("{}€", "x".repeat(PART_LIMIT - 1));
        let parts = Parts::new(Format::Text).push(0, text.as_bytes());
        assert_eq!(parts.len(), 2);
        assert_eq!(text_of(&parts[1]), "€");
    }

    #[test]
    fn the_end_of_a_running_log_waits_for_its_character() {
        let tail = ReadSelection::Tail { limit: 100 };
        let read_now = read(b"ab\xE2\x82", 0, 4, false, tail);
        assert_eq!(
            (text_of(&read_now.parts[0]), read_now.parts[0].next_offset, read_now.omitted_bytes),
            ("ab".to_owned(), 2, 2)
        );
        let read_after_its_end = read(b"ab\xE2\x82", 0, 4, true, tail);
        assert_eq!(text_of(&read_after_its_end.parts[0]), "ab\u{FFFD}");
        assert!(read(b"\xE2", 0, 1, false, tail).parts.is_empty());
    }

    #[test]
    fn the_cut_beginning_of_a_tail_is_left_out() {
        let tail = read(b"\x82\xACb", 1, 4, true, ReadSelection::Tail { limit: 3 });
        assert_eq!((tail.parts[0].offset, text_of(&tail.parts[0])), (3, "b".to_owned()));
        assert_eq!(tail.omitted_bytes, 3);
    }

    #[test]
    fn a_range_smaller_than_its_character_still_moves_on() {
        let range = read(b"\xE2", 0, 3, true, ReadSelection::Range { offset: 0, limit: 1 });
        assert_eq!(range.parts[0].next_offset, 1);
    }

    #[test]
    fn pieces_that_touch_are_one_part() {
        let pieces = OutputSlice { parts: vec![(0, b"ab".to_vec()), (2, b"cd".to_vec())], total: 4, finished: true };
        let whole = slice(pieces, ReadSelection::HeadTail { head: 2, tail: 2 }, Format::Bytes);
        assert_eq!((whole.parts.len(), whole.omitted_bytes), (1, 0));
        let apart = OutputSlice { parts: vec![(0, b"ab".to_vec()), (5, b"cd".to_vec())], total: 7, finished: true };
        let cut = slice(apart, ReadSelection::HeadTail { head: 2, tail: 2 }, Format::Bytes);
        assert_eq!((cut.parts.len(), cut.omitted_bytes), (2, 3));
    }

    proptest! {
        #[test]
        fn texts_make_up_the_whole_without_a_gap(
            pieces in prop::collection::vec(
                prop_oneof![prop::collection::vec(any::<u8>(), 0..12), "\\PC{0,6}".prop_map(String::into_bytes)], 0..12),
            cut in 1usize..7,
        ) {
            let whole: Vec<u8> = pieces.concat();
            let mut parts = Parts::new(Format::Text);
            let mut made = Vec::new();
            let mut offset = 0;
            for piece in whole.chunks(cut) {
                made.extend(parts.push(offset, piece));
                offset += piece.len() as u64;
            }
            made.extend(parts.finish());
            let mut position = 0;
            for part in &made {
                prop_assert_eq!(part.offset, position);
                prop_assert!(part.next_offset > part.offset);
                position = part.next_offset;
            }
            prop_assert_eq!(position, count(whole.len() as u64));
            prop_assert_eq!(made.iter().map(text_of).collect::<String>(), String::from_utf8_lossy(&whole).into_owned());
        }

        #[test]
        fn ranges_read_one_after_another_reach_the_end(whole in "\\PC{0,30}", limit in 4u64..20) {
            let bytes = whole.as_bytes();
            let (mut position, mut texts) = (0_usize, String::new());
            while position < bytes.len() {
                let end = bytes.len().min(position + usize::try_from(limit).unwrap());
                let range = ReadSelection::Range { offset: position as u64, limit };
                let answer = read(&bytes[position..end], position as u64, bytes.len() as u64, true, range);
                texts.push_str(&text_of(&answer.parts[0]));
                prop_assert!(usize::try_from(answer.parts[0].next_offset).unwrap() > position);
                position = usize::try_from(answer.parts[0].next_offset).unwrap();
            }
            prop_assert_eq!(texts, whole);
        }
    }
}
