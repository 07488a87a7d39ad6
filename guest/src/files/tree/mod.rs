//! A directory with everything in it, as a tar stream.
//!
//! `archive` reads the format, and is pure. `pack` writes a tree, `unpack` makes one. Both work in steps, so that a slow client holds no
//! thread, and walk by descriptors that follow no link.

pub mod archive;
pub(super) mod pack;
pub(super) mod unpack;

use errand_task::FileProblem;

use super::refusal::Refusal;

/// The deepest directory of a tree. A descriptor is open for each level of a tree that is read.
pub(super) const DEPTH_LIMIT: usize = 128;

fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal { problem: FileProblem::InvalidArchive, detail: detail.into() }
}

fn too_deep() -> Refusal {
    Refusal { problem: FileProblem::InvalidPath, detail: format!("more than {DEPTH_LIMIT} directories in each other") }
}
