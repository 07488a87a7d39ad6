//! Output on the wire: as bytes, or as text in which no character is split between two parts.

use bytes::Bytes;

use super::{convert::count, page};
use errand_engine::{OutputPiece, OutputSlice, PackedPiece, ReadSelection};
use errand_proto::v1::{OutputPart, OutputStream, ReadOutputResponse, output_part::Content};
use errand_runtime::RuntimeError;
use errand_task::{
    Stream,
    output::{split_whole, trim_start},
};

/// The most bytes of the log in one message of a stream, unless they are compressed.
pub(super) const PART_LIMIT: usize = 128 * 1024;
/// The most bytes of one character.
const CHARACTER_LIMIT: usize = 4;
/// The most bytes of one run that are shown as text: each byte that is not UTF-8 takes three.
const TEXT_LIMIT: usize = 1_046_000;

/// The format in which output is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Unchanged.
    Bytes,
    /// Unchanged, or compressed where the log has it compressed.
    Lz4,
    /// As UTF-8; invalid bytes become U+FFFD.
    Text,
}

/// Makes one part. `next_offset` counts bytes, also for text.
fn part(format: Format, stream: Stream, offset: u64, bytes: Bytes) -> OutputPart {
    let size = bytes.len() as u64;
    let content = match format {
        Format::Bytes | Format::Lz4 => Content::Data(bytes),
        Format::Text => Content::Text(String::from_utf8_lossy(&bytes).into_owned()),
    };
    carrying(content, stream, offset, size)
}

/// Makes a part that stands for `size` bytes of output.
pub(super) fn carrying(content: Content, stream: Stream, offset: u64, size: u64) -> OutputPart {
    OutputPart {
        offset: count(offset),
        content: Some(content),
        next_offset: count(offset + size),
        stream: wire_stream(stream).into(),
    }
}

/// The stream on the wire.
pub(super) fn wire_stream(stream: Stream) -> OutputStream {
    match stream {
        Stream::Both => OutputStream::Unspecified,
        Stream::Stdout => OutputStream::Stdout,
        Stream::Stderr => OutputStream::Stderr,
    }
}

/// Turns output into parts as it arrives.
#[derive(Debug)]
pub(super) struct Parts {
    format: Format,
    /// The first bytes of an incomplete character, at most three.
    kept: Bytes,
    /// The stream that these bytes come from.
    stream: Stream,
    /// Position after the last byte that arrived.
    position: u64,
}

impl Parts {
    pub(super) fn new(format: Format) -> Self {
        Self { format, kept: Bytes::new(), stream: Stream::Both, position: 0 }
    }

    /// The parts that are complete now that `piece` has arrived.
    pub(super) fn push(&mut self, piece: &OutputPiece) -> Vec<OutputPart> {
        // A character cannot continue in another stream, or after a gap.
        let goes_on = self.stream == piece.stream && self.position == piece.offset;
        let broken = if goes_on { None } else { self.finish() };
        (self.stream, self.position) = (piece.stream, piece.end());
        let kept = std::mem::take(&mut self.kept);
        let start = piece.offset - kept.len() as u64;
        let bytes = if kept.is_empty() { piece.bytes.clone() } else { [kept, piece.bytes.clone()].concat().into() };
        let (parts, rest) = self.cut(start, bytes);
        // Copied, because the piece may be large and the rest of the character may take long to arrive.
        self.kept = Bytes::copy_from_slice(&rest);
        broken.into_iter().chain(parts).collect()
    }

    /// The same for compressed output.
    ///
    /// # Errors
    /// When the output must be decompressed and cannot be.
    pub(super) fn push_packed(&mut self, piece: PackedPiece) -> Result<Vec<OutputPart>, RuntimeError> {
        match self.format {
            Format::Lz4 => {
                let size = piece.size as u64;
                Ok(vec![carrying(Content::Lz4(piece.block), piece.stream, piece.offset, size)])
            }
            Format::Bytes | Format::Text => Ok(self.push(&piece.unpack()?)),
        }
    }

