//! The root file system of a sandbox: the host's programs, or an image.

mod archive;
mod etc;
mod host_programs;
mod image;
mod images;
mod layer;
mod tree;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub(super) use etc::Etc;
pub(super) use host_programs::directories as host_programs;
pub(super) use images::Images;

use errand_runtime::RuntimeError;
use errand_task::SandboxSpec;

/// The name of the user inside, unless the request or the image names another.
pub(super) const USER: &str = "errand";
/// The id of that user and of its group.
pub(super) const UID: u32 = 1000;
/// The name of the image that stands for the host's programs.
const HOST: &str = "host";

/// The source of a sandbox's root. A part of its stored record: the names of the variants stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Root {
    /// The host's programs, read-only.
    Host,
    /// An image's directory, read-only.
    Shared(PathBuf),
    /// A writable copy of an image's directory.
    Copy(PathBuf),
}

impl Root {
    /// The root for a specification. Unpacks the image if it is an archive.
    ///
    /// # Errors
    /// [`RuntimeError::NoSuchImage`]; [`RuntimeError::Refused`] for a writable root without an image, and for a broken archive.
    pub(super) fn of(spec: &SandboxSpec, images: &Images) -> Result<Self, RuntimeError> {
        match &*spec.image {
            "" | HOST if spec.writable_root => Err(RuntimeError::Refused {
                detail: "writable_root: the host's programs are read-only; name an image, or leave writable_root out"
                    .to_owned(),
            }),
            "" | HOST => Ok(Self::Host),
            image => {
                let directory = images.directory(image)?;
                Ok(if spec.writable_root { Self::Copy(directory) } else { Self::Shared(directory) })
            }
        }
    }

    /// The image's directory; none for the host's programs.
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Host => None,
            Self::Shared(directory) | Self::Copy(directory) => Some(directory),
        }
    }

    /// The users and groups of this root.
    pub(super) fn etc(&self) -> Etc {
        match self.directory() {
            None => Etc::of_host(),
            Some(root) => Etc::of_image(image::text(root, "etc/passwd"), image::text(root, "etc/group")),
        }
    }

    /// The user that the image names for its processes, as `USER[:GROUP]`; none when it names none.
    pub(super) fn user(&self) -> Option<String> {
        image::settings(self.directory()?).user.filter(|user| !user.is_empty())
    }

    /// The environment variables that the image sets for its processes.
    pub(super) fn env(&self) -> BTreeMap<String, String> {
        let env = self.directory().and_then(|root| image::settings(root).env).unwrap_or_default();
        env.iter()
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// Bubblewrap's arguments for this root. `directory`: the image's directory, or its copy, as bubblewrap sees it. `etc`: the directory with
    /// the files of [`Root::etc`].
    ///
    /// # Errors
    /// When the image's directory cannot be read.
    pub(super) fn arguments(&self, directory: &Path, etc: &Path) -> io::Result<Vec<String>> {
        match self {
            Self::Host => Ok(host_programs::arguments(etc)),
            Self::Shared(root) => image::arguments(root, directory, etc),
            Self::Copy(root) => {
                let mut arguments = vec!["--bind".to_owned(), directory.to_string_lossy().into_owned(), "/".to_owned()];
                arguments.extend(image::etc_arguments(root, etc));
                Ok(arguments)
            }
        }
    }

    /// Whether commands can write to it.
    pub(super) fn is_writable(&self) -> bool {
        matches!(self, Self::Copy(_))
    }
}
