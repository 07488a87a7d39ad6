//! Errand runs an agent's long commands inside its sandbox, keeps the truth about how each one ended, and tells the agent loop
//! when something happened. See `ARCHITECTURE.md` for the map and the invariants.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod guest;
pub mod telemetry;
