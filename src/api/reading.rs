//! What ReadOutput answers besides pieces of the log: condensed output, and lines.

use super::{
    convert::count,
    output::{carrying, wire_stream},
};
use errand_engine::{OutputSlice, ReadSelection, ScannedLog};
use errand_proto::v1::{OutputGap, OutputLine, ReadOutputResponse, output_part::Content};
use errand_reading::{Condensed, DEFAULT_ROWS, Line, Scanned, condense};
use errand_task::Stream;

/// Condenses what was read to at most `most` characters.
pub(super) fn condensed(slice: OutputSlice, selection: ReadSelection, most: usize) -> ReadOutputResponse {
    let OutputSlice { parts, total, terminal_rows, .. } = slice;
    let chosen = match selection {
        ReadSelection::Range { .. } => true,
        ReadSelection::Tail { .. } | ReadSelection::HeadTail { .. } => {
            parts.first().is_none_or(|first| first.offset == 0)
        }
    };
    let pieces = parts.iter().map(|piece| (piece.offset, &*piece.bytes));
    let Condensed { text, from, to, bytes, folded_lines, characters, lines } =
        condense(pieces, terminal_rows.unwrap_or(DEFAULT_ROWS), most, chosen);
    // The part stands for everything from its first byte to its last, also for what lies between head and tail.
    let part = (to > from).then(|| carrying(Content::Text(text), Stream::Both, from, to - from));
    ReadOutputResponse {
        parts: part.into_iter().collect(),
        total_bytes: count(total),
        omitted_bytes: count(total.saturating_sub(bytes)),
        omitted_characters: count(characters),
        omitted_lines: count(lines),
        folded_lines: count(folded_lines),
        ..ReadOutputResponse::default()
    }
}

/// The lines that a scan found.
pub(super) fn lines(log: ScannedLog) -> ReadOutputResponse {
    let ScannedLog { found, size, gap, cut_short } = log;
    let Scanned { lines, total_lines, matching_lines, left_out, position } = found;
    let shown: u64 = lines.iter().map(|line| line.end.saturating_sub(line.offset)).sum();
    ReadOutputResponse {
        total_bytes: count(size),
        omitted_bytes: count(size.saturating_sub(shown)),
        lines: lines.into_iter().map(line).collect(),
        total_lines: count(total_lines),
        matching_lines: count(matching_lines),
        omitted_lines: count(left_out),
        scanned_bytes: count(if cut_short { position } else { size }),
        output_gap: gap.map(|gap| OutputGap { start: count(gap.start), end: count(gap.end) }),
        ..ReadOutputResponse::default()
    }
}

fn line(line: Line) -> OutputLine {
    let Line { number, offset, end, text, left_out, matched, stream } = line;
    OutputLine {
        number: count(number),
        offset: count(offset),
        end_offset: count(end),
        text,
        omitted_characters: count(left_out),
        matched,
        stream: wire_stream(stream).into(),
    }
}
