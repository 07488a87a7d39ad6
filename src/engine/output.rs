//! The newest output of one task, in memory, for whoever follows it.
//!
//! Bounded: it holds [`WINDOW`] bytes however much the command prints. A follower that is close behind makes the supervisor wait for a
//! moment, which the command never notices because it writes to its log; one that falls further behind reads the log instead.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

use crate::{
    bridge::Piece,
    task::{OutputSummary, preview},
};

/// The most output that is held, in bytes.
pub(super) const WINDOW: usize = 128 * 1024;
/// The most that is handed to a follower at once.
const PIECE: usize = 32 * 1024;
/// For how long followers may hold the supervisor up at once.
const PATIENCE: Duration = Duration::from_millis(500);
/// How much of that comes back with each piece. A follower that takes less than 3 MB/s is left behind sooner or later.
const PACE: Duration = Duration::from_millis(10);
/// How much of the end a preview is made of, in bytes.
const PREVIEW_BYTES: usize = 1024;

/// The newest output. Cheap to clone.
#[derive(Clone)]
pub(super) struct LiveOutput {
    shared: Arc<Shared>,
}

struct Shared {
    window: Mutex<Window>,
    /// Signalled when there is more, or the end.
    grown: Notify,
    /// Signalled when a follower has taken something.
    taken: Notify,
}

#[derive(Default)]
struct Window {
    /// Position of the first byte held.
    start: u64,
    bytes: VecDeque<u8>,
    last_growth: Option<Instant>,
    finished: bool,
    /// For how long followers may still hold the supervisor up.
    patience: Duration,
    /// Where each follower stands that has not been left behind.
    followers: HashMap<u64, u64>,
    next_follower: u64,
}

impl Window {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn copy(&self, from: u64, limit: usize) -> Vec<u8> {
        let skip = usize::try_from(from.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.range(skip..self.bytes.len().min(skip.saturating_add(limit))).copied().collect()
    }

    /// Forgets the followers that still have to take what `more` bytes will drop. They read the log until they are close again.
    fn leave_behind(&mut self, more: usize) {
        let start = (self.end() + more as u64).saturating_sub(WINDOW as u64);
        self.followers.retain(|_, position| *position >= start);
    }

    /// True when `more` bytes fit without dropping what a follower still has to take.
    fn has_room(&self, more: usize) -> bool {
        let start = (self.end() + more as u64).saturating_sub(WINDOW as u64);
        self.followers.values().all(|position| *position >= start)
    }
}

/// What a follower gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next bytes.
    Bytes(Bytes),
    /// The next bytes are not held any more.
    Behind,
    /// There will be no more.
    End,
}

impl LiveOutput {
    pub(super) fn new(start: u64) -> Self {
        let window = Window { start, ..Window::default() };
        Self { shared: Arc::new(Shared { window: Mutex::new(window), grown: Notify::new(), taken: Notify::new() }) }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.shared.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds output. Waits for close followers as long as they keep up with [`PACE`].
    pub(super) async fn push(&self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            self.make_room(piece.len()).await;
            self.append(&piece);
        }
    }

