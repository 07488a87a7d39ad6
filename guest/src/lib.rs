//! The guest: the part of Errand that lives inside a sandbox, and the launcher that makes embedded sandboxes.
//!
//! One binary, several kinds of process. `connect` is what the server starts through an exec; it finds or starts the *bridge process*,
//! which speaks gRPC to the server. The *spawner* forks processes for the bridge process. One *shim* per task supervises the command and
//! writes its log and its exit file. A shim outlives the bridge process, and the bridge process outlives the server. Without a container
//! engine, `launch` makes the sandbox and `init` is its first process.

pub mod connect;
mod descriptors;
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
mod spawner;
pub mod streams;
mod streams_io;
pub mod task_dir;

pub use service::PROTOCOL;
