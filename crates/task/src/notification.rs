//! What a session is told about one of its tasks.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{
    MemoryKills, Outcome, Owner, Stall, Status, Task, TaskId,
    shorten::{DESCRIPTION_LIMIT, keep_end, shorten},
    text,
};

/// The most output that a notification carries, in bytes.
pub const TAIL_LIMIT: usize = 4096;
/// The most of a command that a notification carries, in characters.
const COMMAND_LIMIT: usize = 1000;
/// The most of a path that a notification carries, in characters.
const PATH_LIMIT: usize = 512;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationKind {
    /// The task became terminal.
    Completed,
    /// The command is silent and seems to wait for input.
    Stalled,
    /// A stalled command moved on.
    Resumed,
    /// How a command ended was found after its task had ended otherwise.
    LateOutcome,
}

impl NotificationKind {
    /// The word for it in the store and in texts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Stalled => "stalled",
            Self::Resumed => "resumed",
            Self::LateOutcome => "late_outcome",
        }
    }
}

/// A notification before it is committed. It is complete in itself: it outlives its task's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNotification {
    /// The task.
    pub task: TaskId,
    /// Its owner.
    pub owner: Owner,
    /// What happened.
    pub kind: NotificationKind,
    /// The task's status then.
    pub status: Status,
    /// How the command ended, for [`NotificationKind::Completed`]; the late result for [`NotificationKind::LateOutcome`].
    pub outcome: Option<Outcome>,
    /// What was killed for want of memory while the command ran.
    #[serde(default, skip_serializing_if = "MemoryKills::is_none")]
    pub memory_kills: MemoryKills,
    /// The task's title.
    pub description: String,
    /// The beginning of the command.
    pub command: String,
    /// True when there is more of the command.
    #[serde(default)]
    pub command_truncated: bool,
    /// The end of the output, without terminal escapes.
    pub output_tail: String,
    /// True when there was more output.
    pub output_truncated: bool,
    /// Bytes of output.
    pub output_bytes: u64,
    /// The whole log.
    pub output_file: String,
    /// From the command's start until then.
    pub duration: Duration,
    /// What was seen, for [`NotificationKind::Stalled`].
    pub stall: Option<Stall>,
    /// Whether the command takes input, so that a stall can be answered.
    #[serde(default)]
    pub takes_input: bool,
    /// When it happened.
    pub created_at: SystemTime,
}

impl NewNotification {
    /// A notification about `task` as it stands at `now`, bounded. `tail` holds the last bytes of its output.
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

    /// The same with every text of bounded size, so that it takes at most 64 KiB on its way to a client, whatever the sandbox claimed. One
    /// that is too large would block every later one of its session.
    pub fn bounded(mut self) -> Self {
        shorten(&mut self.description, DESCRIPTION_LIMIT);
        if let Some((end, _)) = self.command.char_indices().nth(COMMAND_LIMIT) {
            self.command = self.command[..end].to_owned();
            self.command_truncated = true;
        }
        // Bytes that are no text take three each as text.
        self.output_truncated |= keep_end(&mut self.output_tail, TAIL_LIMIT);
        shorten(&mut self.output_file, PATH_LIMIT);
        self.outcome = self.outcome.map(Outcome::bounded);
        self.stall = self.stall.map(Stall::bounded);
        self
    }

    /// Bytes of its large texts: never more than it takes on its way to a client.
    pub fn weight(&self) -> usize {
        self.description.len() + self.command.len() + self.output_tail.len()
    }

    /// The same ready to be put before a model. Nothing that the command or its output holds can end or add an element.
    pub fn text(&self) -> String {
        text::notification(self)
    }
}

/// A committed notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Its place in the order of all notifications.
    pub sequence: i64,
    /// What it says.
    pub body: NewNotification,
    /// When its delivery was ended.
    pub acknowledged_at: Option<SystemTime>,
    /// How often it was leased out.
    pub deliveries: u32,
}
