//! Output as a terminal would show it: a piece of a log at once, or line by line as it arrives.

use super::output::{self, Format, carrying, slice_by, text};
use errand_engine::{OutputPiece, OutputSlice, PackedPiece, ReadSelection};
use errand_proto::v1::{OutputPart, ReadOutputResponse, output_part::Content};
use errand_reading::{DEFAULT_ROWS, Renderer, partial_line, rendered};
use errand_runtime::RuntimeError;
use errand_task::Stream;

/// The most bytes of one run that are rendered: each byte that is not UTF-8 takes three, and movements may add blanks.
const RUN_LIMIT: usize = 900_000;
/// How many bytes of output a stream renders at a time, and the size at which a line is sent although it has not ended.
const PIECE: usize = 64 * 1024;

/// The answer to ReadOutput.
pub(super) fn slice(slice: OutputSlice, selection: ReadSelection) -> ReadOutputResponse {
    let rows = slice.terminal_rows.unwrap_or(DEFAULT_ROWS);
    slice_by(slice, selection, RUN_LIMIT, |piece, edges| {
        let (mut offset, mut bytes) = text(piece, edges);
        if edges.cut_before {
            // The line may have begun within an escape sequence, and before what it overwrites.
            let partial = bytes.split_to(partial_line(&bytes));
            offset += partial.len() as u64;
        }
        carrying(Content::Text(rendered(&bytes, rows)), piece.stream, offset, bytes.len() as u64)
    })
}

/// What a stream is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streamed {
    /// Pieces of the log as they come.
    Pieces(Format),
    /// Rendered lines.
    Lines,
}

/// Turns output into the parts of a stream as it arrives.
pub(super) enum Parts {
    /// Pieces of the log.
    Pieces(output::Parts),
    /// Rendered lines.
    Lines(Box<Lines>),
}

impl Parts {
    pub(super) fn new(streamed: Streamed) -> Self {
        match streamed {
            Streamed::Pieces(format) => Self::Pieces(output::Parts::new(format)),
            Streamed::Lines => Self::Lines(Box::new(Lines::new())),
        }
    }

    /// The parts that are complete now that `piece` has arrived.
    pub(super) fn push(&mut self, piece: &OutputPiece) -> Vec<OutputPart> {
        match self {
            Self::Pieces(parts) => parts.push(piece),
            Self::Lines(lines) => lines.push(piece),
        }
    }

    /// The same for compressed output.
    ///
    /// # Errors
    /// When the output must be decompressed and cannot be.
    pub(super) fn push_packed(&mut self, piece: PackedPiece) -> Result<Vec<OutputPart>, RuntimeError> {
        match self {
            Self::Pieces(parts) => parts.push_packed(piece),
            Self::Lines(lines) => Ok(lines.push(&piece.unpack()?)),
        }
    }

    /// The remaining part at the end of the output.
    pub(super) fn finish(&mut self) -> Option<OutputPart> {
        match self {
            Self::Pieces(parts) => parts.finish(),
            Self::Lines(lines) => lines.finish(),
        }
    }

    /// The remaining part when the stream ends and the output may go on. An incomplete character is not shown, because a reader can continue
    /// there; a line that has not ended is shown as it is now.
    pub(super) fn pause(&mut self) -> Option<OutputPart> {
        match self {
            Self::Pieces(_) => None,
            Self::Lines(lines) => lines.finish(),
        }
    }
}

/// Renders output line by line.
pub(super) struct Lines {
    renderer: Renderer,
    /// What is rendered and not sent.
    text: String,
    /// Position of the first byte that was not sent, and after the last byte that arrived.
    start: u64,
    position: u64,
    stream: Stream,
}

impl Lines {
    fn new() -> Self {
        Self { renderer: Renderer::of_lines(), text: String::new(), start: 0, position: 0, stream: Stream::Both }
    }

    fn push(&mut self, piece: &OutputPiece) -> Vec<OutputPart> {
        let mut parts = Vec::new();
        if self.stream != piece.stream || self.position != piece.offset {
            parts.extend(self.finish());
            (self.stream, self.start, self.position) = (piece.stream, piece.offset, piece.offset);
        }
        for bytes in piece.bytes.chunks(PIECE) {
            let lines = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.feed(&bytes[..lines]);
            if lines > 0 {
                parts.push(self.part());
            }
            self.feed(&bytes[lines..]);
            if self.text.len() >= PIECE {
                parts.extend(self.finish());
            }
        }
        parts
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.renderer.feed(bytes, &mut self.text);
        self.position += bytes.len() as u64;
    }