    /// The remaining part at the end of the output.
    pub(super) fn finish(&mut self) -> Option<OutputPart> {
        let kept = std::mem::take(&mut self.kept);
        (!kept.is_empty()).then(|| part(self.format, self.stream, self.position - kept.len() as u64, kept))
    }

    /// Cuts bytes into parts. Also returns the rest, an incomplete character.
    fn cut(&self, mut offset: u64, mut bytes: Bytes) -> (Vec<OutputPart>, Bytes) {
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            let limit = bytes.len().min(PART_LIMIT);
            let size = match self.format {
                Format::Bytes | Format::Lz4 => limit,
                Format::Text => split_whole(&bytes[..limit], true).0.len(),
            };
            if size == 0 {
                break;
            }
            parts.push(part(self.format, self.stream, offset, bytes.split_to(size)));
            offset += size as u64;
        }
        (parts, bytes)
    }
}

/// The answer to ReadOutput.
pub(super) fn slice(slice: OutputSlice, selection: ReadSelection, format: Format) -> ReadOutputResponse {
    match format {
        Format::Bytes | Format::Lz4 => slice_by(slice, selection, usize::MAX, |piece, _| {
            part(format, piece.stream, piece.offset, piece.bytes.clone())
        }),
        Format::Text => slice_by(slice, selection, TEXT_LIMIT, |piece, edges| {
            let (offset, bytes) = text(piece, edges);
            part(format, piece.stream, offset, bytes)
        }),
    }
}

/// The answer to ReadOutput in which `make` makes a part of each run. A run of more than `most` bytes is cut before.
pub(super) fn slice_by(
    slice: OutputSlice,
    selection: ReadSelection,
    most: usize,
    make: impl Fn(&OutputPiece, Edges) -> OutputPart,
) -> ReadOutputResponse {
    let OutputSlice { parts, total, finished, .. } = slice;
    let mut pieces = joined(parts);
    pieces.iter_mut().for_each(|piece| shorten(piece, selection, most));
    let parts: Vec<OutputPart> = (0..pieces.len())
        .map(|index| make(&pieces[index], Edges::of(&pieces, index, selection, total, finished)))
        .filter(|part| part.next_offset > part.offset)
        .collect();
    let parts = fitting(parts, selection);
    let held: i64 = parts.iter().map(|part| part.next_offset - part.offset).sum();
    let (total_bytes, omitted_bytes) = (count(total), (count(total) - held).max(0));
    ReadOutputResponse { parts, total_bytes, omitted_bytes, ..ReadOutputResponse::default() }
}

/// Whether an answer reaches the end of the output.
pub(super) fn reaches_end(answer: &ReadOutputResponse, selection: ReadSelection) -> bool {
    let asked = match selection {
        ReadSelection::Range { offset, .. } => count(offset),
        ReadSelection::Tail { .. } | ReadSelection::HeadTail { .. } => 0,
    };
    answer.parts.last().map_or(asked, |part| part.next_offset) >= answer.total_bytes
}

/// Cuts a run that could become too large as text, at the end farther from what was requested.
fn shorten(piece: &mut OutputPiece, selection: ReadSelection, most: usize) {
    let Some(excess) = piece.bytes.len().checked_sub(most).filter(|excess| *excess > 0) else { return };
    match selection {
        ReadSelection::Range { .. } => piece.bytes.truncate(most),
        ReadSelection::Tail { .. } | ReadSelection::HeadTail { .. } => {
            piece.bytes = piece.bytes.slice(excess..);
            piece.offset += excess as u64;
        }
    }
}

