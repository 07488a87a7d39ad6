//! The part of Errand that lives inside a sandbox, and makes those that no container engine makes.
//!
//! One binary, several kinds of process: `connect` is what the server starts through an exec, and finds or starts the *bridge*, which speaks
//! gRPC to the server; the *spawner* makes processes for it; and one *shim* for each task keeps its command, its log and its exit file. A shim
//! outlives the bridge, and the bridge outlives the server. Where there is no engine, `launch` makes the sandbox and `init` is its first process.

pub mod connect;
mod exec;
pub mod fence;
pub mod files;
pub mod idle;
pub mod init;
pub mod launch;
pub mod log_reader;
mod own_file;
pub mod process;
pub mod put;
mod serve;
mod service;
mod shim;
pub mod socket;
mod spawner;
pub mod streams;
mod streams_io;
pub mod task_dir;

pub use service::PROTOCOL;
