//! What the contract says about notifications: scopes, queries, leases and answers.

use std::time::{Duration, SystemTime};

use errand_task::{BotId, LeaseId, Notification, SessionId, TaskId, TenantId};

/// The notifications of one session, or of all sessions of a bot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The tenant.
    pub tenant: TenantId,
    /// The bot.
    pub bot: BotId,
    /// The session; none: every session.
    pub session: Option<SessionId>,
}

/// Which notifications to list.
#[derive(Debug, Clone)]
pub struct NotificationQuery {
    /// The scope.
    pub scope: Scope,
    /// The task; none: every task.
    pub task: Option<TaskId>,
    /// Whether to include acknowledged notifications.
    pub acknowledged: bool,
    /// Only notifications with a greater sequence.
    pub after: i64,
    /// The most notifications to return.
    pub limit: u32,
}

/// A page of notifications.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotificationPage {
    /// The notifications.
    pub notifications: Vec<Notification>,
    /// [`NotificationQuery::after`] for the next page; none when this page is the last.
    pub next: Option<i64>,
}

/// What to lease, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct LeaseRequest {
    /// The name of the lease.
    pub lease: LeaseId,
    /// Only notifications with a greater sequence.
    pub after: i64,
    /// The most notifications to lease.
    pub limit: u32,
    /// How long the lease lasts. The store's clock measures it.
    pub duration: Duration,
}

/// Leased notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// The notifications, in order of sequence.
    pub notifications: Vec<Notification>,
    /// When the lease ends by the store's clock. For people: to wait for the end, use [`crate::TaskStore::next_lease_end`].
    pub ends_at: SystemTime,
}

/// Which notifications of a scope to acknowledge or release.
#[derive(Debug, Clone)]
pub enum Selection {
    /// The notifications with these sequences. Unknown sequences are ignored.
    Sequences(Vec<i64>),
    /// All notifications that this lease holds.
    Lease(LeaseId),
}
