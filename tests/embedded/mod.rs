//! What only sandboxes do that need no container engine.

mod inside;
mod life;
mod network;
