//! What a sandbox sees as its file system: the programs of this machine, or those of an image.

mod etc;
mod host;

use std::path::Path;

pub(super) use etc::Etc;

use crate::{runtime::RuntimeError, task::SandboxSpec};

/// The name of the user inside, unless the sandbox's request says another.
pub(super) const USER: &str = "errand";
/// The number of that user and its group.
pub(super) const UID: u32 = 1000;

/// Where the root of a sandbox comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Root {
    /// The programs of this machine, and nothing that belongs to anybody.
    Host,
}

impl Root {
    /// The root that a sandbox is to have.
    ///
    /// # Errors
    /// [`RuntimeError::NoSuchImage`], or [`RuntimeError::Refused`] for what this root cannot be.
    pub(super) fn of(spec: &SandboxSpec) -> Result<Self, RuntimeError> {
        match &*spec.image {
            "" | "host" if spec.writable_root => Err(RuntimeError::Refused {
                detail: "writable_root: the programs of this machine cannot be written; give an image, or leave it out"
                    .to_owned(),
            }),
            "" | "host" => Ok(Self::Host),
            image => Err(RuntimeError::NoSuchImage { image: image.to_owned() }),
        }
    }

    /// The files that say who is who inside, and how names are resolved.
    pub(super) fn etc(&self) -> Etc {
        Etc::of_host()
    }

    /// What of this machine has to be seen while the sandbox is made, beside the sandbox's own files.
    pub(super) fn sources(&self) -> Vec<String> {
        Vec::new()
    }

    /// Arguments that put it together. `etc` is where the files of [`Root::etc`] are.
    pub(super) fn arguments(&self, etc: &Path) -> Vec<String> {
        match self {
            Self::Host => host::arguments(etc),
        }
    }
}

/// The directories of the machine's programs: each is there, and a link to where it leads, if it is one.
pub(super) fn programs() -> Vec<(&'static str, Option<String>)> {
    host::programs()
}
