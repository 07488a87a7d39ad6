//! WatchTasks: a watch of the engine as a stream. It reads when the client takes a message; the end of the server ends it.

use futures_util::{Stream, stream};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::api::{auth::Held, convert, page, status};
use errand_engine::{TaskWatch, WatchItem};
use errand_proto::v1::{TaskSnapshot, TaskSnapshotEnd, WatchProgress, WatchTasksResponse, watch_tasks_response::Event};

/// Streams a watch. `held` is its slot among the streams of its bot or tenant.
pub(super) fn stream(
    watch: TaskWatch,
    held: Option<Held>,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<WatchTasksResponse, Status>> + Send {
    stream::unfold(Some((watch, held, shutdown)), |parts| async {
        let (mut watch, held, shutdown) = parts?;
        let next = tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(status::shutting_down()),
            next = watch.next() => next.map_err(status::engine),
        };
        let (item, cursor) = match next {
            Ok(next) => next,
            Err(status) => return Some((Err(status), None)),
        };
        let event = match item {
            WatchItem::SnapshotStarted { too_old } => Event::SnapshotStarted(TaskSnapshot { cursor_too_old: too_old }),
            WatchItem::Listed(task) => Event::Listed(convert::task(*task)),
            WatchItem::SnapshotComplete => Event::SnapshotComplete(TaskSnapshotEnd {}),
            WatchItem::Changed(event, task) => Event::Changed(convert::change(event, *task)),
            WatchItem::Progress => Event::Progress(WatchProgress {}),
        };
        let cursor = cursor.map(page::token).unwrap_or_default();
        Some((Ok(WatchTasksResponse { event: Some(event), cursor }), Some((watch, held, shutdown))))
    })
}