/// As many parts as one answer holds: for a range the first ones, for a tail the last ones, for head and tail some of both. The command
/// determines how many parts there are, because each change between streams begins a new one.
fn fitting(mut parts: Vec<OutputPart>, selection: ReadSelection) -> Vec<OutputPart> {
    let size: usize = parts.iter().map(page::entry_len).sum();
    if size <= page::ANSWER_LIMIT {
        return parts;
    }
    match selection {
        ReadSelection::Range { .. } => page::filled(parts),
        ReadSelection::Tail { .. } => {
            parts.reverse();
            let mut last = page::filled(parts);
            last.reverse();
            last
        }
        ReadSelection::HeadTail { .. } => {
            let excess = size - page::ANSWER_LIMIT;
            let (mut left_out, middle) = (0, parts.len() / 2);
            let needed = parts[middle..].iter().take_while(|part| {
                let more = left_out < excess;
                left_out += page::entry_len(*part);
                more
            });
            let end = middle + needed.count();
            parts.drain(middle..end);
            page::filled(parts)
        }
    }
}

/// Joins adjacent pieces of the same stream.
fn joined(pieces: Vec<OutputPiece>) -> Vec<OutputPiece> {
    let mut runs: Vec<(u64, Stream, Vec<u8>)> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some((start, stream, before))
                if *start + before.len() as u64 == piece.offset && *stream == piece.stream =>
            {
                before.extend_from_slice(&piece.bytes);
            }
            _ => runs.push((piece.offset, piece.stream, piece.bytes.to_vec())),
        }
    }
    runs.into_iter().map(|(offset, stream, bytes)| OutputPiece { offset, stream, bytes: bytes.into() }).collect()
}

/// Whether a piece may begin or end within a character.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edges {
    /// The caller did not choose where the piece begins, and the bytes before it are not shown.
    pub(super) cut_before: bool,
    /// The bytes after the piece are not shown.
    cut_after: bool,
    /// More bytes may still follow the piece.
    more_to_come: bool,
}

impl Edges {
    fn of(pieces: &[OutputPiece], index: usize, selection: ReadSelection, total: u64, finished: bool) -> Self {
        let piece = &pieces[index];
        let before = index.checked_sub(1).and_then(|before| pieces.get(before));
        let chosen = match selection {
            // The caller chose this offset, most likely the end of the previous piece.
            ReadSelection::Range { .. } => index == 0,
            ReadSelection::Tail { .. } | ReadSelection::HeadTail { .. } => piece.offset == 0,
        };
        let touched = pieces.get(index + 1).is_some_and(|after| after.offset == piece.end());
        Self {
            cut_before: !chosen && before.is_none_or(|before| before.end() != piece.offset),
            cut_after: !touched && piece.end() < total,
            more_to_come: !touched && piece.end() >= total && !finished,
        }
    }
}

