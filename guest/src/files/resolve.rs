//! From a path to an open directory and a name in it, below a root or anywhere.
//!
//! Below a root the kernel itself refuses what would lead out (`openat2`). Where it cannot, or may not, each name is opened by itself and
//! links are followed by hand. Either way the answer is a file descriptor: what is moved or swapped afterwards changes nothing.

use std::ffi::CString;

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat, statat},
    io::Errno,
};

use super::{path::FilePath, refusal::Refusal};
use errand_proto::bridge::FileProblem;

/// The most symbolic links on the way of one path, as in the kernel.
const LINKS_LIMIT: usize = 40;
/// How often the kernel is asked again when something was being renamed on the way.
const TRIES: usize = 16;
/// To hold a directory without reading it.
pub(super) const HOLD: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How paths below a root are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By the kernel; by steps where it cannot.
    Kernel,
    /// Name by name.
    Steps,
}

/// Where paths begin: a root that they must not lead out of, or the top of the file system.
#[derive(Debug)]
pub(super) struct Tree {
    top: OwnedFd,
    bounded: bool,
    way: Way,
}

/// A directory, held open, and a name in it.
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

    /// Opens what a path leads to, following links.
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
                    // Older kernels, and what filters system calls.
                    Err(Errno::NOSYS | Errno::PERM) => break,
                    opened => return opened,
                }
            }
        }
        self.steps(relative, flags)
    }

    fn steps(&self, relative: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        // The directories from the root on: `..` goes back to where we came from, never to what the file system has above.
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

    /// Where a path ends. A link there is not followed.
    pub(super) fn place(&self, path: &FilePath) -> Result<Place, Refusal> {
        let (above, name) = path.split().ok_or_else(|| Refusal {
            problem: FileProblem::InvalidPath,
            detail: "this path ends in no name of its own".to_owned(),
        })?;
        Ok(Place { directory: self.open(&above, HOLD)?, name: c_string(name)? })
    }

    /// Where a path ends, following the links that are there: the last of them may lead to what does not exist.
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
            // A leading `.` keeps the path relative to the tree's beginning.
            let at = whole.iter().rposition(|byte| *byte == b'/').unwrap_or_default();
            (above, name) = (whole[..at].to_vec(), whole[at + 1..].to_vec());
            if matches!(name.as_slice(), b"" | b"." | b"..") {
                return Err(Refusal::of(FileProblem::IsADirectory));
            }
        }
        Err(Errno::LOOP.into())
    }

    /// Makes the directories above the last name that are not there.
    pub(super) fn make_above(&self, path: &FilePath) -> Result<(), Refusal> {
        let mut here = self.open(b".", HOLD)?;
        for above in path.above() {
            here = match self.open(&above, HOLD) {
                Err(Errno::NOENT) => {
                    let name = above.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                    match rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o777)) {
                        // Somebody else was faster, or a link is there that leads nowhere: opening it tells.
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
