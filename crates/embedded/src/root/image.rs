//! Images: directories and archives that are a sandbox's root instead of this machine's programs.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use super::{archive, archive::Settings, etc, tree::Tree};
use crate::home::{private_directory, refused, write_whole};
use errand_runtime::RuntimeError;

/// What an unpacked image is.
const ROOT: &str = "root";
/// What it says of its processes.
const SETTINGS: &str = "settings.json";
/// What a compressed archive is while it is unpacked.
const SCRATCH: &str = "archive";
/// What is being unpacked.
const PART: &str = ".part-";
/// The most of a list of users that is read, in bytes.
const LISTED: u64 = 1 << 20;

/// Images that were unpacked, and where others may come from.
#[derive(Debug)]
pub(crate) struct Images {
    unpacked: PathBuf,
    /// What sandboxes may have as their root, or whatever is below it: not every path of this machine is for everybody who may ask.
    allowed: Vec<PathBuf>,
}

impl Images {
    pub(crate) fn new(unpacked: PathBuf, allowed: &[PathBuf]) -> Self {
        Self { unpacked, allowed: allowed.to_vec() }
    }

    /// The directory of an image, unpacked if it is an archive.
    ///
    /// # Errors
    /// [`RuntimeError::NoSuchImage`]; [`RuntimeError::Refused`] for one that cannot be unpacked.
    pub(super) fn provide(&self, image: &str) -> Result<PathBuf, RuntimeError> {
        let no_such = || RuntimeError::NoSuchImage { image: image.to_owned() };
        let asked = Path::new(image);
        if !asked.is_absolute() {
            return Err(no_such());
        }
        // By its real name, so that no link leads out of what is allowed.
        let path = fs::canonicalize(asked).map_err(|_| no_such())?;
        let allowed = self.allowed.iter().filter_map(|allowed| fs::canonicalize(allowed).ok());
        if !allowed.into_iter().any(|allowed| path.starts_with(allowed)) {
            return Err(no_such());
        }
        let metadata = fs::metadata(&path).map_err(|_| no_such())?;
        if metadata.is_dir() {
            return Ok(path);
        }
        let identity = format!(
            "{}:{}:{}:{}:{}",
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            metadata.mtime(),
            metadata.mtime_nsec()
        );
        let digest = hex::encode(&Sha256::digest(identity)[..16]);
        let directory = self.unpacked.join(digest);
        if !directory.exists() {
            self.unpack(&path, &directory).map_err(|error| refused(&format!("image {image:?}"), &error))?;
        }
        Ok(directory.join(ROOT))
    }

    fn unpack(&self, archive: &Path, directory: &Path) -> io::Result<()> {
        private_directory(&self.unpacked)?;
        let part = self.unpacked.join(format!("{PART}{}", uuid::Uuid::new_v4().simple()));
        private_directory(&part.join(ROOT))?;
        let lock = File::open(&part)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        let unpacked = fill(archive, &part).and_then(|()| match fs::rename(&part, directory) {
            // Somebody else was faster.
            Err(_) if directory.exists() => fs::remove_dir_all(&part),
            other => other,
        });
        if unpacked.is_err() {
            let _ = fs::remove_dir_all(&part);
        }
        unpacked
    }

    /// What a server left that ended while it unpacked.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.unpacked) else { return Vec::new() };
        let parts = entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PART.as_bytes()));
        // Whoever is still at it holds the lock.
        let is_left = |path: &PathBuf| {
            File::open(path)
                .is_ok_and(|part| rustix::fs::flock(&part, FlockOperation::NonBlockingLockExclusive).is_ok())
        };
        parts.map(|entry| entry.path()).filter(is_left).collect()
    }
}

fn fill(archive: &Path, part: &Path) -> io::Result<()> {
    let root = part.join(ROOT);
    let tree = Tree::open(&root)?;
    let settings = archive::unpack(archive, &part.join(SCRATCH), &tree)?;
    // What is written for each sandbox is laid over files of that name, which must be there.
    for name in etc::NAMES {
        let path = format!("etc/{name}");
        let content = tree.read(&path, LISTED)?.unwrap_or_default();
        tree.file(Path::new(&path), 0o644, &mut content.as_bytes())?;
    }
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
    write_whole(&part.join(SETTINGS), &serde_json::to_vec(&settings)?, 0o600)
}

/// What an image says of its processes; nothing for one that was not unpacked here.
pub(super) fn settings(root: &Path) -> Settings {
    let text = root.parent().and_then(|directory| fs::read(directory.join(SETTINGS)).ok());
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// A file of an image, as a text.
pub(super) fn text(root: &Path, path: &str) -> String {
    let read = Tree::open(root).and_then(|tree| tree.read(path, LISTED));
    read.ok().flatten().unwrap_or_default()
}

/// Names in the root of a sandbox that are never the image's.
const OURS: [&str; 6] = ["proc", "dev", "sys", "tmp", "workspace", "run"];

/// The arguments that show an image without letting it be written. `seen` is where the image lies for bubblewrap.
pub(super) fn arguments(root: &Path, seen: &Path, etc: &Path) -> io::Result<Vec<String>> {
    let mut arguments = Vec::new();
    let mut add = |words: [&str; 3]| arguments.extend(words.map(str::to_owned));
    let mut entries = fs::read_dir(root)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if OURS.contains(&&*name) {
            continue;
        }
        let target = format!("/{name}");
        if entry.file_type()?.is_symlink() {
            add(["--symlink", &fs::read_link(entry.path())?.to_string_lossy(), &target]);
        } else {
            add(["--ro-bind", &seen.join(&name).to_string_lossy(), &target]);
        }
    }
    arguments.extend(over_etc(root, etc));
    Ok(arguments)
}

/// The arguments that lay files over those of an image's `/etc`.
pub(super) fn over_etc(root: &Path, etc: &Path) -> Vec<String> {
    let is_directory = |path: PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let is_file = |path: PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    if !is_directory(root.join("etc")) {
        return Vec::new();
    }
    let there = etc::NAMES.into_iter().filter(|name| is_file(root.join("etc").join(name)));
    there
        .flat_map(|name| {
            ["--ro-bind".to_owned(), etc.join(name).to_string_lossy().into_owned(), format!("/etc/{name}")]
        })
        .collect()
}