    fn finish(&mut self) -> Option<OutputPart> {
        if self.position == self.start {
            return None;
        }
        self.renderer.finish(&mut self.text);
        Some(self.part())
    }

    /// All that is rendered, as one part.
    fn part(&mut self) -> OutputPart {
        let text = std::mem::take(&mut self.text);
        let part = carrying(Content::Text(text), self.stream, self.start, self.position - self.start);
        self.start = self.position;
        part
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn text_of(part: &OutputPart) -> String {
        match part.content.clone().unwrap() {
            Content::Text(text) => text,
            other => panic!("text was asked for: {other:?}"),
        }
    }

    fn shown(parts: &[OutputPart]) -> Vec<(i64, i64, String)> {
        parts.iter().map(|part| (part.offset, part.next_offset, text_of(part))).collect()
    }

    fn piece(offset: u64, stream: Stream, bytes: &'static str) -> OutputPiece {
        OutputPiece { offset, stream, bytes: bytes.into() }
    }

    #[test]
    fn stream_carries_whole_rendered_lines() {
        let mut parts = Parts::new(Streamed::Lines);
        let mut made = parts.push(&piece(0, Stream::Both, "1%\r2%"));
        assert_eq!(made, []);
        made.extend(parts.push(&piece(5, Stream::Both, "\r100%\n\u{1b}[32mok\nnext")));
        made.extend(parts.push(&piece(23, Stream::Both, " prompt>")));
        made.extend(parts.pause());
        let expected = [(0, 19, "100%\nok\n"), (19, 31, "next prompt>")];
        assert_eq!(shown(&made), expected.map(|(from, to, text)| (from, to, text.to_owned())));
        assert_eq!(parts.finish(), None);
    }

    #[test]
    fn stream_change_or_gap_ends_a_line() {
        let mut parts = Parts::new(Streamed::Lines);
        let mut made = parts.push(&piece(0, Stream::Stdout, "out"));
        made.extend(parts.push(&piece(3, Stream::Stderr, "err\n")));
        made.extend(parts.push(&piece(7, Stream::Stdout, "a\rb")));
        made.extend(parts.push(&piece(90, Stream::Stdout, "c\n")));
        let expected = [(0, 3, "out"), (3, 7, "err\n"), (7, 10, "b"), (90, 92, "c\n")];
        assert_eq!(shown(&made), expected.map(|(from, to, text)| (from, to, text.to_owned())));
    }

    #[test]
    fn endless_line_is_sent_in_pieces() {
        let (mut parts, text) = (Parts::new(Streamed::Lines), "x".repeat(1_000_000));
        let mut made = Vec::new();
        for (index, bytes) in text.as_bytes().chunks(9999).enumerate() {
            made.extend(parts.push(&OutputPiece::both(index as u64 * 9999, bytes.to_vec())));
        }
        made.extend(parts.finish());
        assert!(made.len() > 10 && made.iter().all(|part| text_of(part).len() <= 3 * PIECE));
        assert_eq!(made.iter().map(text_of).collect::<String>(), text);
    }

    #[test]
    fn tail_begins_with_a_whole_line() {
        let tail = |bytes: &'static str| {
            let parts = vec![OutputPiece::both(10, bytes)];
            let total = 10 + bytes.len() as u64;
            let read = OutputSlice { parts, total, finished: true, terminal_rows: None };
            let answer = slice(read, ReadSelection::Tail { limit: 100 });
            (shown(&answer.parts), answer.omitted_bytes)
        };
        assert_eq!(tail("1mred\u{1b}[0m\n10%\r20%\n"), (vec![(20, 28, "20%\n".to_owned())], 20));
        assert_eq!(tail("one line"), (vec![(10, 18, "one line".to_owned())], 10));
    }

    #[test]
    fn rendered_answers_stay_within_their_limit() {
        for bytes in [vec![0xFF; 1 << 20], b"\x1b[4000C.".repeat(120_000), vec![b'\n'; 1 << 20]] {
            let total = bytes.len() as u64;
            let parts = vec![OutputPiece::both(0, bytes)];
            let read = OutputSlice { parts, total, finished: true, terminal_rows: Some(u16::MAX) };
            let answer = slice(read, ReadSelection::Range { offset: 0, limit: 1 << 20 });
            assert_eq!(answer.omitted_bytes, i64::try_from(total - RUN_LIMIT as u64).unwrap());
            assert!(prost::Message::encoded_len(&answer) <= 3 << 20);
        }
    }
}
