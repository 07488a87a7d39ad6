//! Why the store did not do something, by what the caller can do about it.

use std::{error::Error, sync::Arc};

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bot has as many unfinished tasks as it may.
    #[error("the bot has {running} unfinished tasks and may have {limit}")]
    TooManyForBot {
        /// How many it has.
        running: u32,
        /// How many it may have.
        limit: u32,
    },
    /// The tenant has as many unfinished tasks as it may.
    #[error("the tenant has {running} unfinished tasks and may have {limit}")]
    TooManyForTenant {
        /// How many it has.
        running: u32,
        /// How many it may have.
        limit: u32,
    },
    /// The tenant has as many stored tasks as it may.
    #[error(
        "the tenant has {stored} stored tasks and may have {limit}: finished tasks go when their retention is over; \
         wait for that, or raise max-stored-tasks-per-tenant"
    )]
    TooManyStored {
        /// How many it has.
        stored: u64,
        /// How many it may have.
        limit: u64,
    },
    /// The tenant's stored tasks and notifications take as much room as they may.
    #[error(
        "the tenant's stored tasks and notifications have {stored} bytes and may have {limit}: they go when their retention is \
         over; acknowledge notifications, wait, or raise max-stored-bytes-per-tenant"
    )]
    TooMuchStored {
        /// How many bytes they have.
        stored: u64,
        /// How many they may have.
        limit: u64,
    },
    /// Too many reads are waiting, or one took too long.
    #[error("the database has too much to read for this tenant at the moment; try again")]
    Busy,
    /// The disk of the database is full.
    #[error("the disk of the server's database is full: nothing was stored; make room in the server's data directory")]
    DiskFull,
    /// The record was changed by somebody else, or is final.
    #[error("the record was changed in the meantime or is final")]
    Conflict,
    /// The database was written by a newer Errand.
    #[error(
        "the database has schema version {found}; this server knows versions up to {known}: run a newer Errand, or use another data directory"
    )]
    TooNew {
        /// Its schema version.
        found: i64,
        /// The newest known one.
        known: i64,
    },
    /// The file is not a database, or is damaged.
    #[error("{path} is not an Errand database: {detail}")]
    NotADatabase {
        /// The file.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Another server uses the database.
    #[error("{path} is in use by another server: stop that one, or use another data directory")]
    InUse {
        /// The database file.
        path: String,
    },
    /// The file or its directory cannot be opened for writing.
    #[error("{path} cannot be opened for writing")]
    Unwritable {
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The database failed. Shared, because one failed commit is the failure of every change in it.
    #[error("the database failed")]
    Database(#[source] Arc<dyn Error + Send + Sync>),
    /// A stored record cannot be understood. Says where, and never what stands there: records hold secrets.
    #[error("the stored record of {what} {id} cannot be understood: {detail}")]
    Record {
        /// What it is a record of: `task`, `sandbox` or `notification`.
        what: &'static str,
        /// Which one.
        id: String,
        /// Kind and place of the fault.
        detail: String,
    },
    /// A record cannot be written as text, such as one with a time before 1970.
    #[error("a record cannot be stored")]
    Unstorable(#[source] serde_json::Error),
}

impl StoreError {
    /// True when the change was refused before it had changed anything.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::TooManyForBot { .. }
            | Self::TooManyForTenant { .. }
            | Self::TooManyStored { .. }
            | Self::TooMuchStored { .. }
            | Self::Conflict => true,
            Self::Busy
            | Self::DiskFull
            | Self::TooNew { .. }
            | Self::NotADatabase { .. }
            | Self::InUse { .. }
            | Self::Unwritable { .. }
            | Self::Closed
            | Self::Database(_)
            | Self::Record { .. }
            | Self::Unstorable(_) => false,
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Unstorable(error)
    }
}
