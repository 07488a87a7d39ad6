//! What only the resident bridge does, in real containers of both images.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod resident {
    mod bridges;
    mod commands;
    mod input;
    mod output;
    pub mod place;
    mod shims;
    mod silence;
}
mod support;
