//! Masks pieces of output that were read at once.

use bytes::Bytes;

use errand_bridge::OutputPiece;
use errand_masks::{Cut, Masks};
use errand_task::{RetainedOutput, Run, Stream};

/// Masks consecutive pieces. `cut`: whether there is other output before and after them that was not read.
///
/// Each stream is masked by itself: what another stream prints between does not make a secret visible.
pub(crate) fn mask_pieces(pieces: &mut [OutputPiece], masks: &Masks, cut: Cut) {
    if masks.is_empty() || pieces.is_empty() {
        return;
    }
    let mut start = 0;
    for index in 1..=pieces.len() {
        let ends = index == pieces.len() || pieces[index].offset != pieces[index - 1].end();
        if ends {
            let of_run = Cut { start: start > 0 || cut.start, end: index < pieces.len() || cut.end };
            for stream in [Stream::Both, Stream::Stdout, Stream::Stderr] {
                mask_stream(&mut pieces[start..index], stream, masks, of_run);
            }
            start = index;
        }
    }
}

/// Masks output that is to be stored, with other output before and after what it has.
pub(crate) fn mask_retained(output: &mut RetainedOutput, masks: &Masks) {
    if masks.is_empty() {
        return;
    }
    let piece = |(run, bytes): (Run, &[u8])| OutputPiece {
        offset: run.offset,
        stream: run.stream,
        bytes: Bytes::copy_from_slice(bytes),
    };
    let mut pieces: Vec<_> = output.from(0).map(piece).collect();
    let start = pieces.first().is_some_and(|first| first.offset > 0);
    mask_pieces(&mut pieces, masks, Cut { start, end: true });
    output.bytes.clear();
    pieces.iter().for_each(|piece| output.bytes.extend_from_slice(&piece.bytes));
}

fn mask_stream(run: &mut [OutputPiece], stream: Stream, masks: &Masks, cut: Cut) {
    let mut bytes: Vec<u8> = Vec::new();
    for piece in run.iter().filter(|piece| piece.stream == stream) {
        bytes.extend_from_slice(&piece.bytes);
    }
    if bytes.is_empty() {
        return;
    }
    masks.bytes(&mut bytes, cut);
    let mut masked = Bytes::from(bytes);
    for piece in run.iter_mut().filter(|piece| piece.stream == stream) {
        piece.bytes = masked.split_to(piece.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use errand_masks::Values;

    use super::*;

    fn piece(offset: u64, stream: Stream, bytes: &'static str) -> OutputPiece {
        OutputPiece { offset, stream, bytes: bytes.into() }
    }

    #[test]
    fn values_are_masked_across_pieces_and_streams() {
        let masks = Masks::none().and_values(&Arc::new(Values::new(["hunter2"])));
        let (out, err) = (Stream::Stdout, Stream::Stderr);
        let mut pieces =
            [piece(0, out, "a hun"), piece(5, err, "hunter"), piece(11, out, "ter2 b"), piece(30, out, "nter2 hunt")];
        mask_pieces(&mut pieces, &masks, Cut { start: false, end: true });
        let shown: Vec<_> = pieces.iter().map(|piece| piece.bytes.clone()).collect();
        assert_eq!(shown, ["a ***", "******", "**** b", "***** ****"]);
        assert_eq!(pieces.map(|piece| piece.offset), [0, 5, 11, 30]);
    }

    #[test]
    fn retained_output_is_masked_beside_gaps() {
        let masks = Masks::none().and_values(&Arc::new(Values::new(["hunter2"])));
        let mut output = RetainedOutput::of(50);
        output.push(0, Stream::Stdout, b"a hun");
        output.push(5, Stream::Stderr, b"x");
        output.push(6, Stream::Stdout, b"ter2 hunt");
        output.push(30, Stream::Stdout, b"nter2 b");
        let runs = output.runs.clone();
        mask_retained(&mut output, &masks);
        assert_eq!(String::from_utf8_lossy(&output.bytes), "a ***x**** ********* b");
        assert_eq!(output.runs, runs);
    }
}
