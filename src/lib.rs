//! Errand runs an agent's long commands inside its sandbox, records reliably how each one ended, and notifies the agent loop when something
//! happened. See `ARCHITECTURE.md` for the map and the invariants.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod guest;
pub mod telemetry;
mod toml_lines;
