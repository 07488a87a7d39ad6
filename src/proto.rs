//! The wire types of `errand.v1`, generated from `proto/`, and their descriptors.
//!
//! Nothing but `api` and `cli` uses them: inside, the types of [`crate::task`] speak.

/// Package `errand.v1`.
#[allow(missing_docs, clippy::all, reason = "generated code; the comments are in proto/")]
pub mod v1 {
    tonic::include_proto!("errand.v1");
}

/// The encoded `FileDescriptorSet` of `errand.v1` and all it imports, with comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/errand.v1.binpb"));
