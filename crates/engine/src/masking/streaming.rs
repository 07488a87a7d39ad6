//! Masks output as it is streamed.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::StreamItem;
use errand_bridge::OutputPiece;
use errand_masks::{Masker, Masks};
use errand_runtime::RuntimeError;
use errand_task::{Stream, Task};

/// How long output may be held back because it may be the beginning of a secret.
const HOLD: Duration = Duration::from_millis(200);

/// Masks the items of one stream. Holds at most what the masks hold back, and the pieces of one item.
pub(crate) struct StreamMasking {
    masks: Masks,
    /// One for each stream that the command prints to: what another stream prints between does not make a secret visible.
    maskers: HashMap<Stream, Masker>,
    /// The stream that printed last.
    current: Stream,
    /// Position after what was taken.
    position: u64,
    /// Whether output before the first item is unknown.
    cut: bool,
    /// Nothing before this position is yielded.
    from: u64,
    ready: VecDeque<StreamItem>,
    /// Where the output that is held back begins, and until when it is.
    held: Option<(u64, Instant)>,
    last: Option<Box<Task>>,
    ended: bool,
}

impl StreamMasking {
    /// Masks output that begins at `start`, and yields what is at `from` or later.
    pub(crate) fn new(masks: Masks, start: u64, from: u64) -> Self {
        Self {
            masks,
            maskers: HashMap::new(),
            current: Stream::Both,
            position: start,
            cut: start > 0,
            from,
            ready: VecDeque::new(),
            held: None,
            last: None,
            ended: false,
        }
    }

    /// True when output was taken that was not yielded.
    pub(crate) fn holds(&self) -> bool {
        !self.ready.is_empty() || self.held.is_some()
    }

    /// The next item; none after the last one. An error: there is none yet, and output is held back until then.
    pub(crate) fn next(&mut self) -> Result<Option<StreamItem>, Option<Instant>> {
        if let Some(item) = self.ready.pop_front() {
            return Ok(Some(item));
        }
        if self.ended {
            return Ok(self.last.take().map(StreamItem::Finished));
        }
        Err(self.held.map(|(_, until)| until))
    }

    /// Takes an item.
    ///
    /// # Errors
    /// When compressed output cannot be unpacked.
    pub(crate) fn take(&mut self, item: StreamItem) -> Result<(), RuntimeError> {
        match item {
            StreamItem::Output(piece) => self.mask(&piece),
            StreamItem::Packed(piece) => self.mask(&piece.unpack()?),
            StreamItem::Finished(task) => {
                self.last = Some(task);
                self.finish();
            }
        }
        Ok(())
    }

    /// Yields what is held back: nothing more comes.
    pub(crate) fn finish(&mut self) {
        self.release();
        self.ended = true;
    }

    /// Ends with an error.
    pub(crate) fn failed<E>(&mut self, error: E) -> E {
        (self.ended, self.held, self.last) = (true, None, None);
        self.ready.clear();
        error
    }

    /// Yields what is held back: it was held long enough, or another stream prints.
    pub(crate) fn release(&mut self) {
        let start = self.position;
        if let Some(masker) = self.maskers.get_mut(&self.current) {
            let offset = start - masker.held() as u64;
            let shown = masker.release();
            self.yields(offset, shown);
        }
        self.held = None;
    }

    fn mask(&mut self, piece: &OutputPiece) {
        if piece.offset != self.position {
            self.skip_gap();
            self.position = piece.offset;
        } else if piece.stream != self.current {
            self.release();
        }
        self.current = piece.stream;
        let (masks, cut) = (&self.masks, self.cut);
        let masker = self.maskers.entry(piece.stream).or_insert_with(|| masks.masker(cut));
        let offset = self.position - masker.held() as u64;
        let shown = masker.push(&piece.bytes);
        let held = masker.held() as u64;
        self.position = piece.end();
        self.yields(offset, shown);
        self.held = match (held, self.held) {
            (0, _) => None,
            // Output that only grows is not held back longer for that.
            (_, Some((start, until))) if start == self.position - held => Some((start, until)),
            _ => Some((self.position - held, Instant::now() + HOLD)),
        };
    }

    fn skip_gap(&mut self) {
        let (current, position) = (self.current, self.position);
        let mut shown = Vec::new();
        let mut offset = position;
        for (stream, masker) in &mut self.maskers {
            let held = masker.held() as u64;
            let released = masker.release_before_gap();
            if *stream == current {
                (offset, shown) = (position - held, released);
            }
        }
        self.yields(offset, shown);
        (self.cut, self.held) = (true, None);
    }

    fn yields(&mut self, offset: u64, mut shown: Vec<u8>) {
        let skipped = usize::try_from(self.from.saturating_sub(offset)).unwrap_or(usize::MAX).min(shown.len());
        if skipped < shown.len() {
            let bytes = shown.split_off(skipped);
            let offset = offset + skipped as u64;
            self.ready.push_back(StreamItem::Output(OutputPiece { offset, stream: self.current, bytes: bytes.into() }));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::sync::Arc;

    use errand_masks::Values;

    use super::*;

    fn masking(start: u64, from: u64) -> StreamMasking {
        let masks = Masks::none().and_values(&Arc::new(Values::new(["hunter2"])));
        StreamMasking::new(masks, start, from)
    }

    /// What comes of these pieces: offset, stream and bytes of each item.
    fn masked(masking: &mut StreamMasking, pieces: &[(u64, Stream, &'static str)]) -> Vec<(u64, Stream, String)> {
        for (offset, stream, bytes) in pieces {
            let piece = OutputPiece { offset: *offset, stream: *stream, bytes: (*bytes).into() };
            masking.take(StreamItem::Output(piece)).unwrap();
        }
        let mut items = Vec::new();
        while let Ok(Some(StreamItem::Output(piece))) = masking.next() {
            items.push((piece.offset, piece.stream, String::from_utf8(piece.bytes.to_vec()).unwrap()));
        }
        items
    }

    const OUT: Stream = Stream::Stdout;
    const ERR: Stream = Stream::Stderr;

    #[tokio::test]
    async fn offsets_stay_what_they_were() {
        let mut masking = masking(0, 0);
        let shown = masked(&mut masking, &[(0, OUT, "a hun"), (5, OUT, "ter2 b"), (11, OUT, "hunt")]);
        let expected = [(0, OUT, "a "), (2, OUT, "******* b")];
        assert_eq!(shown, expected.map(|(offset, stream, text)| (offset, stream, text.to_owned())));
        assert!(matches!(masking.next(), Err(Some(_))) && masking.holds());
        masking.finish();
        assert_eq!(masked(&mut masking, &[]), [(11, OUT, "****".to_owned())]);
        assert!(matches!(masking.next(), Ok(None)) && !masking.holds());
    }

    #[tokio::test]
    async fn streams_and_gaps_show_no_secret() {
        let pieces =
            [(0, OUT, "a hun"), (5, ERR, "hunter"), (11, OUT, "ter2 b"), (17, OUT, " hunte"), (30, OUT, "nter2 c\n")];
        let shown: String = masked(&mut masking(0, 0), &pieces).into_iter().map(|(_, _, text)| text).collect();
        assert_eq!(shown, "a hun********** b ********** c\n");
    }

    #[tokio::test]
    async fn secret_before_the_offset_is_recognised() {
        let shown = masked(&mut masking(2, 6), &[(2, OUT, "hunter2 ok")]);
        assert_eq!(shown, [(6, OUT, "*** ok".to_owned())]);
    }
}
