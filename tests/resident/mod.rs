//! Tests of behaviour that only the resident bridge has, in real containers of both images.

mod bridges;
mod commands;
mod input;
mod output;
pub mod place;
mod shims;
mod silence;
mod watches;
