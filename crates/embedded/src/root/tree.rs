//! The directory that an image is unpacked into. The kernel resolves every path below that directory, whatever symbolic links an archive
//! contains.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, fchmod, linkat, mkdirat, open, openat, openat2, symlinkat},
    io::Errno,
};

use crate::remove_tree::remove_tree_at;

/// Resolves a path as if the tree were the root directory. Absolute links of an image therefore stay inside.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// An open directory that an image is unpacked into.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

/// A name in an open directory, whether a file of that name exists or not.
struct Entry {
    parent: OwnedFd,
    name: OsString,
}

impl Tree {
    /// Opens the directory of an image.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { root: open(root, OFlags::RDONLY | DIRECTORY, Mode::empty())? })
    }

    /// Makes a directory, and missing ones above it. Keeps an existing directory, and replaces anything else.
    pub(super) fn make_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        let Some(entry) = self.entry(path)? else { return Ok(()) };
        if let Err(errno) = mkdirat(&entry.parent, &entry.name, Mode::from_raw_mode(mode)) {
            if errno != Errno::EXIST {
                return Err(errno.into());
            }
            match openat(&entry.parent, &entry.name, OFlags::RDONLY | OFlags::NOFOLLOW | DIRECTORY, Mode::empty()) {
                Ok(existing) => return Ok(fchmod(existing, Mode::from_raw_mode(mode))?),
                Err(_) => {
                    entry.remove()?;
                    mkdirat(&entry.parent, &entry.name, Mode::from_raw_mode(mode))?;
                }
            }
        }
        // The umask does not apply to this change.
        let made = openat(&entry.parent, &entry.name, OFlags::RDONLY | OFlags::NOFOLLOW | DIRECTORY, Mode::empty())?;
        Ok(fchmod(made, Mode::from_raw_mode(mode))?)
    }

    /// Writes a file. Replaces what has its name.
    pub(super) fn write_file(&self, path: &Path, mode: u32, content: &mut impl io::Read) -> io::Result<()> {
        let entry = self.named(path)?;
        entry.remove()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&entry.parent, &entry.name, flags, Mode::from_raw_mode(0o600))?);
        io::copy(content, &mut file)?;
        Ok(fchmod(&file, Mode::from_raw_mode(mode))?)
    }

    /// Makes a symbolic link. Replaces what has its name.
    pub(super) fn symlink(&self, path: &Path, target: &Path) -> io::Result<()> {
        let entry = self.named(path)?;
        entry.remove()?;
        Ok(symlinkat(target, &entry.parent, &entry.name)?)
    }

    /// Makes a hard link to another file of the tree. Replaces what has its name.
    pub(super) fn hard_link(&self, path: &Path, target: &Path) -> io::Result<()> {
        let (entry, target) = (self.named(path)?, self.named(target)?);
        entry.remove()?;
        Ok(linkat(&target.parent, &target.name, &entry.parent, &entry.name, AtFlags::empty())?)
    }

    /// Removes a file or a directory. Does nothing when it does not exist.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        match self.entry(path)? {
            Some(entry) => entry.remove(),
            None => Ok(()),
        }
    }

    /// The names in a directory; empty when it does not exist.
    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        use std::os::unix::ffi::OsStrExt as _;
        match self.enter(path, OFlags::RDONLY) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
            Ok(directory) => {
                let mut names = Vec::new();
                for entry in Dir::read_from(&directory)? {
                    let entry = entry?;
                    if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                        names.push(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
                    }
                }
                Ok(names)
            }
        }
    }

    /// Reads at most `limit` bytes of a text file, and follows symbolic links below the root; none when it does not exist.
    pub(super) fn read(&self, path: &str, limit: u64) -> io::Result<Option<String>> {
        use io::Read as _;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat2(&self.root, path, flags, Mode::empty(), IN_ROOT) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut text = String::new();
        file.take(limit).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    /// Opens a directory.
    fn enter(&self, path: &Path, access: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.root, path, access | DIRECTORY, Mode::empty(), IN_ROOT)
    }

    /// Opens a directory, and makes it and missing ones above it first.
    fn make_and_enter(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.enter(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            match mkdirat(self.make_and_enter(parent)?, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(self.enter(path, OFlags::PATH)?)
    }

    /// The entry for a path of an archive; none for the root itself.
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let path = plain(path)?;
        let Some(name) = path.file_name() else { return Ok(None) };
        let parent = self.make_and_enter(path.parent().unwrap_or(Path::new("")))?;
        Ok(Some(Entry { parent, name: name.to_owned() }))
    }

    /// The entry for a path that must not be the root.
    fn named(&self, path: &Path) -> io::Result<Entry> {
        self.entry(path)?.ok_or_else(|| io::Error::other(format!("invalid file name {:?}", path.display())))
    }
}

impl Entry {
    /// Removes the file or directory of this name, if it exists. Does not follow a symbolic link.
    fn remove(&self) -> io::Result<()> {
        remove_tree_at(&self.parent, self.name.as_os_str())
    }
}

/// Removes `.` and a leading `/` from a path. Refuses `..`.
fn plain(path: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other(format!("the path {} contains \"..\"", path.display())));
            }
        }
    }
    Ok(plain)
}
