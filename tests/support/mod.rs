//! What several test programs share.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses a part of it")]

pub mod docker;
