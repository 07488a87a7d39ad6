//! The newest output of one task, held in memory for its followers.
//!
//! Holds at most [`WINDOW`] bytes, however much the command prints. A follower that is close behind makes the supervisor wait for a moment.
//! The command never notices this wait, because it writes to its log. A follower that falls further behind reads the log instead.

mod head;
mod window;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

use super::masking::{TaskMasks, mask_pieces};
use errand_bridge::{OutputPiece, Piece};
use errand_masks::Cut;
use errand_task::{Gap, OutputSummary, RetainedOutput, Stream, preview};
use window::Window;

/// The most output held, in bytes.
pub(super) const WINDOW: usize = 128 * 1024;
/// The most output handed to a follower at once, in bytes.
const PIECE: usize = 32 * 1024;
/// The longest that followers may delay the supervisor without a break.
const PATIENCE: Duration = Duration::from_millis(500);
/// How much of [`PATIENCE`] each piece of output restores. A follower that reads slower than 3 MB/s eventually falls behind.
const PACE: Duration = Duration::from_millis(10);
/// How many bytes at the end of the output make up its preview.
const PREVIEW_BYTES: usize = 1024;

/// The newest output. Cheap to clone.
#[derive(Clone)]
pub(super) struct LiveOutput {
    shared: Arc<Shared>,
}

struct Shared {
    window: Mutex<Window>,
    /// Hides secrets in the end of the output, which becomes a part of texts. Followers and readers mask what they read by themselves.
    masks: Option<TaskMasks>,
    /// The last preview, and the position at which the output ended then.
    preview: Mutex<Option<(u64, String)>>,
    /// Notified when there is more output, or when it has ended.
    grown: Notify,
    /// Notified when a follower has read something.
    taken: Notify,
}

/// What a follower gets next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next output. Its offset is greater than the requested position if the output in between was not kept.
    Output(OutputPiece),
    /// The next bytes are no longer in memory.
    Behind,
    /// There is no more output.
    End,
}

impl LiveOutput {
    /// Output without secrets.
    #[cfg(test)]
    pub(super) fn new(start: u64) -> Self {
        Self::of(start, None)
    }

    /// Output from byte `start` on, whose end is shown without secrets.
    pub(super) fn masked(start: u64, masks: TaskMasks) -> Self {
        Self::of(start, Some(masks))
    }

