//! Removes a file, or a directory with everything in it.
//!
//! Goes down by descriptors that follow no link. Goes up by `..`, and checks that this is the directory it came from. So the removal never
//! leaves the tree it was given, whatever is moved meanwhile, and needs two descriptors at any depth.

use std::{
    ffi::CString,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Dir, Mode, OFlags, fstat, openat, statat, unlinkat},
    io::Errno,
};

use super::{entry, path::FilePath, refusal::Refusal, resolve::Tree, resolve::Way};
use errand_proto::bridge::{FileKind, FileProblem};

/// Flags to read a directory, refusing a link.
const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes the file or directory at a path. Stops early, with an error, once `stop` is set.
pub(super) fn remove(path: &FilePath, recursive: bool, way: Way, stop: &AtomicBool) -> Result<(), Refusal> {
    let place = Tree::of(path, way)?.place(path)?;
    let name = place.name.as_c_str();
    let stat = statat(&place.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if entry::kind(&stat) != FileKind::Directory {
        if path.names_a_directory() {
            return Err(Refusal::of(FileProblem::NotADirectory));
        }
        return Ok(unlinkat(&place.directory, name, AtFlags::empty())?);
    }
    if recursive {
        empty(openat(&place.directory, name, READ, Mode::empty())?, stop)?;
    }
    Ok(unlinkat(&place.directory, name, AtFlags::REMOVEDIR)?)
}

/// Identifies a directory by device and inode.
type Identity = (u64, u64);

/// Removes the content of a directory.
fn empty(top: OwnedFd, stop: &AtomicBool) -> Result<(), Errno> {
    let mut here = top;
    // The directories above `here`, each with the name of its child on the way down.
    let mut above: Vec<(Identity, CString)> = Vec::new();
    loop {
        match next_directory(&here, stop)? {
            Some(name) => {
                let below = openat(&here, name.as_c_str(), READ, Mode::empty())?;
                above.push((identity(&here)?, name));
                here = below;
            }
            None => {
                let Some((expected, name)) = above.pop() else { return Ok(()) };
                let parent = openat(&here, "..", READ, Mode::empty())?;
                if identity(&parent)? != expected {
                    // A process has moved the directory elsewhere; nothing there may be removed.
                    return Err(Errno::XDEV);
                }
                unlinkat(&parent, name.as_c_str(), AtFlags::REMOVEDIR)?;
                here = parent;
            }
        }
    }
}

/// Removes entries that are not directories, until the first directory. Returns its name.
fn next_directory(directory: &OwnedFd, stop: &AtomicBool) -> Result<Option<CString>, Errno> {
    for found in Dir::read_from(directory)? {
        if stop.load(Ordering::Relaxed) {
            return Err(Errno::CANCELED);
        }
        let found = found?;
        let name = found.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // The type stored in the directory entry is only a hint.
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        if entry::kind(&stat) == FileKind::Directory {
            return Ok(Some(name.to_owned()));
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

fn identity(directory: &OwnedFd) -> Result<Identity, Errno> {
    let stat = fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}
