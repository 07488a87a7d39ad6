//! What a session is told about a task, and how much of its output the notifications show.

use std::time::Duration;

use super::Status;

/// The most bytes of output in a notification: its beginning and its end together.
pub const NOTICE_OUTPUT_LIMIT: usize = 16 * 1024;
/// Bytes of the end of the output in a notification when the policy does not say.
pub const NOTICE_TAIL_DEFAULT: usize = 4096;
/// The shortest time between two heartbeats.
pub const HEARTBEAT_LEAST: Duration = Duration::from_secs(60);
/// The shortest silence that is announced.
pub const IDLE_LEAST: Duration = Duration::from_secs(1);

/// Whether the end of a task is announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CompletionNotice {
    /// Always.
    #[default]
    Always,
    /// Unless the command succeeded. *Lost* and *failed to start* are no success.
    UnlessSucceeded,
    /// Never.
    Never,
}

/// What the session of a task is told. Callers can change it until the task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifyPolicy {
    /// Whether the end of the task is announced.
    pub completion: CompletionNotice,
    /// The most bytes of the beginning of the output in a notification.
    pub head_bytes: usize,
    /// The most bytes of the end of the output in a notification.
    pub tail_bytes: usize,
    /// Time between two notifications that the command still runs; `None`: there are none.
    pub heartbeat_every: Option<Duration>,
    /// The silence after output that is announced, once each time; `None`: none is.
    pub idle_after: Option<Duration>,
}

impl Default for NotifyPolicy {
    fn default() -> Self {
        Self {
            completion: CompletionNotice::Always,
            head_bytes: 0,
            tail_bytes: NOTICE_TAIL_DEFAULT,
            heartbeat_every: None,
            idle_after: None,
        }
    }
}

impl NotifyPolicy {
    /// Whether the end of a task with this terminal status is announced.
    pub fn announces(&self, status: Status) -> bool {
        match self.completion {
            CompletionNotice::Always => true,
            CompletionNotice::UnlessSucceeded => status != Status::Succeeded,
            CompletionNotice::Never => false,
        }
    }

    /// Whether a result is announced that was found after the end. It corrects the announcement of a loss, so it is announced if that was.
    pub fn announces_late_outcome(&self) -> bool {
        self.announces(Status::Lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_is_withheld_by_unless_succeeded() {
        let ends = Status::ALL.into_iter().filter(|status| status.is_terminal());
        for status in ends {
            let announced = |completion| NotifyPolicy { completion, ..NotifyPolicy::default() }.announces(status);
            assert!(announced(CompletionNotice::Always));
            assert_eq!(announced(CompletionNotice::UnlessSucceeded), status != Status::Succeeded, "{status:?}");
            assert!(!announced(CompletionNotice::Never));
        }
    }

    #[test]
    fn late_outcome_is_announced_if_the_loss_was() {
        for (completion, announced) in [
            (CompletionNotice::Always, true),
            (CompletionNotice::UnlessSucceeded, true),
            (CompletionNotice::Never, false),
        ] {
            let policy = NotifyPolicy { completion, ..NotifyPolicy::default() };
            assert_eq!(policy.announces_late_outcome(), announced, "{completion:?}");
        }
    }
}