    fn of(start: u64, masks: Option<TaskMasks>) -> Self {
        let window = Mutex::new(Window::new(start));
        let (preview, grown, taken) = (Mutex::default(), Notify::new(), Notify::new());
        Self { shared: Arc::new(Shared { window, masks, preview, grown, taken }) }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.shared.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends output. Waits for close followers as long as they keep up with [`PACE`].
    pub(super) async fn push(&self, output: OutputPiece) {
        for piece in self.new_pieces(output) {
            self.make_room(&piece).await;
            self.append(&piece);
        }
    }

    /// Appends output without waiting for followers.
    pub(super) fn push_at_once(&self, output: OutputPiece) {
        for piece in self.new_pieces(output) {
            self.window().leave_behind(&piece);
            self.append(&piece);
        }
    }

    /// Continues at `position`. The skipped bytes are in the log, where followers read them.
    pub(super) fn leave_out(&self, position: u64) {
        if position > self.end() {
            self.window().leave_out(position);
            self.shared.grown.notify_waiters();
            self.shared.taken.notify_waiters();
        }
    }

    /// Continues at `position`, because the bytes before it were not kept. Does nothing if the output already reaches `position`.
    pub(super) fn skip_to(&self, position: u64) {
        if position > self.end() {
            self.push_nothing_at(position);
        }
    }

    fn push_nothing_at(&self, position: u64) {
        let nothing = OutputPiece { offset: position, stream: Stream::Both, bytes: Bytes::new() };
        self.window().leave_behind(&nothing);
        self.append(&nothing);
    }

    /// The part of `output` that is new, in pieces of at most [`PIECE`] bytes.
    fn new_pieces(&self, mut output: OutputPiece) -> impl Iterator<Item = OutputPiece> + use<> {
        let known = usize::try_from(self.end().saturating_sub(output.offset)).unwrap_or(usize::MAX);
        let known = output.bytes.split_to(known.min(output.bytes.len()));
        output.offset += known.len() as u64;
        std::iter::from_fn(move || {
            let bytes = output.bytes.split_to(output.bytes.len().min(PIECE));
            let piece = OutputPiece { offset: output.offset, stream: output.stream, bytes };
            output.offset = piece.end();
            (!piece.bytes.is_empty()).then_some(piece)
        })
    }

    fn append(&self, piece: &OutputPiece) {
        self.window().append(piece);
        self.shared.grown.notify_waiters();
    }

    async fn make_room(&self, more: &OutputPiece) {
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

    /// Marks the output as ended.
    pub(super) fn finish(&self) {
        self.window().finished = true;
        self.shared.grown.notify_waiters();
    }

    /// Position after the last byte of all output.
    pub(super) fn end(&self) -> u64 {
        self.window().end()
    }

    /// When output last arrived; none if it never did.
    pub(super) fn last_growth(&self) -> Option<Instant> {
        self.window().last_growth
    }

    /// Waits for more output. May return early.
    pub(super) async fn grown(&self) {
        self.shared.grown.notified().await;
    }

    /// The last bytes of the output, at most `limit`, without secrets.
    pub(super) fn tail(&self, limit: usize) -> Vec<u8> {
        let masks = self.shared.masks.as_ref().map(TaskMasks::of_texts).unwrap_or_default();
        // A secret may have begun before.
        let wide = limit + masks.margin();
        let (mut bytes, whole) = {
            let window = self.window();
            let from = window.end().saturating_sub(wide as u64);
            (window.copy(from, wide), from == 0 && window.start == 0)
        };
        masks.bytes(&mut bytes, Cut { start: !whole, end: true });
        bytes.drain(..bytes.len().saturating_sub(limit));
        bytes
    }

    /// Keeps the first bytes of the output, as far as they are still there: `limit`, and beyond what tells whether a secret begins in them.
    pub(super) fn keep_head(&self, limit: usize) {
        let masks = self.shared.masks.as_ref().map(TaskMasks::of_texts).unwrap_or_default();
        let limit = if limit > 0 { limit + masks.margin() } else { 0 };
        let mut window = self.window();
        let beginning = (window.start == 0).then(|| window.copy(0, limit));
        window.head.keep(limit, beginning);
    }

    /// The first bytes of the output, at most `limit`, without secrets; none when they are no longer in memory.
    pub(super) fn head(&self, limit: usize) -> Option<Vec<u8>> {
        let masks = self.shared.masks.as_ref().map(TaskMasks::of_texts).unwrap_or_default();
        let (mut head, whole) = {
            let window = self.window();
            let end = usize::try_from(window.end()).unwrap_or(usize::MAX);
            let wanted = if limit > 0 { end.min(limit + masks.margin()) } else { 0 };
            let kept = window.head.first(wanted).map(<[u8]>::to_vec);
            (kept.or_else(|| (window.start == 0).then(|| window.copy(0, wanted)))?, wanted == end)
        };
        // A secret may go on after the end.
        masks.bytes(&mut head, Cut { start: false, end: !whole });
        head.truncate(limit);
        Some(head)
    }

    /// What memory holds of the output, without secrets, for retention: `total` is the size of all output as far as is known.
    pub(super) fn held(&self, total: u64) -> RetainedOutput {
        let masks = self.shared.masks.as_ref().map(TaskMasks::of_texts).unwrap_or_default();
        let (start, end, mut pieces) = {
            let window = self.window();
            (window.start, window.end(), window.pieces(window.start, WINDOW))
        };
        mask_pieces(&mut pieces, &masks, Cut { start: start > 0, end: true });
        // A secret may have begun before what is held.
        let whole_from = if start == 0 { 0 } else { start + masks.margin() as u64 };
        let mut held = RetainedOutput::of(total.max(end));
        for piece in pieces.into_iter().filter_map(|piece| piece.since(whole_from)) {
            held.push(piece.offset, piece.stream, &piece.bytes);
        }
        held
    }

    /// The summary of the output that records and lists show.
    pub(super) fn summary(&self, incomplete: bool, gap: Option<Gap>) -> OutputSummary {
        let bytes = self.end();
        let known = self.preview().as_ref().filter(|(end, _)| *end == bytes).map(|(_, text)| text.clone());
        let preview = known.unwrap_or_else(|| {
            let text = preview(&self.tail(PREVIEW_BYTES));
            let text = self.shared.masks.as_ref().map_or(text.clone(), |masks| masks.preview(text));
            *self.preview() = Some((bytes, text.clone()));
            text
        });
        OutputSummary { bytes, incomplete, preview, gap }
    }

    fn preview(&self) -> MutexGuard<'_, Option<(u64, String)>> {
        self.shared.preview.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part of the output as (size of all output, first byte, pieces); none when some of it is no longer in memory.
    pub(super) fn piece(&self, piece: Piece) -> Option<(u64, u64, Vec<OutputPiece>)> {
        let window = self.window();
        let (from, limit) = match piece {
            Piece::From { offset, limit } => (offset, limit),
            Piece::Tail { limit } => (window.end().saturating_sub(limit), limit),
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let from = if from >= window.end() { from } else { window.place(from)? };
        Some((window.end(), from, window.pieces(from, limit)))
    }

    /// Registers a follower at `position`.
    pub(super) fn follower(&self, position: u64) -> Follower {
        let mut window = self.window();
        let id = window.next_follower;
        window.next_follower += 1;
        if let Some(position) = window.place(position) {
            window.followers.insert(id, position);
        }
        Follower { output: self.clone(), id }
    }
}

/// A reader that follows the output as it arrives.
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
            // Registers for the notification before checking, so that output that arrives in between is not missed.
            grown.as_mut().enable();
            {
                let mut window = self.output.window();
                let Some(position) = window.place(position) else {
                    return Next::Behind;
                };
                let next = window.first(position, PIECE);
                window.followers.insert(self.id, next.as_ref().map_or(position, OutputPiece::end));
                self.output.shared.taken.notify_waiters();
                if let Some(next) = next {
                    return Next::Output(next);
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

    /// Appends bytes at the end.
    async fn push(output: &LiveOutput, bytes: impl Into<Bytes>) {
        output.push(OutputPiece::both(output.end(), bytes)).await;
    }

    #[tokio::test]
    async fn memory_is_bounded_and_the_newest_is_kept() {
        let output = LiveOutput::new(0);
        for round in 0..100u8 {
            push(&output, vec![round; 10_000]).await;
        }
        assert_eq!(output.end(), 1_000_000);
        assert_eq!(output.window().bytes.len(), WINDOW);
        assert_eq!(output.tail(3), [99, 99, 99]);
        assert_eq!(output.piece(Piece::From { offset: 0, limit: 1 }), None);
        let tail = vec![OutputPiece::both(999_998, vec![99, 99])];
        assert_eq!(output.piece(Piece::Tail { limit: 2 }), Some((1_000_000, 999_998, tail)));
    }

    #[tokio::test]
    async fn beginning_outlives_the_window_if_it_is_kept() {
        let output = LiveOutput::new(0);
        push(&output, "begin").await;
        assert_eq!(output.head(3), Some(b"beg".to_vec()));
        output.keep_head(8);
        push(&output, vec![b'x'; WINDOW]).await;
        assert_eq!((output.head(8), output.head(9)), (Some(b"beginxxx".to_vec()), None));
        output.keep_head(2);
        assert_eq!((output.head(2), output.head(3)), (Some(b"be".to_vec()), None));
        let later = LiveOutput::new(100);
        later.keep_head(8);
        push(&later, "end").await;
        assert_eq!(later.head(2), None);
    }

    #[tokio::test]
    async fn follower_gets_all_output_then_the_end() {
        let output = LiveOutput::new(0);
        let mut follower = output.follower(0);
        let writer = {
            let output = output.clone();
            tokio::spawn(async move {
                for round in 0..200u32 {
                    push(&output, format!("{round:08}").repeat(1000)).await;
                }
                output.finish();
            })
        };
        let mut seen = Vec::new();
        loop {
            match follower.next(seen.len() as u64).await {
                Next::Output(piece) => {
                    assert_eq!(piece.offset, seen.len() as u64);
                    seen.extend_from_slice(&piece.bytes);
                }
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

    #[tokio::test]
    async fn follower_continues_after_a_gap() {
        let output = LiveOutput::new(0);
        let mut follower = output.follower(0);
        push(&output, "abc").await;
        assert_eq!(follower.next(0).await, Next::Output(OutputPiece::both(0, "abc")));
        output.push(OutputPiece::both(10, "xyz")).await;
        assert_eq!(follower.next(3).await, Next::Output(OutputPiece::both(10, "xyz")));
        output.skip_to(20);
        output.skip_to(15);
        output.finish();
        assert_eq!(follower.next(13).await, Next::End);
        assert_eq!(output.end(), 20);
    }

    #[tokio::test]
    async fn skipped_output_is_read_from_the_log() {
        let output = LiveOutput::new(0);
        let mut follower = output.follower(0);
        push(&output, "abc").await;
        assert_eq!(follower.next(0).await, Next::Output(OutputPiece::both(0, "abc")));
        output.leave_out(10);
        output.leave_out(5);
        assert_eq!((output.end(), output.tail(9)), (10, Vec::new()));
        assert_eq!(follower.next(3).await, Next::Behind);
        assert_eq!(output.piece(Piece::From { offset: 0, limit: 20 }), None);
        push(&output, "xyz").await;
        assert_eq!(output.follower(10).next(10).await, Next::Output(OutputPiece::both(10, "xyz")));
    }

    #[tokio::test]
    async fn repeated_output_is_ignored() {
        let output = LiveOutput::new(0);
        push(&output, "abc").await;
        output.push(OutputPiece::both(1, "bcd")).await;
        output.push_at_once(OutputPiece::both(0, "ab"));
        assert_eq!((output.end(), output.tail(9)), (4, b"abcd".to_vec()));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_follower_delays_the_supervisor_briefly() {
        let output = LiveOutput::new(0);
        let mut follower = output.follower(0);
        let begun = Instant::now();
        for _ in 0..100 {
            push(&output, vec![0; WINDOW]).await;
        }
        assert!(begun.elapsed() <= PATIENCE * 2, "{:?}", begun.elapsed());
        assert_eq!(follower.next(0).await, Next::Behind);
    }
}
