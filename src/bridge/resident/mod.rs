//! The bridge that stays in the sandbox, seen from the server.

mod files;
mod proto;

pub use files::ResidentFiles;
