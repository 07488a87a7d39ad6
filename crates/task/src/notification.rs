//! Notifications: the messages to a session about its tasks.

use std::time::{Duration, SystemTime};

use super::{
    MemoryKills, Outcome, Owner, Stall, Status, Task, TaskId,
    shorten::{DESCRIPTION_LIMIT, keep_end, shorten},
    text,
};

/// The most bytes of output in a notification.
pub const TAIL_LIMIT: usize = 4096;
/// The most characters of the command in a notification.
const COMMAND_LIMIT: usize = 1000;
/// The most characters of the log's path in a notification.
const PATH_LIMIT: usize = 512;

/// What happened to the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationKind {
    /// The task became terminal.
    Completed,
    /// The command is silent and seems to wait for input.
    Stalled,
    /// A stalled command continued.
    Resumed,
    /// The command's result was found after its task had ended with another outcome.
    LateOutcome,
}

impl NotificationKind {
    /// Its name in the store and in texts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Stalled => "stalled",
            Self::Resumed => "resumed",
            Self::LateOutcome => "late_outcome",
        }
    }
}

/// A notification before it is committed. It refers to no record, so that it can outlive its task's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNotification {
    /// The task.
    pub task: TaskId,
    /// Its owner.
    pub owner: Owner,
    /// What happened to the task.
    pub kind: NotificationKind,
    /// The task's status when it happened.
    pub status: Status,
    /// How the command ended, for [`NotificationKind::Completed`]; the late result for [`NotificationKind::LateOutcome`].
    pub outcome: Option<Outcome>,
    /// Processes that the kernel killed because memory had run out while the command ran.
    pub memory_kills: MemoryKills,
    /// The task's title.
    pub description: String,
    /// The beginning of the command.
    pub command: String,
    /// True if the command is longer.
    pub command_truncated: bool,
    /// The end of the output, without terminal escapes.
    pub output_tail: String,
    /// True if there was more output.
    pub output_truncated: bool,
    /// Bytes of output at that time.
    pub output_bytes: u64,
    /// Path of the whole log in the sandbox.
    pub output_file: String,
    /// Time from the command's start until this happened.
    pub duration: Duration,
    /// The stall, for [`NotificationKind::Stalled`].
    pub stall: Option<Stall>,
    /// Whether the command takes input, so that a caller can answer a stall.
    pub takes_input: bool,
    /// When it happened.
    pub created_at: SystemTime,
}

impl NewNotification {
    /// Makes a notification about `task` in its state at `now`, with texts of bounded size. `tail` holds the last bytes of output.
    pub fn new(kind: NotificationKind, task: &Task, tail: &[u8], now: SystemTime) -> Self {
        let kept = &tail[tail.len().saturating_sub(TAIL_LIMIT)..];
        let notification = Self {
            task: task.id,
            owner: task.owner.clone(),
            kind,
            status: task.status(),
            outcome: match kind {
                NotificationKind::LateOutcome => task.late_outcome.clone(),
                NotificationKind::Completed | NotificationKind::Stalled | NotificationKind::Resumed => {
                    task.state.outcome().cloned()
                }
            },
            memory_kills: MemoryKills { before: None, ..task.memory_kills },
            description: task.spec.title(),
            command: task.spec.program.display(),
            command_truncated: false,
            output_tail: text::plain(kept),
            output_truncated: task.output.bytes > kept.len() as u64,
            output_bytes: task.output.bytes,
            output_file: task.output_file.clone(),
            duration: task.duration(now),
            stall: task.stall.clone(),
            takes_input: task.spec.takes_input(),
            created_at: now,
        };
        notification.bounded()
    }

    /// Shortens every text, so that the encoded notification has at most 64 KiB whatever the sandbox claimed. A notification that exceeds
    /// the size of a message would block all later ones of its session.
    pub fn bounded(mut self) -> Self {
        shorten(&mut self.description, DESCRIPTION_LIMIT);
        if let Some((end, _)) = self.command.char_indices().nth(COMMAND_LIMIT) {
            self.command = self.command[..end].to_owned();
            self.command_truncated = true;
        }
        // Each invalid byte becomes U+FFFD, which takes three bytes.
        self.output_truncated |= keep_end(&mut self.output_tail, TAIL_LIMIT);
        shorten(&mut self.output_file, PATH_LIMIT);
        self.outcome = self.outcome.map(Outcome::bounded);
        self.stall = self.stall.map(Stall::bounded);
        self
    }

    /// Bytes of its large texts: a lower bound of its encoded size.
    pub fn weight(&self) -> usize {
        self.description.len() + self.command.len() + self.output_tail.len()
    }

    /// The notification as text for a model. Command and output are escaped: they cannot close or add an element.
    pub fn text(&self) -> String {
        text::notification(self)
    }
}

/// A committed notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Its number in the order of all notifications.
    pub sequence: i64,
    /// Its content.
    pub body: NewNotification,
    /// When it was acknowledged.
    pub acknowledged_at: Option<SystemTime>,
    /// How often it has been leased.
    pub deliveries: u32,
}
