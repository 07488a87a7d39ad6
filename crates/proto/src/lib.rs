//! The generated types of Errand's protocols: of the public one, with the feature `public`, and of those between the server and the guest.
//!
//! Nothing but the edges uses them: inside the server the types of `errand-task` speak.

pub mod frame;
#[cfg(feature = "public")]
mod public;

#[cfg(feature = "public")]
pub use public::{DESCRIPTORS, Malformed, v1};

/// Package `errand.bridge.v1`: between the server and the bridge in a sandbox.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code; the comments are in proto/")]
pub mod bridge {
    tonic::include_proto!("errand.bridge.v1");
}

/// Package `errand.init.v1`: between the server and the first process of an embedded sandbox.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code; the comments are in proto/")]
pub mod init {
    tonic::include_proto!("errand.init.v1");
}
