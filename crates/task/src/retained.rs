//! Output that outlives its sandbox: the beginning and the end of a finished task's output. Pure.

use super::{Gap, Stream};

/// The most changes between streams in each half of what is retained. A command that changes streams with every byte has less retained.
const RUNS: usize = 4096;
/// The most gaps between runs. An honest log has one of its own, and its middle may be left out.
const GAPS: usize = 8;

/// What is retained of a task's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retained {
    /// Bytes that are retained.
    pub bytes: u64,
    /// Output that is not, in order. Positions count all output.
    pub gaps: Vec<Gap>,
}

/// Output of one stream within what is retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Position of the first byte in all output.
    pub offset: u64,
    /// The stream.
    pub stream: Stream,
    /// How many bytes. Never 0.
    pub length: usize,
}

impl Run {
    /// Position after the last byte.
    pub fn end(&self) -> u64 {
        self.offset + self.length as u64
    }
}

/// Retained output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetainedOutput {
    /// Size of all output in bytes, retained or not.
    pub total: u64,
    /// Where the bytes belong, in order and without overlap.
    pub runs: Vec<Run>,
    /// The bytes of all runs.
    pub bytes: Vec<u8>,
}

impl RetainedOutput {
    /// Nothing yet, of output of this size.
    pub fn of(total: u64) -> Self {
        Self { total, ..Self::default() }
    }

