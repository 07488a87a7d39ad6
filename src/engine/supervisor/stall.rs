//! When a silent command counts as stalled, and when it has moved on.

use std::time::SystemTime;

use tokio::time::Instant;

use super::{Left, Supervisor};
use crate::task::{NotificationKind, Stall, TaskState, prompt};

/// How much of the end of the output is looked at for a prompt, in bytes.
const PROMPT_BYTES: usize = 4096;

impl Supervisor {
    /// Announces a stall when the command has been silent for long enough and its last line looks like a prompt.
    pub(super) async fn check_stall(&mut self, silent_since: Instant) -> Result<(), Left> {
        let silent_for = silent_since.elapsed();
        if self.task.stall.is_some()
            || silent_for < self.inner.settings.stall_after
            || !matches!(self.task.state, TaskState::Running { .. })
        {
            return Ok(());
        }
        let Some(last_line) = prompt::waiting_line(&self.live.output.tail(PROMPT_BYTES)) else {
            return Ok(());
        };
        tracing::info!(?silent_for, %last_line, "stalled");
        let mut task = self.task.clone();
        task.stall = Some(Stall { since: SystemTime::now(), silent_for, last_line, waiting: None });
        self.commit_record(task, Some(NotificationKind::Stalled)).await
    }

    /// Announces that a stalled command has printed something it had not printed before.
    pub(super) async fn check_resumed(&mut self) -> Result<(), Left> {
        // The record holds the size as of the stall: output that is only read again after a restart is no news.
        if self.task.stall.is_none() || self.live.output.end() <= self.task.output.bytes {
            return Ok(());
        }
        let mut task = self.task.clone();
        task.stall = None;
        self.commit_record(task, Some(NotificationKind::Resumed)).await
    }
}
