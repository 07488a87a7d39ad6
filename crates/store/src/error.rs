//! Errors of a store, by what the caller can do about them.

use std::{error::Error, sync::Arc};

/// The cause of an error, as the database or the operating system gave it.
pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

/// Why a store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bot has as many unfinished tasks as it may have.
    #[error("the bot has {running} unfinished tasks and may have {limit}")]
    TooManyForBot {
        /// The number of unfinished tasks.
        running: u32,
        /// The limit.
        limit: u32,
    },
    /// The tenant has as many unfinished tasks as it may have.
    #[error("the tenant has {running} unfinished tasks and may have {limit}")]
    TooManyForTenant {
        /// The number of unfinished tasks.
        running: u32,
        /// The limit.
        limit: u32,
    },
    /// The bot has as many tasks waiting for room as it may have.
    #[error("the bot has {queued} tasks in its queue and may have {limit}")]
    TooManyQueuedForBot {
        /// The number of tasks that wait.
        queued: u32,
        /// The limit.
        limit: u32,
    },
    /// The tenant has as many tasks waiting for room as it may have.
    #[error("the tenant has {queued} tasks in its queues and may have {limit}")]
    TooManyQueuedForTenant {
        /// The number of tasks that wait.
        queued: u32,
        /// The limit.
        limit: u32,
    },
    /// The tenant's tasks that wait for room take as many bytes as they may.
    #[error(
        "the tasks in the tenant's queues have {queued} bytes and may have {limit}: wait until some have started, or send shorter commands"
    )]
    TooMuchQueued {
        /// The number of bytes.
        queued: u64,
        /// The limit.
        limit: u64,
    },
    /// The tenant has as many stored tasks as it may have.
    #[error(
        "the tenant has {stored} stored tasks and may have {limit}: wait until finished tasks are removed after their retention, or raise \
         max-stored-tasks-per-tenant"
    )]
    TooManyStored {
        /// The number of stored tasks.
        stored: u64,
        /// The limit.
        limit: u64,
    },
    /// The tenant's stored tasks and notifications take as many bytes as they may.
    #[error(
        "the tenant's stored tasks and notifications have {stored} bytes and may have {limit}: acknowledge notifications, wait until old \
         records are removed after their retention, or raise max-stored-bytes-per-tenant"
    )]
    TooMuchStored {
        /// The number of stored bytes.
        stored: u64,
        /// The limit.
        limit: u64,
    },
    /// Too many reads are waiting, or a read took too long.
    #[error("the database is busy with other reads of this tenant; try again")]
    Busy,
    /// The disk of the database is full.
    #[error(
        "the disk of the server's database is full; nothing was stored: make room on the disk of the server's data"
    )]
    DiskFull,
    /// The record was changed in the meantime, or is final.
    #[error("the record was changed in the meantime or is final")]
    Conflict,
    /// A newer Errand has written the database.
    #[error(
        "the database has schema version {found}, and this server knows versions up to {known}: run a newer Errand"
    )]
    TooNew {
        /// The schema version of the database.
        found: i64,
        /// The newest version that this server knows.
        known: i64,
    },
    /// The database is not Errand's, or is damaged.
    #[error("the database cannot be used: {detail}")]
    Unusable {
        /// What is wrong, and with what.
        detail: String,
    },
    /// Another server uses the database.
    #[error("another server uses the database: stop that server, or choose another database ({detail})")]
    InUse {
        /// Which database.
        detail: String,
    },
    /// The database cannot be opened.
    #[error("the database cannot be opened for writing")]
    Unwritable(#[source] Cause),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// The database failed. The cause is shared, because all changes of a failed commit fail for the same cause.
    #[error("the database failed")]
    Database(#[source] Cause),
    /// A stored record cannot be decoded. The error says where, and quotes nothing of the record, because records hold secrets.
    #[error("the stored record of {what} {id} cannot be decoded: {detail}")]
    Record {
        /// The kind of the record: `task`, `sandbox` or `notification`.
        what: &'static str,
        /// The id or sequence.
        id: String,
        /// Kind and place of the fault.
        detail: String,
    },
    /// A record cannot be encoded, such as one with a time before 1970.
    #[error("a record cannot be encoded")]
    Unstorable(#[source] serde_json::Error),
}

impl StoreError {
    /// True when the change was refused before it had changed anything.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::TooManyForBot { .. }
            | Self::TooManyForTenant { .. }
            | Self::TooManyQueuedForBot { .. }
            | Self::TooManyQueuedForTenant { .. }
            | Self::TooMuchQueued { .. }
            | Self::TooManyStored { .. }
            | Self::TooMuchStored { .. }
            | Self::Conflict => true,
            Self::Busy
            | Self::DiskFull
            | Self::TooNew { .. }
            | Self::Unusable { .. }
            | Self::InUse { .. }
            | Self::Unwritable(_)
            | Self::Closed
            | Self::Database(_)
            | Self::Record { .. }
            | Self::Unstorable(_) => false,
        }
    }
}
