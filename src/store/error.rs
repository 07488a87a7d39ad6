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
    /// A record cannot be understood.
    #[error("a stored record cannot be understood")]
    Record(#[source] serde_json::Error),
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Record(error)
    }
}
