//! The generated types of Errand's protocols: the internal ones between server and guest and, with the feature `public`, the public one.
//!
//! Only the code at the edges uses them. Inside the server, values have the types of `errand-task`.

mod file_problem;
pub mod frame;
#[cfg(feature = "public")]
mod public;
mod redacted;

#[cfg(feature = "public")]
pub use public::{DESCRIPTORS, Malformed, v1};

/// Package `errand.bridge.v1`: between the server and the bridge process, and between the bridge process and a shim.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code; the comments are in proto/")]
pub mod bridge {
    tonic::include_proto!("errand.bridge.v1");
}

/// Package `errand.init.v1`: between the server and the first process of an embedded sandbox.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code; the comments are in proto/")]
pub mod init {
    tonic::include_proto!("errand.init.v1");
}