    /// Adds output without waiting for anybody.
    pub(super) fn push_at_once(&self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            self.window().leave_behind(piece.len());
            self.append(piece);
        }
    }

    fn append(&self, piece: &[u8]) {
        {
            let mut window = self.window();
            let excess = (window.bytes.len() + piece.len()).saturating_sub(WINDOW);
            window.bytes.drain(..excess);
            window.start += excess as u64;
            window.bytes.extend(piece);
            window.last_growth = Some(Instant::now());
        }
        self.shared.grown.notify_waiters();
    }

    async fn make_room(&self, more: usize) {
        let begun = Instant::now();
        let patience = {
            let mut window = self.window();
            window.patience = (window.patience + PACE).min(PATIENCE);
            window.patience
        };
        loop {
            let taken = self.shared.taken.notified();
            if self.window().has_room(more) {
                break;
            }
            if tokio::time::timeout_at(begun + patience, taken).await.is_err() {
                self.window().leave_behind(more);
                break;
            }
        }
        let mut window = self.window();
        window.patience = window.patience.saturating_sub(begun.elapsed());
    }

    /// No more output will come.
    pub(super) fn finish(&self) {
        self.window().finished = true;
        self.shared.grown.notify_waiters();
    }

    /// Position after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.window().end()
    }

    /// When output came last; none when it never did.
    pub(super) fn last_growth(&self) -> Option<Instant> {
        self.window().last_growth
    }

    /// Waits for more. May return early.
    pub(super) async fn grown(&self) {
        self.shared.grown.notified().await;
    }

    /// The last bytes, at most `limit`.
    pub(super) fn tail(&self, limit: usize) -> Vec<u8> {
        let window = self.window();
        window.copy(window.end().saturating_sub(limit as u64), limit)
    }

    /// What records and lists say of the output.
    pub(super) fn summary(&self, incomplete: bool) -> OutputSummary {
        OutputSummary { bytes: self.end(), incomplete, preview: preview(&self.tail(PREVIEW_BYTES)) }
    }

    /// A piece as (size of all output, first byte, bytes); none when it is not all held.
    pub(super) fn piece(&self, piece: Piece) -> Option<(u64, u64, Vec<u8>)> {
        let window = self.window();
        let (from, limit) = match piece {
            Piece::From { offset, limit } => (offset, limit),
            Piece::Tail { limit } => (window.end().saturating_sub(limit), limit),
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        (from >= window.start).then(|| (window.end(), from, window.copy(from, limit)))
    }

    /// Registers a follower that stands at `position`.
    pub(super) fn follower(&self, position: u64) -> Follower {
        let mut window = self.window();
        let id = window.next_follower;
        window.next_follower += 1;
        if position >= window.start {
            window.followers.insert(id, position);
        }
        Follower { output: self.clone(), id }
    }
}

/// Someone who reads the output as it comes.
pub(super) struct Follower {
    output: LiveOutput,
    id: u64,
}

impl Follower {
    /// Waits for output from `position` on. Cancel safe.
    pub(super) async fn next(&mut self, position: u64) -> Next {
        loop {
            let grown = self.output.shared.grown.notified();
            tokio::pin!(grown);
            // Registered before looking, so that nothing that comes in between is missed.
            grown.as_mut().enable();
            {
                let mut window = self.output.window();
                if position < window.start {
                    return Next::Behind;
                }
                let bytes = window.copy(position, PIECE);
                let taken = position + bytes.len() as u64;
                window.followers.insert(self.id, taken);
                self.output.shared.taken.notify_waiters();
                if !bytes.is_empty() {
                    return Next::Bytes(bytes.into());
                }
                if window.finished {
                    return Next::End;
                }
            }
            grown.await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.output.window().followers.remove(&self.id);
        self.output.shared.taken.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_is_bounded_and_the_newest_is_kept() {
        let output = LiveOutput::new(0);
        for round in 0..100u8 {
            output.push(Bytes::from(vec![round; 10_000])).await;
        }
        assert_eq!(output.end(), 1_000_000);
        assert_eq!(output.window().bytes.len(), WINDOW);
        assert_eq!(output.tail(3), [99, 99, 99]);
        assert_eq!(output.piece(Piece::From { offset: 0, limit: 1 }), None);
        assert_eq!(output.piece(Piece::Tail { limit: 2 }), Some((1_000_000, 999_998, vec![99, 99])));
    }

    #[tokio::test]
    async fn a_follower_gets_everything_in_order_and_then_the_end() {
        let output = LiveOutput::new(0);
        let mut follower = output.follower(0);
        let writer = {
            let output = output.clone();
            tokio::spawn(async move {
                for round in 0..200u32 {
                    output.push(Bytes::from(format!("{round:08}").repeat(1000))).await;
                }
                output.finish();
            })
        };
        let mut seen = Vec::new();
        loop {
            match follower.next(seen.len() as u64).await {
                Next::Bytes(bytes) => seen.extend_from_slice(&bytes),
                Next::Behind => panic!("left behind at {}", seen.len()),
                Next::End => break,
            }
        }
        assert!(writer.await.is_ok());
        assert_eq!(seen.len(), 200 * 8000);
        assert!(
            seen.chunks(8000).enumerate().all(|(round, chunk)| chunk == format!("{round:08}").repeat(1000).as_bytes())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_that_does_not_read_holds_nobody_up_for_long() {
        let output = LiveOutput::new(0);
        let mut follower = output.follower(0);
        let begun = Instant::now();
        for _ in 0..100 {
            output.push(Bytes::from(vec![0; WINDOW])).await;
        }
        assert!(begun.elapsed() <= PATIENCE * 2, "{:?}", begun.elapsed());
        assert_eq!(follower.next(0).await, Next::Behind);
    }
}
