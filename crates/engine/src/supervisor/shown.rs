//! The output that a notification shows: its end from memory, and its beginning from memory or from the log.

use std::time::Duration;

use super::{machine::Notice, operations::within};
use crate::live::LiveTask;
use errand_bridge::{Piece, ReadError, SandboxBridge};
use errand_masks::{Cut, Masks};
use errand_runtime::RuntimeError;
use errand_task::{Liveness, NewNotification, Task, TaskId, prompt};

/// How long the commit of a notification may wait for the beginning of the output. Without it the notification says that output is left out.
const HEAD_LIMIT: Duration = Duration::from_secs(2);
/// How many bytes at the end of the output are searched for its last line.
const LAST_LINE_BYTES: usize = 4096;

/// The output as far as it is in memory.
pub(super) struct Shown {
    /// None: the beginning is not in memory.
    head: Option<Vec<u8>>,
    tail: Vec<u8>,
    last_line: String,
    masks: Masks,
}

impl Shown {
    pub(super) fn of(live: &LiveTask, task: &Task) -> Self {
        let tail = live.output.tail(task.notify.tail_bytes.max(LAST_LINE_BYTES));
        let last_line = prompt::last_line(&tail[tail.len().saturating_sub(LAST_LINE_BYTES)..]);
        Self { head: live.output.head(task.notify.head_bytes), tail, last_line, masks: live.masks.of_texts() }
    }

    /// The notification of a notice.
    pub(super) async fn notification(self, notice: Notice, task: &Task, bridge: &dyn SandboxBridge) -> NewNotification {
        let wanted = task.notify.head_bytes;
        let is_hidden = wanted > 0 && task.output.bytes > task.notify.tail_bytes as u64;
        let head = match self.head {
            Some(head) => head,
            None if is_hidden => {
                match within(HEAD_LIMIT, read_head(bridge, task.id, wanted + self.masks.margin())).await {
                    Ok(mut head) => {
                        self.masks.bytes(&mut head, Cut { start: false, end: true });
                        head.truncate(wanted);
                        head
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the beginning of the output could not be read for a notification");
                        Vec::new()
                    }
                }
            }
            None => Vec::new(),
        };
        let last_line = self.last_line;
        let liveness = notice.silent_for.map(|silent_for| Liveness { silent_for, last_line });
        NewNotification::with_head(notice.kind, task, (&head, &self.tail), notice.at)
            .with_liveness(liveness)
            .with_matches(notice.watch.map(|watch| *watch), notice.held_back)
    }
}

/// The first bytes of the log.
async fn read_head(bridge: &dyn SandboxBridge, id: TaskId, wanted: usize) -> Result<Vec<u8>, RuntimeError> {
    let gone = |error| match error {
        ReadError::Gone => RuntimeError::Unavailable { detail: "the log is gone".to_owned() },
        ReadError::Runtime(error) => error,
    };
    let piece = Piece::From { offset: 0, limit: wanted as u64 };
    let reader = bridge.read(id, piece).await.map_err(gone)?;
    let mut head = Vec::new();
    for piece in reader.collect().await? {
        // Behind a gap is not the beginning.
        if piece.offset == head.len() as u64 {
            head.extend_from_slice(&piece.bytes);
        }
    }
    head.truncate(wanted);
    Ok(head)
}
