//! The directories of sandboxes in the server's data directory. The directory of a sandbox is also the lock for changes of that sandbox.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use super::{
    error::refused,
    files::{create_private_directory, write_atomically},
};
use errand_runtime::RuntimeError;

/// The longest name of a sandbox, in bytes.
const NAME_LIMIT: usize = 128;
/// The directory of programs that sandboxes run. Like the next two, its name begins with a dot, which the name of a sandbox cannot.
const PROGRAMS: &str = ".bin";
/// The directory of unpacked images.
const IMAGES: &str = ".images";
/// Prefix of a sandbox's directory during its removal. A random number follows.
const DISCARDED: &str = ".gone-";

/// The directory that contains the directories of all sandboxes.
#[derive(Debug)]
pub(super) struct SandboxDirectories {
    sandboxes: PathBuf,
}

/// The locked directory of one sandbox. While it is locked, no other thread and no other server changes the sandbox.
#[derive(Debug)]
pub(super) struct LockedDirectory {
    path: PathBuf,
    _lock: File,
}

impl SandboxDirectories {
    /// The directories in a data directory. Makes nothing.
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { sandboxes: data_dir.join("sandboxes") }
    }

    /// The path of a sandbox's directory; none for an invalid name.
    pub(super) fn path_of(&self, name: &str) -> Option<PathBuf> {
        is_valid(name).then(|| self.path(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandboxes.join(name)
    }

    /// Locks the directory of a sandbox; none when the sandbox does not exist.
    pub(super) fn lock(&self, name: &str) -> Result<Option<LockedDirectory>, RuntimeError> {
        if !is_valid(name) {
            return Ok(None);
        }
        lock(self.path(name)).map_err(|error| refused("locking the sandbox's directory", &error))
    }

    /// Locks the directory of a sandbox, and makes it first when it does not exist.
    pub(super) fn make(&self, name: &str) -> Result<LockedDirectory, RuntimeError> {
        if !is_valid(name) {
            let detail = format!(
                "invalid sandbox name {name:?}: use at most {NAME_LIMIT} letters, digits, '-', '_' and '.', beginning with a letter or digit"
            );
            return Err(RuntimeError::Refused { detail });
        }
        let make = || -> io::Result<LockedDirectory> {
            loop {
                create_private_directory(&self.path(name))?;
                // Another thread or server can remove the directory before it is locked.
                if let Some(locked) = lock(self.path(name))? {
                    return Ok(locked);
                }
            }
        };
        make().map_err(|error| refused("making the sandbox's directory", &error))
    }

    /// The directories of all sandboxes.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.sandboxes) else { return Vec::new() };
        let named = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_valid));
        named.map(|entry| entry.path()).collect()
    }

    /// Renames a sandbox's directory, and returns the new path. From then on the sandbox does not exist, even if a part of its files
    /// cannot be removed at once.
    pub(super) fn discard(&self, locked: LockedDirectory) -> io::Result<PathBuf> {
        let discarded = self.sandboxes.join(format!("{DISCARDED}{}", uuid::Uuid::new_v4().simple()));
        fs::rename(&locked.path, &discarded)?;
        Ok(discarded)
    }

    /// Discarded directories that a server did not remove, because it ended first.
    pub(super) fn leftovers(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.sandboxes) else { return Vec::new() };
        let discarded = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(DISCARDED.as_bytes());
        entries.flatten().filter(discarded).map(|entry| entry.path()).collect()
    }

    /// The directory of unpacked images.
    pub(super) fn images(&self) -> PathBuf {
        self.sandboxes.join(IMAGES)
    }

    /// Writes a program into the directory of programs, unless it exists. Its name must contain a digest of its content.
    pub(super) fn program(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        let path = self.sandboxes.join(PROGRAMS).join(name);
        if !path.exists() {
            create_private_directory(&self.sandboxes.join(PROGRAMS))?;
            write_atomically(&path, content, 0o755)?;
        }
        Ok(path)
    }
}

impl LockedDirectory {
    /// The path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory has no content yet.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        Ok(fs::read_dir(&self.path)?.next().is_none())
    }
}

/// Opens a directory and locks it; none when it does not exist.
fn lock(path: PathBuf) -> io::Result<Option<LockedDirectory>> {
    loop {
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive))?;
        // The previous holder of the lock may have removed the directory, and another call may have made a new one.
        let locked = lock.metadata()?;
        match fs::symlink_metadata(&path) {
            Ok(current) if (current.dev(), current.ino()) == (locked.dev(), locked.ino()) => {
                return Ok(Some(LockedDirectory { path, _lock: lock }));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Whether a sandbox can have this name, which becomes the name of its directory.
fn is_valid(name: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_alphanumeric();
    name.len() <= NAME_LIMIT
        && name.bytes().next().is_some_and(alphanumeric)
        && name.bytes().all(|byte| alphanumeric(byte) || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_plain_names_are_valid() {
        for good in ["errand-0199", "a", "A.b_c-1"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", ".bin", "..", "a/b", "a b", "ä", "-a", &"x".repeat(NAME_LIMIT + 1)] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn waiter_for_a_discarded_directory_finds_none() {
        let data = tempfile::tempdir().unwrap();
        let directories = SandboxDirectories::new(data.path());
        assert!(directories.lock("a").unwrap().is_none());
        let locked = directories.make("a").unwrap();
        let path = directories.path("a");
        let waiting = std::thread::spawn(move || lock(path).unwrap().is_none());
        let discarded = directories.discard(locked).unwrap();
        assert!(waiting.join().unwrap(), "the waiter finds no directory");
        assert_eq!(directories.leftovers(), [discarded]);
        assert!(directories.all().is_empty());
    }
}
