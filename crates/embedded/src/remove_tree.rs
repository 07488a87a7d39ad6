//! Removes the files of a sandbox, whatever its commands have made: any depth, any names, any permissions.
//!
//! It assumes that nothing changes the files meanwhile; every process of the sandbox has ended.

use std::{io, path::Path};

use rustix::{
    fd::AsFd,
    fs::{AtFlags, CWD, Mode, openat, unlinkat},
    io::Errno,
    path::Arg,
};

use errand_os::remove::{Manner, READ, empty};

/// Removes a directory and its content. Does nothing when it does not exist.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    remove_tree_at(CWD, path)
}

/// Removes a file, or a directory and its content, and never follows a symbolic link at its name. Does nothing when it does not exist.
pub(super) fn remove_tree_at(parent: impl AsFd, name: impl Arg + Copy) -> io::Result<()> {
    match unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    empty(openat(&parent, name, READ, Mode::empty())?, Manner { unlock: true, ..Manner::default() })?;
    Ok(unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
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
    fn removal_handles_any_depth_and_follows_no_link() {
        let data = tempfile::tempdir().unwrap();
        let (kept, gone) = (data.path().join("kept"), data.path().join("gone"));
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        fs::create_dir_all(gone.join("shut/in/side")).unwrap();
        fs::write(gone.join("shut/file"), "").unwrap();
        symlink(&kept, gone.join("link")).unwrap();
        // Deeper than the longest path that the kernel accepts.
        let mut here = openat(CWD, &gone, READ, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, "deep", Mode::from_raw_mode(0o700)).unwrap();
            here = openat(&here, "deep", READ, Mode::empty()).unwrap();
        }
        drop(here);
        fs::set_permissions(gone.join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&gone).unwrap();
        remove_tree(&gone).unwrap();
        symlink(&kept, &gone).unwrap();
        remove_tree(&gone).unwrap();
        assert!(!gone.is_symlink() && !gone.exists() && kept.join("file").exists());
    }
}
