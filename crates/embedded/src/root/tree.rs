//! The directory that an image is unpacked into. Every path is resolved as below that root, whatever links an archive has put there.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::{
        AtFlags, Dir, Mode, OFlags, ResolveFlags, fchmod, linkat, mkdirat, open, openat, openat2, symlinkat, unlinkat,
    },
    io::Errno,
};

/// As if the tree were the root of all.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// An open directory whose content is being put together.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

/// A name in an open directory.
struct Spot {
    directory: OwnedFd,
    name: OsString,
}

impl Tree {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { root: open(root, OFlags::RDONLY | DIRECTORY, Mode::empty())? })
    }

    /// Makes a directory, with those above it. What is not one in its place goes.
    pub(super) fn directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        let Some(spot) = self.spot(path)? else { return Ok(()) };
        if let Err(errno) = mkdirat(&spot.directory, &spot.name, Mode::from_raw_mode(mode)) {
            if errno != Errno::EXIST {
                return Err(errno.into());
            }
            match openat(&spot.directory, &spot.name, OFlags::RDONLY | OFlags::NOFOLLOW | DIRECTORY, Mode::empty()) {
                Ok(there) => return Ok(fchmod(there, Mode::from_raw_mode(mode))?),
                Err(_) => {
                    spot.clear()?;
                    mkdirat(&spot.directory, &spot.name, Mode::from_raw_mode(mode))?;
                }
            }
        }
        // Past the mask.
        let made = openat(&spot.directory, &spot.name, OFlags::RDONLY | OFlags::NOFOLLOW | DIRECTORY, Mode::empty())?;
        Ok(fchmod(made, Mode::from_raw_mode(mode))?)
    }

    /// Writes a file in place of whatever is there.
    pub(super) fn file(&self, path: &Path, mode: u32, content: &mut impl io::Read) -> io::Result<()> {
        let spot = self.named(path)?;
        spot.clear()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&spot.directory, &spot.name, flags, Mode::from_raw_mode(0o600))?);
        io::copy(content, &mut file)?;
        Ok(fchmod(&file, Mode::from_raw_mode(mode))?)
    }

    /// Makes a link in place of whatever is there.
    pub(super) fn link(&self, path: &Path, target: &Path) -> io::Result<()> {
        let spot = self.named(path)?;
        spot.clear()?;
        Ok(symlinkat(target, &spot.directory, &spot.name)?)
    }

    /// Gives a file of the tree another name.
    pub(super) fn name(&self, path: &Path, same_as: &Path) -> io::Result<()> {
        let (spot, other) = (self.named(path)?, self.named(same_as)?);
        spot.clear()?;
        Ok(linkat(&other.directory, &other.name, &spot.directory, &spot.name, AtFlags::empty())?)
    }

    /// Removes what is there, if anything is.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        match self.spot(path)? {
            Some(spot) => spot.clear(),
            None => Ok(()),
        }
    }

    /// The names in a directory; none when it is not there.
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

    /// Reads a small file, through links that stay below the root; none when it is not there.
    pub(super) fn read(&self, path: &str, limit: u64) -> io::Result<Option<String>> {
        use io::Read as _;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat2(&self.root, path, flags, Mode::empty(), INSIDE) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut text = String::new();
        file.take(limit).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    fn enter(&self, path: &Path, access: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.root, path, access | DIRECTORY, Mode::empty(), INSIDE)
    }

    /// Opens a directory, and makes what is missing of it.
    fn provide(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.enter(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        if let (Some(above), Some(name)) = (path.parent(), path.file_name()) {
            match mkdirat(self.provide(above)?, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(self.enter(path, OFlags::PATH)?)
    }

    /// Where a path of an archive leads; none for the root itself.
    fn spot(&self, path: &Path) -> io::Result<Option<Spot>> {
        let path = plain(path)?;
        let Some(name) = path.file_name() else { return Ok(None) };
        let directory = self.provide(path.parent().unwrap_or(Path::new("")))?;
        Ok(Some(Spot { directory, name: name.to_owned() }))
    }

    fn named(&self, path: &Path) -> io::Result<Spot> {
        self.spot(path)?.ok_or_else(|| io::Error::other(format!("{} is no name of a file", path.display())))
    }
}

impl Spot {
    /// Removes what is there, without following it anywhere.
    fn clear(&self) -> io::Result<()> {
        clear(&self.directory, &self.name)
    }
}

fn clear(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let inside = openat(directory, name, OFlags::RDONLY | OFlags::NOFOLLOW | DIRECTORY, Mode::empty())?;
    for entry in Dir::read_from(&inside)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            clear(&inside, OsStr::from_bytes(entry.file_name().to_bytes()))?;
        }
    }
    Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

/// A path without what leads nowhere or out.
fn plain(path: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other(format!("a path with .. in it: {}", path.display())));
            }
        }
    }
    Ok(plain)
}
