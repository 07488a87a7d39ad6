//! What the contract says about tasks: limits, queries and answers.

use std::{collections::BTreeMap, time::Duration};

use errand_task::{BotId, RetainedOutput, SessionId, Status, Task, TaskId, TenantId};

/// Limits on the number and size of tasks.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// The most unfinished tasks of one bot, not counting those that wait for room.
    pub per_bot: u32,
    /// The most unfinished tasks of one tenant, not counting those that wait for room.
    pub per_tenant: u32,
    /// The most tasks of one bot that wait for room.
    pub queued_per_bot: u32,
    /// The most tasks of one tenant that wait for room.
    pub queued_per_tenant: u32,
    /// The most bytes of one tenant's tasks that wait for room, because the server holds these tasks in memory.
    pub queued_bytes: u64,
    /// The most stored tasks of one tenant, finished or not.
    pub stored_tasks: u64,
    /// The most bytes stored of one tenant: tasks, with some overhead for each, notifications and retained outputs.
    pub stored_bytes: u64,
}

/// What becomes of the output of a task that has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// Output to retain. Left out if the tenant's stored bytes would exceed half of `stored_bytes`.
    pub output: Option<RetainedOutput>,
    /// Whether its sandbox holds more of the output that is worth retaining.
    pub more: bool,
    /// The most bytes stored of one tenant.
    pub stored_bytes: u64,
}

/// How long finished tasks are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// After the end and its acknowledgement.
    pub acknowledged: Duration,
    /// After the end, if it is not acknowledged.
    pub unacknowledged: Duration,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemovedTasks {
    /// How many tasks.
    pub tasks: u64,
    /// How many of them had ended without an acknowledgement.
    pub unacknowledged: u64,
}

/// What became of a task that was to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The task was added.
    New(Task),
    /// The bot already has this task with the same request id. Nothing was added.
    Existing(Task),
}

/// Which tasks to list.
#[derive(Debug, Clone)]
pub struct TaskQuery {
    /// The tenant.
    pub tenant: TenantId,
    /// The bots.
    pub bots: BotFilter,
    /// The session; none: every session.
    pub session: Option<SessionId>,
    /// One of these statuses; empty: any.
    pub statuses: Vec<Status>,
    /// All of these labels, with these values.
    pub labels: BTreeMap<String, String>,
    /// Only tasks older than this one, which is [`TaskPage::next`] of the page before.
    pub before: Option<TaskId>,
    /// The most tasks to return.
    pub limit: u32,
}

impl TaskQuery {
    /// True when only unfinished tasks can match.
    pub fn is_unfinished(&self) -> bool {
        !self.statuses.is_empty() && self.statuses.iter().all(|status| !status.is_terminal())
    }
}

/// A page of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// [`TaskQuery::before`] for the next page; none when this page is the last.
    pub next: Option<TaskId>,
}

/// Which bots a caller means, or may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BotFilter {
    /// Every bot of the tenant.
    All,
    /// One bot.
    One(BotId),
    /// The bots that match any of these patterns: a name, or a prefix followed by `*`.
    Matching(Vec<String>),
}

impl BotFilter {
    /// True when the bot matches.
    pub fn admits(&self, bot: &BotId) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == bot,
            Self::Matching(patterns) => patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => bot.as_str().starts_with(prefix),
                None => pattern == bot.as_str(),
            }),
        }
    }
}
