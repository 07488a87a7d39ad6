//! The messages of an upload, and the deadlines by which the guest must take them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::super::calls::ANSWER_LIMIT;
use crate::{Abandoned, FileSource};
use errand_runtime::RuntimeError;

/// The most bytes of a file in one message.
const PIECE: usize = 256 * 1024;
/// How long a file may take to be moved into place after its last byte was sent: that byte may still be in transit.
const FINISH_LIMIT: Duration = Duration::from_secs(120);

/// What follows the head of an upload.
pub(super) enum Part {
    Data(Bytes),
    End,
}

/// The messages of an upload after its head. If the content is abandoned, the end is missing, and the guest discards what came.
pub(super) fn parts(content: FileSource, abandoned: Arc<AtomicBool>) -> impl Stream<Item = Part> + Send + 'static {
    content
        .map(Some)
        .chain(stream::iter([None]))
        .flat_map(|piece| {
            stream::iter(match piece {
                Some(Ok(bytes)) => cut(bytes).into_iter().map(|piece| Ok(Part::Data(piece))).collect(),
                Some(Err(Abandoned)) => vec![Err(Abandoned)],
                None => vec![Ok(Part::End)],
            })
        })
        .scan(abandoned, |abandoned, part| {
            if part.is_err() {
                abandoned.store(true, Ordering::Relaxed);
            }
            future::ready(part.ok())
        })
}

/// Passes parts on and publishes the deadline by which the guest must have taken the current part, or must have answered after the last
/// one. There is no deadline while the next part is awaited, because that time is the caller's.
pub(super) fn timed<M: 'static>(
    parts: impl Stream<Item = M> + Send + 'static,
    deadline: watch::Sender<Option<Instant>>,
) -> impl Stream<Item = M> + Send + 'static {
    let mut parts = Box::pin(parts);
    stream::poll_fn(move |context| {
        let part = parts.as_mut().poll_next(context);
        deadline.send_replace(match &part {
            Poll::Pending => None,
            Poll::Ready(Some(_)) => Some(Instant::now() + ANSWER_LIMIT),
            Poll::Ready(None) => Some(Instant::now() + FINISH_LIMIT),
        });
        part
    })
}

/// Waits until the deadline that [`timed`] publishes has passed. If the parts are dropped, they count as sent.
pub(super) async fn too_late(mut deadline: watch::Receiver<Option<Instant>>) -> RuntimeError {
    let mut over = None;
    loop {
        let passed = match deadline.borrow_and_update().or(over) {
            Some(moment) => future::Either::Left(sleep_until(moment)),
            None => future::Either::Right(future::pending()),
        };
        tokio::select! {
            () = passed => {
                return RuntimeError::Unavailable { detail: "the bridge did not take the file in time".to_owned() };
            }
            changed = deadline.changed(), if over.is_none() => if changed.is_err() {
                over = Some(Instant::now() + FINISH_LIMIT);
            }
        }
    }
}

fn cut(mut bytes: Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    while bytes.len() > PIECE {
        pieces.push(bytes.split_to(PIECE));
    }
    if !bytes.is_empty() {
        pieces.push(bytes);
    }
    pieces
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    /// How long until a write is given up whose guest takes `takes` of three parts. The caller sends the last part late.
    async fn given_up(takes: usize) -> Duration {
        const CALLER: Duration = Duration::from_secs(1000);
        let begun = Instant::now();
        let part = || Part::End;
        let slow = stream::once(async move {
            tokio::time::sleep(CALLER).await;
            part()
        });
        let (deadline, reached) = watch::channel(None);
        let mut parts = Box::pin(timed(stream::iter([part(), part()]).chain(slow), deadline));
        let taking = async {
            for _ in 0..takes {
                parts.next().await;
            }
            future::pending::<()>().await;
        };
        tokio::select! {
            () = taking => Duration::ZERO,
            _ = too_late(reached) => begun.elapsed(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_runs_while_the_guest_is_awaited() {
        assert_eq!(given_up(1).await.as_secs(), ANSWER_LIMIT.as_secs());
        assert_eq!(given_up(3).await.as_secs(), 1000 + ANSWER_LIMIT.as_secs());
        assert_eq!(given_up(4).await.as_secs(), 1000 + FINISH_LIMIT.as_secs());
    }
}
