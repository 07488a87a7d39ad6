//! When a silent command counts as stalled, and when it has moved on.

use std::time::{Duration, SystemTime};

use super::{Left, Supervisor};
use crate::{
    bridge::Activity,
    task::{NotificationKind, Stall, TaskState, Waiting, prompt},
};

/// How much of the end of the output is looked at for a prompt, in bytes.
const PROMPT_BYTES: usize = 4096;

impl Supervisor {
    /// What the bridge saw of a silent command's processes. Without it, silence and the last line are all there is to go by.
    pub(super) async fn check_activity(&mut self, activity: Activity) -> Result<(), Left> {
        let Activity { silent_for, busy, waiting } = activity;
        if let Some(stall) = &self.task.stall {
            // A process that waited and does not any more has its answer, whatever it does with it.
            let answered = stall.waiting.is_some() && waiting.is_none();
            return if busy || answered { self.resume().await } else { Ok(()) };
        }
        if busy { Ok(()) } else { self.check_stall(silent_for, waiting).await }
    }

    /// Announces a stall when the command has been silent for long enough, and either a process waits for input or the last line looks
    /// like a prompt.
    pub(super) async fn check_stall(&mut self, silent_for: Duration, waiting: Option<Waiting>) -> Result<(), Left> {
        if self.task.stall.is_some()
            || silent_for < self.inner.settings.stall_after
            || !matches!(self.task.state, TaskState::Running { .. })
        {
            return Ok(());
        }
        let tail = self.live.output.tail(PROMPT_BYTES);
        let last_line = match (prompt::waiting_line(&tail), &waiting) {
            (Some(line), _) => line,
            (None, Some(_)) => prompt::last_line(&tail),
            (None, None) => return Ok(()),
        };
        tracing::info!(?silent_for, %last_line, ?waiting, "stalled");
        let mut task = self.task.clone();
        task.stall = Some(Stall { since: SystemTime::now(), silent_for, last_line, waiting });
        // Not until it is done: a command that cannot be told of must still be stopped when that is asked for.
        self.try_commit_record(task, NotificationKind::Stalled).await
    }

    /// Announces that a stalled command has printed something it had not printed before.
    pub(super) async fn check_resumed(&mut self) -> Result<(), Left> {
        // The record holds the size as of the stall: output that is only read again after a restart is no news.
        if self.task.stall.is_none() || self.live.output.end() <= self.task.output.bytes {
            return Ok(());
        }
        self.resume().await
    }

    async fn resume(&mut self) -> Result<(), Left> {
        let mut task = self.task.clone();
        task.stall = None;
        self.try_commit_record(task, NotificationKind::Resumed).await
    }
}
