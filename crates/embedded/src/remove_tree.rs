//! Removes the files of a sandbox, whatever its commands have made: any depth, any names, any permissions.
//!
//! The walk needs two descriptors at any depth: it descends by opening a directory and ascends by opening `..`. It assumes that nothing
//! changes the files meanwhile; every process of the sandbox has ended.

use std::{ffi::CString, io, path::Path};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, statat, unlinkat},
    io::Errno,
    path::Arg,
};

/// Flags that open a directory for reading, and refuse a symbolic link.
const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

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
    remove_content(openat(&parent, name, READ, Mode::empty())?)?;
    Ok(unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
}

fn remove_content(top: OwnedFd) -> Result<(), Errno> {
    let mut directory = top;
    // The names of the directories from the top down to this one.
    let mut descent: Vec<CString> = Vec::new();
    loop {
        match remove_files(&directory)? {
            Some(name) => {
                // Its owner may have removed the permissions to read and change it.
                chmodat(&directory, name.as_c_str(), Mode::from_raw_mode(0o700), AtFlags::empty())?;
                directory = openat(&directory, name.as_c_str(), READ, Mode::empty())?;
                descent.push(name);
            }
            None => {
                let Some(name) = descent.pop() else { return Ok(()) };
                directory = openat(&directory, "..", READ, Mode::empty())?;
                unlinkat(&directory, name.as_c_str(), AtFlags::REMOVEDIR)?;
            }
        }
    }
}

/// Removes files up to the first subdirectory, whose name it returns; none when there is no subdirectory.
fn remove_files(directory: &OwnedFd) -> Result<Option<CString>, Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
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
