//! The durable records: tasks, sandboxes and notifications.
//!
//! [`TaskStore`] is the contract, [`conformance`] its tests, and [`SqliteStore`] keeps it in one file. A store decides nothing: the engine
//! computes a change, and the store commits it as a whole or not at all. It knows nothing of containers.

mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod notifications;
mod secrets;
mod sqlite;
mod store;
mod stored;
mod tasks;
mod wake_ups;

pub use clock::{Clock, SystemClock};
pub use error::StoreError;
pub use notifications::{LeaseRequest, Leased, NotificationPage, NotificationQuery, Scope, Selection};
pub use secrets::SealedSecrets;
pub use sqlite::SqliteStore;
pub use store::TaskStore;
pub use tasks::{BotFilter, Caps, Created, End, RemovedTasks, Retention, TaskPage, TaskQuery};

/// The size in bytes at which a page of tasks or notifications ends, whatever its limit: about the size of one answer to a client. Counted
/// are [`errand_task::Task::weight`] and [`errand_task::NewNotification::weight`].
pub const PAGE_BYTES: usize = 3 * 1024 * 1024;
