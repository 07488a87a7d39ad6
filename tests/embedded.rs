//! What only sandboxes do that need no container engine.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embedded {
    mod inside;
    mod life;
    mod network;
}
mod support;
