//! Removes everything in a directory.
//!
//! Goes down by descriptors that follow no link. Goes up by `..`, and checks that this is the directory it came from. So the removal never
//! leaves the tree it was given, whatever is moved meanwhile, and needs two descriptors at any depth.

use std::{
    ffi::CString,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Dir, FileType, Mode, OFlags, chmodat, fstat, openat, statat, unlinkat},
    io::Errno,
};

/// Flags to open a directory for [`empty`]: for reading, and no link.
pub const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How a removal goes about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner<'a> {
    /// Ends the removal early, with [`Errno::CANCELED`], once it is set.
    pub stop: Option<&'a AtomicBool>,
    /// Whether to give the owner every permission on a directory before opening it. Its owner may have removed them. The change follows
    /// links, so this is only for a tree that no other process changes meanwhile.
    pub unlock: bool,
}

/// Identifies a directory by device and inode.
type Identity = (u64, u64);

/// Removes the content of a directory that was opened with [`READ`].
///
/// # Errors
/// [`Errno::XDEV`] when a process moves a directory elsewhere meanwhile, and as for openat(2) and unlinkat(2).
pub fn empty(top: OwnedFd, manner: Manner<'_>) -> Result<(), Errno> {
    let mut here = top;
    // The directories above `here`, each with the name of its child on the way down.
    let mut above: Vec<(Identity, CString)> = Vec::new();
    loop {
        match next_directory(&here, manner)? {
            Some(name) => {
                if manner.unlock {
                    chmodat(&here, name.as_c_str(), Mode::RWXU, AtFlags::empty())?;
                }
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
fn next_directory(directory: &OwnedFd, manner: Manner<'_>) -> Result<Option<CString>, Errno> {
    for found in Dir::read_from(directory)? {
        if manner.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
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
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
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
