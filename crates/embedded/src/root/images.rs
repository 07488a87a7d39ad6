//! The images that sandboxes may use, and the store of unpacked archives.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use super::{
    archive, etc,
    image::{FILE_LIMIT, SETTINGS},
    tree::Tree,
};
use crate::{
    error::refused,
    files::{create_private_directory, write_atomically},
    remove_tree::remove_tree,
};
use errand_runtime::RuntimeError;

/// The directory of an unpacked image's files.
const ROOT: &str = "root";
/// The uncompressed copy of an archive while it is unpacked.
const SCRATCH: &str = "archive";
/// Prefix of an image's directory while it is unpacked. A random number follows.
const PART: &str = ".part-";

/// The images that sandboxes may use.
#[derive(Debug)]
pub(crate) struct Images {
    unpacked: PathBuf,
    /// Paths of images, or of directories that contain images. Callers cannot use other paths of the host.
    allowed: Vec<PathBuf>,
}

impl Images {
    pub(crate) fn new(unpacked: PathBuf, allowed: &[PathBuf]) -> Self {
        Self { unpacked, allowed: allowed.to_vec() }
    }

    /// The directory with the files of an image. Unpacks the image at first use if it is an archive.
    ///
    /// # Errors
    /// [`RuntimeError::NoSuchImage`]; [`RuntimeError::Refused`] when the archive cannot be unpacked.
    pub(super) fn directory(&self, image: &str) -> Result<PathBuf, RuntimeError> {
        let no_such = || RuntimeError::NoSuchImage { image: image.to_owned() };
        let requested = Path::new(image);
        if !requested.is_absolute() {
            return Err(no_such());
        }
        // Resolved first, so that no symbolic link leads out of the allowed directories.
        let path = fs::canonicalize(requested).map_err(|_| no_such())?;
        let mut allowed = self.allowed.iter().filter_map(|allowed| fs::canonicalize(allowed).ok());
        if !allowed.any(|allowed| path.starts_with(allowed)) {
            return Err(no_such());
        }
        let metadata = fs::metadata(&path).map_err(|_| no_such())?;
        if metadata.is_dir() {
            return Ok(path);
        }
        let directory = self.unpacked.join(identity(&metadata));
        if !directory.exists() {
            self.unpack(&path, &directory).map_err(|error| refused(&format!("image {image:?}"), &error))?;
        }
        Ok(directory.join(ROOT))
    }

    fn unpack(&self, archive: &Path, directory: &Path) -> io::Result<()> {
        create_private_directory(&self.unpacked)?;
        let part = self.unpacked.join(format!("{PART}{}", uuid::Uuid::new_v4().simple()));
        create_private_directory(&part.join(ROOT))?;
        let lock = File::open(&part)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        let unpacked = fill(archive, &part).and_then(|()| match fs::rename(&part, directory) {
            // Another call has unpacked the same image meanwhile.
            Err(_) if directory.exists() => remove_tree(&part),
            other => other,
        });
        if unpacked.is_err() {
            let _ = remove_tree(&part);
        }
        unpacked
    }

    /// Directories of images that a server did not finish unpacking, because it ended first.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.unpacked) else { return Vec::new() };
        let parts = entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PART.as_bytes()));
        // A call that still unpacks holds the lock.
        let is_leftover = |path: &PathBuf| {
            File::open(path)
                .is_ok_and(|part| rustix::fs::flock(&part, FlockOperation::NonBlockingLockExclusive).is_ok())
        };
        parts.map(|entry| entry.path()).filter(is_leftover).collect()
    }
}

/// The name under which an archive is unpacked. A changed file has another name.
fn identity(archive: &fs::Metadata) -> String {
    let identity =
        format!("{}:{}:{}:{}:{}", archive.dev(), archive.ino(), archive.size(), archive.mtime(), archive.mtime_nsec());
    hex::encode(&Sha256::digest(identity)[..16])
}

/// Unpacks an archive into the directory of an image.
fn fill(archive: &Path, part: &Path) -> io::Result<()> {
    let root = part.join(ROOT);
    let tree = Tree::open(&root)?;
    let settings = archive::unpack(archive, &part.join(SCRATCH), &tree)?;
    // The files that are written for each sandbox are mounted over these, so these must exist.
    for name in etc::NAMES {
        let path = format!("etc/{name}");
        let content = tree.read(&path, FILE_LIMIT)?.unwrap_or_default();
        tree.write_file(Path::new(&path), 0o644, &mut content.as_bytes())?;
    }
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
    write_atomically(&part.join(SETTINGS), &serde_json::to_vec(&settings)?, 0o600)
}
