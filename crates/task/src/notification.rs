//! Notifications: the messages to a session about its tasks.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::{
    MemoryKills, NOTICE_OUTPUT_LIMIT, Outcome, Owner, Stall, Status, Task, TaskId, TraceParent, WATCH_LIMIT,
    WatchNotice, output,
    shorten::{DESCRIPTION_LIMIT, LINE_LIMIT, keep_end, keep_start, shorten},
    text,
};

/// The most bytes of an encoded notification.
pub const NOTIFICATION_LIMIT: usize = 64 * 1024;
/// Bytes of a notification that are no text: numbers, times, and the numbers and lengths of fields. Generous.
const OVERHEAD: usize = 1024;
/// The most characters of the command in a notification.
const COMMAND_LIMIT: usize = 1000;
/// The most characters of the log's path in a notification.
const PATH_LIMIT: usize = 512;
/// The most bytes of labels in a notification, with [`LABEL_OVERHEAD`] for each.
const LABELS_LIMIT: usize = 8 * 1024;
/// What the encoding adds to each label.
const LABEL_OVERHEAD: usize = 10;

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
    /// The command still runs.
    Heartbeat,
    /// The command has printed something and is silent since.
    Idle,
    /// The output matches a watch.
    WatchMatched,
    /// A watch matched too often and is no longer searched for.
    WatchDisabled,
    /// The session gets no notifications about watches for a while.
    WatchesSuspended,
    /// The session gets them again.
    WatchesRestored,
}

impl NotificationKind {
    /// Its name in the store and in texts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Stalled => "stalled",
            Self::Resumed => "resumed",
            Self::LateOutcome => "late_outcome",
            Self::Heartbeat => "heartbeat",
            Self::Idle => "idle",
            Self::WatchMatched => "watch_matched",
            Self::WatchDisabled => "watch_disabled",
            Self::WatchesSuspended => "watches_suspended",
            Self::WatchesRestored => "watches_restored",
        }
    }

    /// Whether it is about watches. Such a notification shows no output but the lines of matches.
    pub fn is_about_watches(self) -> bool {
        match self {
            Self::Completed | Self::Stalled | Self::Resumed | Self::LateOutcome | Self::Heartbeat | Self::Idle => false,
            Self::WatchMatched | Self::WatchDisabled | Self::WatchesSuspended | Self::WatchesRestored => true,
        }
    }
}

/// How a running command is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    /// How long the server has received no output, by its own clock.
    pub silent_for: Duration,
    /// The last line of output that is not blank.
    pub last_line: String,
}

impl Liveness {
    fn bounded(mut self) -> Self {
        shorten(&mut self.last_line, LINE_LIMIT);
        self
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
    /// The beginning of the output, without terminal escapes, as far as it is not in `output_tail`.
    pub output_head: String,
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
    /// How the command is doing, for [`NotificationKind::Heartbeat`] and [`NotificationKind::Idle`].
    pub liveness: Option<Liveness>,
    /// Whether the command takes input, so that a caller can answer a stall.
    pub takes_input: bool,
    /// The task's labels, as many as there is room for.
    pub labels: BTreeMap<String, String>,
    /// The trace context of the call that started the task.
    pub traceparent: Option<TraceParent>,
    /// True if it is stored as acknowledged: its session brought about what it tells.
    pub acknowledged: bool,
    /// What matched, for [`NotificationKind::WatchMatched`] and [`NotificationKind::WatchDisabled`].
    pub watch: Option<WatchNotice>,
    /// Matches of watches that were not announced when they were found.
    pub held_back: u64,
    /// When it happened.
    pub created_at: SystemTime,
}

impl NewNotification {
    /// Makes a notification about `task` in its state at `now`, with texts of bounded size. `tail` holds the last bytes of output.
    pub fn new(kind: NotificationKind, task: &Task, tail: &[u8], now: SystemTime) -> Self {
        Self::with_head(kind, task, (&[], tail), now)
    }

