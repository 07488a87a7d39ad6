//! Copies an image for one sandbox.

use std::{
    fs::{self, DirEntry, Metadata},
    io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};

use super::{Tried as _, Trouble};
use errand_proto::init::Owner;

/// Copies a directory, unless it was copied before. The owner owns everything in the copy.
pub(super) fn make(source: &Path, target: &Path, owner: Option<&Owner>) -> Result<(), Trouble> {
    if target.exists() {
        return Ok(());
    }
    let copied = || -> io::Result<()> {
        let part = target.with_extension("part");
        match fs::remove_dir_all(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        directory(source, &part, &fs::metadata(source)?, owner)?;
        fs::rename(&part, target)
    };
    copied().tried(|| format!("copying {}", source.display()))
}

fn directory(source: &Path, target: &Path, metadata: &Metadata, owner: Option<&Owner>) -> io::Result<()> {
    fs::create_dir(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        one(&entry, &target.join(entry.file_name()), owner)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", entry.path().display())))?;
    }
    settle(target, Some(metadata), owner)
}

/// Copies one entry. Skips anything but files, directories and links: nothing else is usable in a sandbox.
fn one(entry: &DirEntry, target: &Path, owner: Option<&Owner>) -> io::Result<()> {
    let metadata = entry.metadata()?;
    if metadata.is_dir() {
        directory(&entry.path(), target, &metadata, owner)
    } else if metadata.is_symlink() {
        symlink(fs::read_link(entry.path())?, target)?;
        settle(target, None, owner)
    } else if metadata.is_file() {
        fs::copy(entry.path(), target)?;
        settle(target, Some(&metadata), owner)
    } else {
        Ok(())
    }
}

/// Gives a copy its owner and permissions, without the set-user-ID and set-group-ID bits.
fn settle(target: &Path, metadata: Option<&Metadata>, owner: Option<&Owner>) -> io::Result<()> {
    if let Some(owner) = owner {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        chownat(CWD, target, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if let Some(metadata) = metadata {
        // The owner must always be able to remove the copy.
        let least = if metadata.is_dir() { 0o700 } else { 0o200 };
        let mode = metadata.permissions().mode() & 0o777 | least;
        fs::set_permissions(target, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}
