//! The generated types of `errand.init.v1`.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/errand.init.v1.rs"));
