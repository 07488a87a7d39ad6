//! The part of Errand that lives inside a sandbox.
//!
//! One binary, three kinds of process: the *bridge* (`serve`) speaks gRPC to the server, the *spawner* makes processes for it, and one *shim*
//! for each task keeps its command, its log and its exit file. A shim outlives the bridge, and the bridge outlives the server.

pub mod files;
pub mod proto;