    /// Appends output of one stream. Bytes before the end of what was appended before are left out, and so are bytes after the end of all
    /// output, and bytes after too many gaps.
    pub fn push(&mut self, offset: u64, stream: Stream, bytes: &[u8]) {
        let known = self.runs.last().map_or(0, Run::end);
        let skip = usize::try_from(known.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let (offset, bytes) = (offset + skip as u64, &bytes[skip..]);
        if offset > known && self.gaps().count() >= GAPS {
            return;
        }
        let room = usize::try_from(self.total.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        if bytes.is_empty() {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if last.stream == stream && last.end() == offset => last.length += bytes.len(),
            _ => self.runs.push(Run { offset, stream, length: bytes.len() }),
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Leaves the middle out, so that at most `limit` bytes remain: half of them from the beginning of all output, the others from its end.
    /// Bounds the number of runs too.
    pub fn bounded(self, limit: usize) -> Self {
        let length = self.bytes.len();
        if length <= limit && self.runs.len() <= 2 * RUNS {
            return self;
        }
        let mut ends = Vec::with_capacity(self.runs.len());
        let mut end = 0;
        for run in &self.runs {
            end += run.length;
            ends.push(end);
        }
        // What does not begin at the first byte of all output has no beginning.
        let head = if self.runs.first().is_some_and(|run| run.offset == 0) { limit / 2 } else { 0 };
        let head = head.min(ends.get(RUNS - 1).copied().unwrap_or(length));
        let tail = (length - length.min(limit - head)).max(head);
        let tail =
            ends.len().checked_sub(RUNS + 1).and_then(|run| ends.get(run)).map_or(tail, |start| tail.max(*start));
        let mut bounded = Self::of(self.total);
        let mut at = 0;
        for run in &self.runs {
            for (from, to) in [(0, head), (tail, length)] {
                let (from, to) = (from.max(at), to.min(at + run.length));
                if from < to {
                    bounded.push(run.offset + (from - at) as u64, run.stream, &self.bytes[from..to]);
                }
            }
            at += run.length;
        }
        bounded
    }

    /// What is missing before the runs.
    fn gaps(&self) -> impl Iterator<Item = Gap> {
        let mut end = 0;
        self.runs.iter().filter_map(move |run| {
            let gap = Gap { start: end, end: run.offset };
            end = run.end();
            (gap.start < gap.end).then_some(gap)
        })
    }

    /// What is retained and what is not.
    pub fn summary(&self) -> Retained {
        let end = self.runs.last().map_or(0, Run::end);
        let rest = (self.total > end).then_some(Gap { start: end, end: self.total });
        Retained { bytes: self.bytes.len() as u64, gaps: self.gaps().chain(rest).collect() }
    }

    /// The runs from a position on, with their bytes.
    pub fn from(&self, position: u64) -> impl Iterator<Item = (Run, &[u8])> {
        let mut at = 0;
        self.runs.iter().filter_map(move |run| {
            let bytes = &self.bytes[at..at + run.length];
            at += run.length;
            let skip = usize::try_from(position.saturating_sub(run.offset)).unwrap_or(usize::MAX).min(run.length);
            let rest = Run { offset: run.offset + skip as u64, stream: run.stream, length: run.length - skip };
            (rest.length > 0).then_some((rest, &bytes[skip..]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(at: u64) -> Stream {
        if at.is_multiple_of(2) { Stream::Stdout } else { Stream::Stderr }
    }

    #[test]
    fn short_output_is_retained_whole() {
        let mut output = RetainedOutput::of(6);
        output.push(0, Stream::Stdout, b"abc");
        output.push(2, Stream::Stdout, b"cd");
        output.push(4, Stream::Stderr, b"efgh");
        let runs = [
            Run { offset: 0, stream: Stream::Stdout, length: 4 },
            Run { offset: 4, stream: Stream::Stderr, length: 2 },
        ];
        assert_eq!((output.runs.as_slice(), output.bytes.as_slice()), (&runs[..], &b"abcdef"[..]));
        assert_eq!(output.clone().bounded(6), output);
        assert_eq!(output.summary(), Retained { bytes: 6, gaps: Vec::new() });
        let rest: Vec<_> = output.from(3).map(|(run, bytes)| (run.offset, bytes.to_vec())).collect();
        assert_eq!(rest, [(3, b"d".to_vec()), (4, b"ef".to_vec())]);
        assert_eq!(output.from(6).count(), 0);
    }

    #[test]
    fn output_without_its_beginning_keeps_the_end() {
        let mut output = RetainedOutput::of(110);
        output.push(50, Stream::Both, &[b'x'; 50]);
        let bounded = output.bounded(20);
        assert_eq!(
            bounded.summary(),
            Retained { bytes: 20, gaps: vec![Gap { start: 0, end: 80 }, Gap { start: 100, end: 110 }] }
        );
    }

    #[test]
    fn hostile_gaps_are_bounded() {
        let mut output = RetainedOutput::of(1 << 40);
        (0..1000).for_each(|at| output.push(at * 10, Stream::Both, b"x"));
        assert_eq!((output.summary().gaps.len(), output.bytes.len()), (GAPS + 1, GAPS + 1));
    }

    #[test]
    fn frequent_stream_changes_are_bounded() {
        let mut output = RetainedOutput::of(40_000);
        (0..40_000).for_each(|at| output.push(at, stream(at), b"x"));
        let bounded = output.bounded(40_000);
        assert_eq!((bounded.runs.len(), bounded.bytes.len()), (2 * RUNS, 2 * RUNS));
        assert_eq!((bounded.runs[0].offset, bounded.runs.last().map(Run::end)), (0, Some(40_000)));
    }

    proptest! {
        #[test]
        fn head_and_tail_stay_where_they_were(
            pieces in prop::collection::vec((0..3_u64, prop::collection::vec(any::<u8>(), 1..40)), 1..20),
            limit in 0..200_usize,
            more in 0..20_u64,
        ) {
            let mut all = Vec::new();
            for (_, bytes) in &pieces {
                all.extend_from_slice(bytes);
            }
            let mut output = RetainedOutput::of(all.len() as u64 + more);
            let mut offset = 0;
            for (at, bytes) in &pieces {
                output.push(offset, stream(*at), bytes);
                offset += bytes.len() as u64;
            }
            let bounded = output.clone().bounded(limit);
            prop_assert_eq!(bounded.bytes.len(), limit.min(all.len()));
            let Retained { bytes, gaps } = bounded.summary();
            prop_assert_eq!(bytes + gaps.iter().map(|gap| gap.end - gap.start).sum::<u64>(), bounded.total);
            for (run, bytes) in bounded.from(0) {
                let at = usize::try_from(run.offset).unwrap_or(usize::MAX);
                prop_assert_eq!(&all[at..at + run.length], bytes);
                let whole = output.runs.iter().find(|whole| whole.offset <= run.offset && run.end() <= whole.end());
                prop_assert_eq!(whole.map(|whole| whole.stream), Some(run.stream));
            }
            if limit > 1 && all.len() > limit {
                prop_assert_eq!(bounded.runs[0].offset, 0);
                prop_assert_eq!(bounded.runs.last().map(Run::end), Some(all.len() as u64));
            }
        }
    }
}
