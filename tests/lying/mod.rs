//! The parts of the suite of lies. The benchmark runs them too.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

pub mod catalogue;
pub mod honest;
pub mod liar;
pub mod memory;
pub mod suite;
