//! The bytes held in memory, which stream each came from, and which followers still have to read them. Takes no locks and never waits.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::{WINDOW, head::Head};
use errand_bridge::OutputPiece;
use errand_task::{Gap, Stream};

/// The most changes between streams that are held. The window of a command that changes streams with every byte is smaller than [`WINDOW`].
const RUNS: usize = 4096;

#[derive(Default)]
pub(super) struct Window {
    /// Position of the first byte held.
    pub(super) start: u64,
    pub(super) bytes: VecDeque<u8>,
    /// Where each run of bytes of one stream begins. The first is at or before `start`.
    runs: VecDeque<(u64, Stream)>,
    /// Output that will never arrive because it was not kept. Nothing before the gap is held.
    gap: Option<Gap>,
    pub(super) last_growth: Option<Instant>,
    pub(super) finished: bool,
    pub(super) head: Head,
    /// How much longer followers may delay the supervisor.
    pub(super) patience: Duration,
    /// The position of each follower that has not fallen behind.
    pub(super) followers: HashMap<u64, u64>,
    pub(super) next_follower: u64,
}

impl Window {
    pub(super) fn new(start: u64) -> Self {
        Self { start, ..Self::default() }
    }

    /// Position after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Where a reader continues that has read up to `position`; none when the next bytes are no longer held.
    pub(super) fn place(&self, position: u64) -> Option<u64> {
        let position = self.gap.map_or(position, |gap| gap.past(position));
        (position >= self.start).then_some(position)
    }

    /// Position of the first byte held once `piece` was appended.
    fn start_with(&self, piece: &OutputPiece) -> u64 {
        let oldest = piece.end().saturating_sub(WINDOW as u64);
        if piece.offset > self.end() { piece.offset.max(oldest) } else { self.start.max(oldest) }
    }

    /// True when `piece` fits without dropping bytes that a follower still has to read.
    pub(super) fn has_room(&self, piece: &OutputPiece) -> bool {
        let (start, end) = (self.start_with(piece), self.end());
        self.followers.values().all(|position| *position >= start || *position == end)
    }

    /// Forgets the followers whose next bytes `piece` will push out. They read the log until they have caught up.
    pub(super) fn leave_behind(&mut self, piece: &OutputPiece) {
        let (start, end) = (self.start_with(piece), self.end());
        self.followers.retain(|_, position| *position >= start || *position == end);
    }

    /// Appends output. It must not begin before the end, and must fit into the window.
    pub(super) fn append(&mut self, piece: &OutputPiece) {
        let end = self.end();
        self.head.append(piece);
        if piece.offset > end {
            self.jump(Gap { start: end, end: piece.offset });
        }
        if !piece.bytes.is_empty() {
            if self.runs.back().is_none_or(|(_, stream)| *stream != piece.stream) {
                self.runs.push_back((piece.offset, piece.stream));
            }
            self.bytes.extend(&piece.bytes);
            self.last_growth = Some(Instant::now());
        }
        self.drop_before(self.end().saturating_sub(WINDOW as u64));
        while self.runs.len() > RUNS {
            self.drop_before(self.runs[1].0);
        }
    }

    /// Starts again after a gap. A follower that has read everything before the gap has not fallen behind.
    fn jump(&mut self, gap: Gap) {
        for position in self.followers.values_mut() {
            *position = gap.past(*position);
        }
        self.bytes.clear();
        self.runs.clear();
        self.start = gap.end;
        self.gap = Some(gap);
    }

    /// Starts again after output that was kept in the log and never came here. All followers have fallen behind and read the log.
    pub(super) fn leave_out(&mut self, position: u64) {
        self.followers.clear();
        self.bytes.clear();
        self.runs.clear();
        (self.start, self.gap) = (position, None);
        self.last_growth = Some(Instant::now());
    }

    fn drop_before(&mut self, start: u64) {
        let excess = usize::try_from(start.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.drain(..excess);
        self.start += excess as u64;
        while self.runs.get(1).is_some_and(|(at, _)| *at <= self.start) {
            self.runs.pop_front();
        }
        let start = self.start;
        self.followers.retain(|_, position| *position >= start);
    }

    /// The bytes from a position on, without their streams.
    pub(super) fn copy(&self, from: u64, limit: usize) -> Vec<u8> {
        let skip = usize::try_from(from.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.range(skip..self.bytes.len().min(skip.saturating_add(limit))).copied().collect()
    }

    /// The first bytes from a position on that belong to one stream; none at the end.
    pub(super) fn first(&self, from: u64, limit: usize) -> Option<OutputPiece> {
        let run = self.runs.partition_point(|(at, _)| *at <= from).checked_sub(1)?;
        let (_, stream) = *self.runs.get(run)?;
        let end = self.runs.get(run + 1).map_or(self.end(), |(at, _)| *at);
        let limit = limit.min(usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX));
        let bytes = self.copy(from, limit);
        (!bytes.is_empty()).then(|| OutputPiece { offset: from, stream, bytes: bytes.into() })
    }

    /// The bytes from a position on, split where the stream changes.
    pub(super) fn pieces(&self, mut from: u64, mut limit: usize) -> Vec<OutputPiece> {
        let mut pieces = Vec::new();
        while let Some(piece) = self.first(from, limit) {
            from = piece.end();
            limit -= piece.bytes.len();
            pieces.push(piece);
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn piece(offset: u64, stream: Stream, bytes: &'static str) -> OutputPiece {
        OutputPiece { offset, stream, bytes: bytes.into() }
    }

    #[test]
    fn streams_stay_apart_and_in_order() {
        let mut window = Window::new(0);
        let pieces = [piece(0, Stream::Stdout, "ab"), piece(2, Stream::Stdout, "c"), piece(3, Stream::Stderr, "de")];
        pieces.iter().for_each(|piece| window.append(piece));
        assert_eq!(window.pieces(0, 100), [piece(0, Stream::Stdout, "abc"), piece(3, Stream::Stderr, "de")]);
        assert_eq!(window.pieces(2, 2), [piece(2, Stream::Stdout, "c"), piece(3, Stream::Stderr, "d")]);
        assert_eq!(window.pieces(5, 2), []);
    }

    #[test]
    fn gap_leaves_only_slower_followers_behind() {
        let mut window = Window::new(0);
        window.append(&piece(0, Stream::Both, "abc"));
        window.followers.extend([(1, 3), (2, 1)]);
        let next = piece(10, Stream::Both, "xyz");
        assert!(!window.has_room(&next));
        window.leave_behind(&next);
        assert!(window.has_room(&next));
        window.append(&next);
        assert_eq!(window.followers.into_iter().collect::<Vec<_>>(), [(1, 10)]);
        let window = Window { followers: HashMap::new(), ..window };
        assert_eq!((window.place(3), window.place(7), window.place(12)), (Some(10), Some(10), Some(12)));
        assert_eq!(window.place(2), None);
        assert_eq!(window.first(10, 100).unwrap().bytes, "xyz");
    }

    #[test]
    fn frequent_stream_changes_take_bounded_memory() {
        let mut window = Window::new(0);
        for offset in 0..3 * RUNS as u64 {
            let stream = if offset % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
            window.append(&piece(offset, stream, "x"));
        }
        assert_eq!((window.runs.len(), window.bytes.len()), (RUNS, RUNS));
        assert_eq!(window.end(), 3 * RUNS as u64);
        assert_eq!(window.first(window.start, 9).unwrap().stream, Stream::Stdout);
    }
}