    /// The same with the first bytes of output. Of both, as much is kept as the task's policy says, and no byte is in both.
    pub fn with_head(kind: NotificationKind, task: &Task, (head, tail): (&[u8], &[u8]), now: SystemTime) -> Self {
        let policy = &task.notify;
        let (head, tail) = if kind.is_about_watches() { (&[][..], &[][..]) } else { (head, tail) };
        let tail = &tail[tail.len().saturating_sub(policy.tail_bytes)..];
        let before_tail = usize::try_from(task.output.bytes).unwrap_or(usize::MAX).saturating_sub(tail.len());
        let head = &head[..head.len().min(policy.head_bytes).min(before_tail)];
        let (whole_head, _) = output::split_whole(head, true);
        let mut notification = Self {
            task: task.id,
            owner: task.owner.clone(),
            kind,
            status: task.status(),
            outcome: match kind {
                NotificationKind::LateOutcome => task.late_outcome.clone(),
                NotificationKind::Completed
                | NotificationKind::Stalled
                | NotificationKind::Resumed
                | NotificationKind::Heartbeat
                | NotificationKind::Idle
                | NotificationKind::WatchMatched
                | NotificationKind::WatchDisabled
                | NotificationKind::WatchesSuspended
                | NotificationKind::WatchesRestored => task.state.outcome().cloned(),
            },
            memory_kills: MemoryKills { before: None, ..task.memory_kills },
            description: task.spec.title(),
            command: task.spec.program.display(),
            command_truncated: false,
            output_head: text::plain(whole_head),
            output_tail: text::plain(tail),
            output_truncated: before_tail > head.len(),
            output_bytes: task.output.bytes,
            output_file: task.output_file.clone(),
            duration: task.duration(now),
            stall: task.stall.clone(),
            liveness: None,
            takes_input: task.spec.takes_input(),
            labels: task.spec.labels.clone(),
            traceparent: task.spec.traceparent.clone(),
            acknowledged: kind == NotificationKind::Completed
                && task.state.outcome().is_some_and(Outcome::is_acknowledged),
            watch: None,
            held_back: 0,
            created_at: now,
        };
        // Each invalid byte becomes U+FFFD, which takes three bytes.
        notification.output_truncated |= keep_start(&mut notification.output_head, policy.head_bytes);
        notification.output_truncated |= keep_end(&mut notification.output_tail, policy.tail_bytes);
        notification.bounded()
    }

    /// Adds how the command is doing.
    pub fn with_liveness(mut self, liveness: Option<Liveness>) -> Self {
        self.liveness = liveness.map(Liveness::bounded);
        self
    }

    /// Shortens every text, so that the encoded notification has at most 64 KiB whatever the sandbox claimed. A notification that exceeds
    /// the size of a message would block all later ones of its session.
    pub fn bounded(mut self) -> Self {
        // One that is about watches shows the lines of matches, and every other one the output.
        if self.kind.is_about_watches() {
            self.output_head.clear();
            self.output_tail.clear();
        } else {
            self.watch = None;
        }
        shorten(&mut self.description, DESCRIPTION_LIMIT);
        if let Some((end, _)) = self.command.char_indices().nth(COMMAND_LIMIT) {
            self.command = self.command[..end].to_owned();
            self.command_truncated = true;
        }
        self.output_truncated |= keep_end(&mut self.output_tail, NOTICE_OUTPUT_LIMIT);
        let room = NOTICE_OUTPUT_LIMIT.saturating_sub(self.output_tail.len());
        self.output_truncated |= keep_start(&mut self.output_head, room);
        shorten(&mut self.output_file, PATH_LIMIT);
        self.outcome = self.outcome.map(Outcome::bounded);
        self.stall = self.stall.map(Stall::bounded);
        self.watch = self.watch.map(|mut watch| {
            watch.lines = watch.lines.bounded();
            watch.others.truncate(WATCH_LIMIT);
            watch
        });
        self.liveness = self.liveness.map(Liveness::bounded);
        let mut room = LABELS_LIMIT;
        // A label that is cut would lead to the wrong place, so one that does not fit is left out.
        self.labels.retain(|key, value| match room.checked_sub(key.len() + value.len() + LABEL_OVERHEAD) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        });
        self
    }

    /// Adds what is known of matches: what matched, and how many matches were not announced when they were found.
    pub fn with_matches(self, watch: Option<WatchNotice>, held_back: u64) -> Self {
        Self { watch, held_back, ..self }.bounded()
    }

    /// Bytes of its large texts: a lower bound of its encoded size.
    pub fn weight(&self) -> usize {
        self.description.len()
            + self.command.len()
            + self.output_head.len()
            + self.output_tail.len()
            + self.watch.as_ref().map_or(0, |watch| watch.lines.text.len())
    }

    /// An upper bound of its encoded size without `text`.
    fn size(&self) -> usize {
        let outcome = self.outcome.as_ref().map_or(0, |outcome| outcome.to_string().len());
        let waiting = |stall: &Stall| stall.waiting.as_ref().map_or(0, |waiting| waiting.command.len());
        let stall = self.stall.as_ref().map_or(0, |stall| stall.last_line.len() + waiting(stall));
        let liveness = self.liveness.as_ref().map_or(0, |liveness| liveness.last_line.len());
        let labels: usize = self.labels.iter().map(|(key, value)| key.len() + value.len() + LABEL_OVERHEAD).sum();
        let names = self.owner.bot.as_str().len() + self.owner.session.as_str().len();
        let traceparent = self.traceparent.as_ref().map_or(0, |traceparent| traceparent.as_str().len());
        let watch = self.watch.as_ref().map_or(0, WatchNotice::size);
        let texts = outcome + stall + liveness + labels + names + traceparent + watch + self.output_file.len();
        self.weight() + texts + OVERHEAD
    }

    /// The notification as text for a model. Everything of the command and its output is escaped: it cannot close or add an element. Where
    /// the escaped output would make the notification too large, the text shows less of it than `output_head` and `output_tail`.
    pub fn text(&self) -> String {
        text::notification(self, NOTIFICATION_LIMIT.saturating_sub(self.size()))
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
