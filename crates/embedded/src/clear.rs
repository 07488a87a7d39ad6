//! Removing what a sandbox has left, whatever it is: no depth, no name and no permissions that it has chosen stand in the way.
//!
//! Goes down by descriptors and up by `..`, so that it needs two descriptors at any depth. Nobody else changes what is removed: every process
//! of the sandbox has ended.

use std::{ffi::CString, io, path::Path};

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, statat, unlinkat},
    io::Errno,
};

/// To read a directory that is no link.
const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a directory with all that is in it. No error when it is not there.
pub(super) fn clear(path: &Path) -> io::Result<()> {
    let top = match openat(CWD, path, READ, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    empty(top)?;
    Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
}

fn empty(top: OwnedFd) -> Result<(), Errno> {
    let mut here = top;
    // The names on the way from the top to here.
    let mut way: Vec<CString> = Vec::new();
    loop {
        match next_directory(&here)? {
            Some(name) => {
                // Its owner may have taken every right to it from itself.
                chmodat(&here, name.as_c_str(), Mode::from_raw_mode(0o700), AtFlags::empty())?;
                here = openat(&here, name.as_c_str(), READ, Mode::empty())?;
                way.push(name);
            }
            None => {
                let Some(name) = way.pop() else { return Ok(()) };
                here = openat(&here, "..", READ, Mode::empty())?;
                unlinkat(&here, name.as_c_str(), AtFlags::REMOVEDIR)?;
            }
        }
    }
}

/// Removes what is not a directory, until the first directory.
fn next_directory(directory: &OwnedFd) -> Result<Option<CString>, Errno> {
    for found in Dir::read_from(directory)? {
        let found = found?;
        let name = found.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(Some(name.to_owned()));
        }
        unlinkat(directory, name, AtFlags::empty())?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    #[test]
    fn whatever_a_sandbox_leaves_is_removed_and_nothing_else() {
        let data = tempfile::tempdir().unwrap();
        let (kept, gone) = (data.path().join("kept"), data.path().join("gone"));
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        fs::create_dir_all(gone.join("shut/in/side")).unwrap();
        fs::write(gone.join("shut/file"), "").unwrap();
        symlink(&kept, gone.join("link")).unwrap();
        // Deeper than any path can say.
        let mut here = openat(CWD, &gone, READ, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, "deep", Mode::from_raw_mode(0o700)).unwrap();
            here = openat(&here, "deep", READ, Mode::empty()).unwrap();
        }
        drop(here);
        fs::set_permissions(gone.join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
        clear(&gone).unwrap();
        clear(&gone).unwrap();
        assert!(!gone.exists() && kept.join("file").exists());
    }
}
