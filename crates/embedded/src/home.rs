//! Where the sandboxes are on the disk: a directory for each, which is also its lock.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use errand_runtime::RuntimeError;

/// The longest name of a sandbox, in bytes.
const NAME_LIMIT: usize = 128;
/// Beside the sandboxes: programs that they run. No sandbox has a name that begins with a dot.
const PROGRAMS: &str = ".bin";
/// Beside the sandboxes: images that were unpacked.
const IMAGES: &str = ".images";
/// What a directory is called while it is being removed, and a number.
const GONE: &str = ".gone-";

/// The directory of all sandboxes of a server.
#[derive(Debug)]
pub(super) struct Home {
    sandboxes: PathBuf,
}

/// The directory of one sandbox. Nobody else changes the sandbox as long as this is held.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    _lock: File,
}

impl Home {
    /// The sandboxes below a data directory. Nothing is made yet.
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { sandboxes: data_dir.join("sandboxes") }
    }

    /// The path of a sandbox's directory; none for what is no name.
    pub(super) fn path_of(&self, name: &str) -> Option<PathBuf> {
        is_name(name).then(|| self.path(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandboxes.join(name)
    }

    /// Holds a sandbox that is there; none when there is none.
    pub(super) fn hold(&self, name: &str) -> Result<Option<Held>, RuntimeError> {
        if !is_name(name) {
            return Ok(None);
        }
        hold(self.path(name)).map_err(|error| refused("holding the sandbox's directory", &error))
    }

    /// Makes the directory of a sandbox and holds it. One that is there is taken.
    pub(super) fn make(&self, name: &str) -> Result<Held, RuntimeError> {
        if !is_name(name) {
            let detail = format!(
                "the name {name:?} of a sandbox: at most {NAME_LIMIT} letters, digits, '-', '_' and '.', the first a letter or digit"
            );
            return Err(RuntimeError::Refused { detail });
        }
        let make = || -> io::Result<Held> {
            loop {
                private_directory(&self.path(name))?;
                // Another may have removed it at once.
                if let Some(held) = hold(self.path(name))? {
                    return Ok(held);
                }
            }
        };
        make().map_err(|error| refused("making the sandbox's directory", &error))
    }

    /// The directories of all sandboxes.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.sandboxes) else { return Vec::new() };
        let named = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_name));
        named.map(|entry| entry.path()).collect()
    }

    /// Takes a sandbox's directory out of the way. From then on the sandbox is gone, whether or not all of it can be removed at once.
    pub(super) fn discard(&self, held: Held) -> io::Result<PathBuf> {
        let gone = self.sandboxes.join(format!("{GONE}{}", uuid::Uuid::new_v4().simple()));
        fs::rename(&held.path, &gone)?;
        Ok(gone)
    }

    /// What was taken out of the way and not removed, because a server ended meanwhile.
    pub(super) fn leftovers(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.sandboxes) else { return Vec::new() };
        let gone = entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(GONE.as_bytes()));
        gone.map(|entry| entry.path()).collect()
    }

    /// Where images are unpacked.
    pub(super) fn images(&self) -> PathBuf {
        self.sandboxes.join(IMAGES)
    }

    /// Puts a program where sandboxes can run it. Its name holds what it is made of.
    pub(super) fn program(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        let path = self.sandboxes.join(PROGRAMS).join(name);
        if !path.exists() {
            private_directory(&self.sandboxes.join(PROGRAMS))?;
            write_whole(&path, content, 0o755)?;
        }
        Ok(path)
    }
}

impl Held {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing was made of the sandbox yet.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        Ok(fs::read_dir(&self.path)?.next().is_none())
    }
}

/// Opens a directory and locks it; none when it is not there, or not any more.
fn hold(path: PathBuf) -> io::Result<Option<Held>> {
    loop {
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive))?;
        // Who held it before may have removed it, and another may have made it again.
        let held = lock.metadata()?;
        match fs::symlink_metadata(&path) {
            Ok(now) if (now.dev(), now.ino()) == (held.dev(), held.ino()) => {
                return Ok(Some(Held { path, _lock: lock }));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Whether a sandbox may be called that: it becomes the name of directories.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    name.len() <= NAME_LIMIT
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || b"-_.".contains(&byte))
}

/// Makes a directory for this user alone.
pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file so that it is there whole or not at all, also after a crash.
pub(super) fn write_whole(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let part = path.with_extension(format!("{}.part", uuid::Uuid::new_v4().simple()));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&part)?;
    let written = file
        .write_all(content)
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

/// A path to what lies in an open directory, short enough for the address of a socket however long the directory's own is.
pub(super) fn short_path(directory: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

/// An error of this machine: the sandbox cannot be kept as it should.
pub(super) fn refused(what: &str, error: &dyn std::fmt::Display) -> RuntimeError {
    RuntimeError::Refused { detail: format!("{what}: {error}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["errand-0199", "a", "A.b_c-1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".bin", "..", "a/b", "a b", "ä", "-a", &"x".repeat(NAME_LIMIT + 1)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_directory_is_held_by_one_at_a_time_and_gone_when_it_is_discarded() {
        let data = tempfile::tempdir().unwrap();
        let home = Home::new(data.path());
        assert!(home.hold("a").unwrap().is_none());
        let held = home.make("a").unwrap();
        let path = home.path("a");
        let waiting = std::thread::spawn(move || hold(path).unwrap().is_none());
        let gone = home.discard(held).unwrap();
        assert!(waiting.join().unwrap(), "who waited finds it gone");
        assert_eq!(home.leftovers(), [gone]);
        assert!(home.all().is_empty());
    }
}
