//! The generated types of `errand.bridge.v1`.

#![allow(missing_docs, dead_code, clippy::all, clippy::pedantic, reason = "generated code; the comments are in proto/")]

tonic::include_proto!("errand.bridge.v1");
