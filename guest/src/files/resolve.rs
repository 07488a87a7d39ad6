//! Resolves a path to an open directory and a name in it, either below a root or from `/`.
//!
//! Below a root the kernel itself refuses to leave the root (`openat2`). If the kernel has no `openat2`, or a filter forbids the call, this
//! module opens each name by itself and follows links itself. Either way the result is a file descriptor, so that a later move or swap
//! changes nothing.

use std::ffi::CString;

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat, statat},
    io::Errno,
};

use super::{path::FilePath, refusal::Refusal};
use errand_task::FileProblem;

/// The most symbolic links followed for one path, as in the kernel.
const LINKS_LIMIT: usize = 40;
/// How often to retry `openat2` when the kernel saw a rename along the path.
const TRIES: usize = 16;
/// Flags to hold a directory open without reading it.
pub(super) const HOLD: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How paths below a root are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// With `openat2`; falls back to [`Way::Steps`] where that is not possible.
    Kernel,
    /// Name by name.
    Steps,
}

/// Where paths begin: at a root that they must not leave, or at `/`.
#[derive(Debug)]
pub(super) struct Tree {
    top: OwnedFd,
    bounded: bool,
    way: Way,
}

/// An open directory and a name in it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: CString,
}

impl Tree {
    pub(super) fn of(path: &FilePath, way: Way) -> Result<Self, Refusal> {
        let top = openat(CWD, path.root().unwrap_or(b"/"), HOLD, Mode::empty())?;
        Ok(Self { top, bounded: path.root().is_some(), way })
    }

    /// Opens the file that a path leads to, following links.
    pub(super) fn open(&self, relative: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        if !self.bounded {
            return openat(&self.top, relative, flags, Mode::empty());
        }
        if self.way == Way::Kernel {
            for _ in 0..TRIES {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                match openat2(&self.top, relative, flags, Mode::empty(), resolve) {
                    Err(Errno::AGAIN) => {}
                    // Kernels without `openat2`, and filters that forbid system calls.
                    Err(Errno::NOSYS | Errno::PERM) => break,
                    opened => return opened,
                }
            }
        }
        self.steps(relative, flags)
    }

    fn steps(&self, relative: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        // The directories entered since the root: `..` goes back to the previous one, never to the parent that the file system reports.
        let mut entered: Vec<OwnedFd> = Vec::new();
        let mut names: Vec<Vec<u8>> = reversed(relative);
        let mut links = 0;
        while let Some(name) = names.pop() {
            if name == b".." {
                entered.pop().ok_or(Errno::XDEV)?;
                continue;
            }
            let here = entered.last().unwrap_or(&self.top);
            let stat = statat(here, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                links += 1;
                if links > LINKS_LIMIT {
                    return Err(Errno::LOOP);
                }
                let target = readlinkat(here, name.as_slice(), Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    return Err(Errno::XDEV);
                }
                names.extend(reversed(&target));
            } else if names.is_empty() {
                return openat(here, name.as_slice(), flags | OFlags::NOFOLLOW, Mode::empty());
            } else {
                let next = openat(here, name.as_slice(), HOLD | OFlags::NOFOLLOW, Mode::empty())?;
                entered.push(next);
            }
        }
        openat(entered.last().unwrap_or(&self.top), ".", flags, Mode::empty())
    }

    /// The place of a path. A link in its last position is not followed.
    pub(super) fn place(&self, path: &FilePath) -> Result<Place, Refusal> {
        let (above, name) = path.split().ok_or_else(|| Refusal {
            problem: FileProblem::InvalidPath,
            detail: "this path ends in no name of its own".to_owned(),
        })?;
        Ok(Place { directory: self.open(&above, HOLD)?, name: c_string(name)? })
    }

    /// The place of a path after following links in its last position. The last link may point to a file that does not exist.
    pub(super) fn followed(&self, path: &FilePath) -> Result<Place, Refusal> {
        let (mut above, name) = path.split().ok_or_else(|| Refusal::of(FileProblem::IsADirectory))?;
        let mut name = name.to_vec();
        for _ in 0..=LINKS_LIMIT {
            let directory = self.open(&above, HOLD)?;
            let target = match readlinkat(&directory, name.as_slice(), Vec::new()) {
                Ok(target) => target.into_bytes(),
                Err(Errno::INVAL | Errno::NOENT) => return Ok(Place { directory, name: c_string(&name)? }),
                Err(errno) => return Err(errno.into()),
            };
            let whole = if !target.starts_with(b"/") {
                [above.as_slice(), b"/", &target].concat()
            } else if self.bounded {
                return Err(Refusal::of(FileProblem::OutsideRoot));
            } else {
                [b".", target.as_slice()].concat()
            };
            // The leading `.` keeps the path relative to the root.
            let at = whole.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
            (above, name) = (whole[..at].to_vec(), whole[at + 1..].to_vec());
            if matches!(name.as_slice(), b"" | b"." | b"..") {
                return Err(Refusal::of(FileProblem::IsADirectory));
            }
        }
        Err(Errno::LOOP.into())
    }

    /// Creates the missing directories above the last name.
    pub(super) fn make_above(&self, path: &FilePath) -> Result<(), Refusal> {
        let mut here = self.open(b".", HOLD)?;
        for above in path.above() {
            here = match self.open(&above, HOLD) {
                Err(Errno::NOENT) => {
                    let name = above.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                    match rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o777)) {
                        // Another process created it first, or a dangling link has the name: opening it shows which.
                        Ok(()) | Err(Errno::EXIST) => self.open(&above, HOLD)?,
                        Err(errno) => return Err(errno.into()),
                    }
                }
                opened => opened?,
            };
        }
        Ok(())
    }
}

fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').rev();
    names.filter(|name| !matches!(*name, b"" | b".")).map(<[u8]>::to_vec).collect()
}

fn c_string(name: &[u8]) -> Result<CString, Refusal> {
    CString::new(name).map_err(|_| Errno::INVAL.into())
}
