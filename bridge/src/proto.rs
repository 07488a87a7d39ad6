//! The generated types of `errand.bridge.v1`.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

tonic::include_proto!("errand.bridge.v1");

/// The generated types of `errand.init.v1`.
pub mod init {
    tonic::include_proto!("errand.init.v1");
}