/// The whole characters of a piece, and where they begin. A character that is cut by an edge is left to the adjacent piece.
pub(super) fn text(piece: &OutputPiece, edges: Edges) -> (u64, Bytes) {
    let trimmed = if edges.cut_before { trim_start(&piece.bytes) } else { &piece.bytes };
    let offset = piece.offset + (piece.bytes.len() - trimmed.len()) as u64;
    let (whole, _) = split_whole(trimmed, edges.cut_after || edges.more_to_come);
    // A piece smaller than its character would always be empty, and a caller that continues from its end would never advance.
    let stuck = whole.is_empty() && edges.cut_after && piece.bytes.len() < CHARACTER_LIMIT;
    (offset, piece.bytes.slice_ref(if stuck { trimmed } else { whole }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use proptest::prelude::*;

    use super::*;

    fn text_of(part: &OutputPart) -> String {
        match part.content.clone().unwrap() {
            Content::Text(text) => text,
            Content::Data(data) => String::from_utf8(data.into()).unwrap(),
            Content::Lz4(block) => panic!("packed: {block:?}"),
        }
    }

    fn read(bytes: &[u8], offset: u64, total: u64, finished: bool, selection: ReadSelection) -> ReadOutputResponse {
        slice(
            OutputSlice {
                parts: vec![OutputPiece::both(offset, bytes.to_vec())],
                total,
                finished,
                terminal_rows: None,
            },
            selection,
            Format::Text,
        )
    }

    #[test]
    fn long_output_is_split_into_bounded_parts() {
        let bytes = vec![b'x'; PART_LIMIT * 2 + 5];
        let parts = Parts::new(Format::Bytes).push(&OutputPiece::both(10, bytes));
        let spans: Vec<_> = parts.iter().map(|part| (part.offset, part.next_offset)).collect();
        let limit = count(PART_LIMIT as u64);
        assert_eq!(spans, [(10, 10 + limit), (10 + limit, 10 + 2 * limit), (10 + 2 * limit, 15 + 2 * limit)]);
    }

    #[test]
    fn character_at_the_limit_moves_to_next_part() {
        let text = format!("{}€", "x".repeat(PART_LIMIT - 1));
        let parts = Parts::new(Format::Text).push(&OutputPiece::both(0, text));
        assert_eq!(parts.len(), 2);
        assert_eq!(text_of(&parts[1]), "€");
    }

    #[test]
    fn running_log_holds_back_an_incomplete_character() {
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
    fn tail_drops_its_partial_first_character() {
        let tail = read(b"\x82\xACb", 1, 4, true, ReadSelection::Tail { limit: 3 });
        assert_eq!((tail.parts[0].offset, text_of(&tail.parts[0])), (3, "b".to_owned()));
        assert_eq!(tail.omitted_bytes, 3);
    }

    #[test]
    fn range_below_one_character_still_advances() {
        let range = read(b"\xE2", 0, 3, true, ReadSelection::Range { offset: 0, limit: 1 });
        assert_eq!(range.parts[0].next_offset, 1);
    }

    #[test]
    fn adjacent_pieces_merge_into_one_part() {
        let pieces = OutputSlice {
            parts: vec![OutputPiece::both(0, "ab"), OutputPiece::both(2, "cd")],
            total: 4,
            finished: true,
            terminal_rows: None,
        };
        let whole = slice(pieces, ReadSelection::HeadTail { head: 2, tail: 2 }, Format::Bytes);
        assert_eq!((whole.parts.len(), whole.omitted_bytes), (1, 0));
        let apart = OutputSlice {
            parts: vec![OutputPiece::both(0, "ab"), OutputPiece::both(5, "cd")],
            total: 7,
            finished: true,
            terminal_rows: None,
        };
        let cut = slice(apart, ReadSelection::HeadTail { head: 2, tail: 2 }, Format::Bytes);
        assert_eq!((cut.parts.len(), cut.omitted_bytes), (2, 3));
    }

    #[test]
    fn only_stream_change_or_gap_cuts_a_character() {
        let piece = |offset, stream, bytes: &'static [u8]| OutputPiece { offset, stream, bytes: bytes.into() };
        let mut parts = Parts::new(Format::Text);
        let mut made = Vec::new();
        for piece in [
            piece(0, Stream::Stdout, b"a\xE2"),
            piece(2, Stream::Stdout, b"\x82\xAC"),
            piece(4, Stream::Stdout, b"\xE2"),
            piece(5, Stream::Stderr, b"e\xE2"),
            piece(90, Stream::Stderr, b"f"),
        ] {
            made.extend(parts.push(&piece));
        }
        made.extend(parts.finish());
        let shown: Vec<_> = made.iter().map(|part| (part.offset, text_of(part), part.stream())).collect();
        let (out, err) = (OutputStream::Stdout, OutputStream::Stderr);
        let expected =
            [(0, "a", out), (1, "€", out), (4, "\u{FFFD}", out), (5, "e", err), (6, "\u{FFFD}", err), (90, "f", err)];
        assert_eq!(shown, expected.map(|(offset, text, stream)| (offset, text.to_owned(), stream)));
    }

    #[test]
    fn read_holds_back_only_the_last_incomplete_character() {
        let piece = |offset, stream, bytes: &'static [u8]| OutputPiece { offset, stream, bytes: bytes.into() };
        let parts = vec![piece(0, Stream::Stdout, b"a\xE2"), piece(2, Stream::Stderr, b"b\xE2")];
        let read = OutputSlice { parts, total: 4, finished: false, terminal_rows: None };
        let answer = slice(read, ReadSelection::Tail { limit: 9 }, Format::Text);
        let shown: Vec<_> = answer.parts.iter().map(|part| (part.offset, text_of(part), part.stream())).collect();
        let expected = [(0, "a\u{FFFD}", OutputStream::Stdout), (2, "b", OutputStream::Stderr)];
        assert_eq!(shown, expected.map(|(offset, text, stream)| (offset, text.to_owned(), stream)));
    }

    fn encoded(answer: &ReadOutputResponse) -> usize {
        prost::Message::encoded_len(answer)
    }

    #[test]
    fn binary_mebibyte_fits_into_an_answer() {
        for selection in [
            ReadSelection::Range { offset: 0, limit: 1 << 20 },
            ReadSelection::Tail { limit: 1 << 20 },
            ReadSelection::HeadTail { head: 1 << 19, tail: 1 << 19 },
        ] {
            let size = 1 << 20;
            let parts = vec![OutputPiece::both(0, vec![0xFF; size])];
            let answer = slice(
                OutputSlice { parts, total: size as u64, finished: true, terminal_rows: None },
                selection,
                Format::Text,
            );
            assert!(encoded(&answer) <= errand_store::PAGE_BYTES, "{} bytes for {selection:?}", encoded(&answer));
            let shown: i64 = answer.parts.iter().map(|part| part.next_offset - part.offset).sum();
            assert_eq!((answer.omitted_bytes, shown > 1_000_000), (count(size as u64) - shown, true));
            // A range continues where it was cut; a tail reaches the end.
            let (first, last) = (answer.parts.first().unwrap().offset, answer.parts.last().unwrap().next_offset);
            assert!(if matches!(selection, ReadSelection::Range { .. }) {
                first == 0
            } else {
                last == count(size as u64)
            });
        }
    }

    #[test]
    fn many_stream_changes_fit_into_an_answer() {
        let size = 400_000_u64;
        let stream = |at| if at % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
        for selection in [
            ReadSelection::Range { offset: 0, limit: size },
            ReadSelection::Tail { limit: size },
            ReadSelection::HeadTail { head: size / 2, tail: size / 2 },
        ] {
            let parts = (0..size).map(|at| OutputPiece { offset: at, stream: stream(at), bytes: "x".into() }).collect();
            let answer = slice(
                OutputSlice { parts, total: size, finished: true, terminal_rows: None },
                selection,
                Format::Bytes,
            );
            assert!(encoded(&answer) <= errand_store::PAGE_BYTES, "{} bytes for {selection:?}", encoded(&answer));
            assert!(
                answer.parts.len() > 100_000 && answer.omitted_bytes == count(size) - count(answer.parts.len() as u64)
            );
            let (first, last) = (answer.parts.first().unwrap().offset, answer.parts.last().unwrap().next_offset);
            let expected = match selection {
                ReadSelection::Range { .. } => (true, false),
                ReadSelection::Tail { .. } => (false, true),
                ReadSelection::HeadTail { .. } => (true, true),
            };
            assert_eq!((first == 0, last == count(size)), expected);
        }
    }

    proptest! {
        #[test]
        fn text_parts_concatenate_without_a_gap(
            pieces in prop::collection::vec(
                prop_oneof![prop::collection::vec(any::<u8>(), 0..12), "\\PC{0,6}".prop_map(String::into_bytes)], 0..12),
            cut in 1usize..7,
        ) {
            let whole: Vec<u8> = pieces.concat();
            let mut parts = Parts::new(Format::Text);
            let mut made = Vec::new();
            let mut offset = 0;
            for piece in whole.chunks(cut) {
                made.extend(parts.push(&OutputPiece::both(offset, piece.to_vec())));
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
        fn consecutive_ranges_reach_the_end(whole in "\\PC{0,30}", limit in 4u64..20) {
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
