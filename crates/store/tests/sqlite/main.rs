//! The conformance suite on SQLite, and what only SQLite does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod ages;
mod commits;
mod fairness;
mod migrations;
mod opening;
mod place;
mod writes;

use place::SqlitePlace;

errand_store::store_conformance!(SqlitePlace);
