//! Errand runs an agent's long commands inside its sandbox, keeps the truth about how each one ended, and tells the agent loop
//! when something happened. See `ARCHITECTURE.md` for the map and the invariants.

pub mod api;
pub mod app;
pub mod bridge;
pub mod cli;
pub mod config;
pub mod engine;
pub mod gather;
pub mod notify;
pub mod proto;
pub mod runtime;
pub mod store;
pub mod task;
pub mod telemetry;
