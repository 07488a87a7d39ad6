//! What a sandbox sees as its file system: the programs of this machine, or those of an image.

mod archive;
mod etc;
mod host;
mod image;
mod layer;
mod tree;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub(super) use etc::Etc;
pub(super) use image::Images;

use errand_runtime::RuntimeError;
use errand_task::SandboxSpec;

/// The name of the user inside, unless the sandbox's request or its image says another.
pub(super) const USER: &str = "errand";
/// The number of that user and its group.
pub(super) const UID: u32 = 1000;
/// The image that is none: this machine's programs.
const HOST: &str = "host";

/// Where the root of a sandbox comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Root {
    /// The programs of this machine, and nothing that belongs to anybody.
    Host,
    /// A directory that is not to be changed.
    Shared(PathBuf),
    /// The sandbox's own copy of a directory.
    Copy(PathBuf),
}

impl Root {
    /// The root that a sandbox is to have. An archive is unpacked for it.
    ///
    /// # Errors
    /// [`RuntimeError::NoSuchImage`], or [`RuntimeError::Refused`] for what this root cannot be.
    pub(super) fn of(spec: &SandboxSpec, images: &Images) -> Result<Self, RuntimeError> {
        match &*spec.image {
            "" | HOST if spec.writable_root => Err(RuntimeError::Refused {
                detail: "writable_root: the programs of this machine cannot be written; give an image, or leave it out"
                    .to_owned(),
            }),
            "" | HOST => Ok(Self::Host),
            image => {
                let directory = images.provide(image)?;
                Ok(if spec.writable_root { Self::Copy(directory) } else { Self::Shared(directory) })
            }
        }
    }

    /// The directory that it is made of; none for this machine's programs.
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Host => None,
            Self::Shared(directory) | Self::Copy(directory) => Some(directory),
        }
    }

    /// The users and groups inside.
    pub(super) fn etc(&self) -> Etc {
        match self.directory() {
            None => Etc::of_host(),
            Some(root) => Etc::of_image(image::text(root, "etc/passwd"), image::text(root, "etc/group")),
        }
    }

    /// The user of its processes, where nobody asks for another: `USER[:GROUP]`; none when it does not say.
    pub(super) fn user(&self) -> Option<String> {
        image::settings(self.directory()?).user.filter(|user| !user.is_empty())
    }

    /// The environment that it wants for its processes.
    pub(super) fn env(&self) -> BTreeMap<String, String> {
        let env = self.directory().and_then(|root| image::settings(root).env).unwrap_or_default();
        env.iter()
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The arguments that put it together. `seen` is where its directory, or the copy of that, lies for bubblewrap, and `etc` where the
    /// files of [`Root::etc`] are.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn arguments(&self, seen: &Path, etc: &Path) -> io::Result<Vec<String>> {
        match self {
            Self::Host => Ok(host::arguments(etc)),
            Self::Shared(root) => image::arguments(root, seen, etc),
            Self::Copy(root) => {
                let mut arguments = vec!["--bind".to_owned(), seen.to_string_lossy().into_owned(), "/".to_owned()];
                arguments.extend(image::over_etc(root, etc));
                Ok(arguments)
            }
        }
    }

    /// Whether the sandbox may write to it.
    pub(super) fn is_writable(&self) -> bool {
        matches!(self, Self::Copy(_))
    }
}

/// The directories of the machine's programs: each is there, and a link to where it leads, if it is one.
pub(super) fn programs() -> Vec<(&'static str, Option<String>)> {
    host::programs()
}
