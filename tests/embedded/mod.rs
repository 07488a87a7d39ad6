//! Tests of behaviour that only embedded sandboxes have.

mod inside;
mod life;
mod network;
