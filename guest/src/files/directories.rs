//! Makes directories and renames files.

use rustix::{
    fs::{AtFlags, Mode, OFlags, RenameFlags, chmodat, fstat, mkdirat, openat, renameat, renameat_with, statat},
    io::Errno,
};

use super::{
    entry,
    path::FilePath,
    refusal::Refusal,
    resolve::{Place, Tree, Way},
};
use errand_proto::bridge::{FileEntry, FileKind};
use errand_task::FileProblem;

/// Permissions of a new directory before the umask.
const MODE: u32 = 0o777;

/// Makes a directory. With `parents` it also makes those above, and accepts one that exists.
pub(super) fn make(path: &FilePath, mode: u32, parents: bool, way: Way) -> Result<FileEntry, Refusal> {
    let tree = Tree::of(path, way)?;
    if parents {
        tree.make_above(path)?;
    }
    let Some(_) = path.split() else { return existing(&tree, path, parents) };
    let place = tree.place(path)?;
    let name = place.name.as_c_str();
    match mkdirat(&place.directory, name, Mode::from_raw_mode(if mode == 0 { MODE } else { mode & 0o7777 })) {
        Ok(()) => {}
        Err(Errno::EXIST) => return existing(&tree, path, parents),
        Err(errno) => return Err(errno.into()),
    }
    if mode != 0 {
        // Without the umask. The directory was made a moment ago: a process that swaps it for a link has the same rights as this one.
        chmodat(&place.directory, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?;
    }
    Ok(entry::named(&place.directory, place.name.to_bytes())?)
}

/// The directory that is there already, if that is no error.
fn existing(tree: &Tree, path: &FilePath, accepted: bool) -> Result<FileEntry, Refusal> {
    if !accepted {
        return Err(Refusal::of(FileProblem::AlreadyExists));
    }
    match tree.open(&path.relative(), OFlags::PATH | OFlags::DIRECTORY) {
        Ok(directory) => Ok(entry::of(path.name(), &fstat(&directory)?, Vec::new())),
        // Something else has the name, or a link that leads nowhere.
        Err(Errno::NOTDIR | Errno::NOENT) => Err(Refusal::of(FileProblem::AlreadyExists)),
        Err(errno) => Err(errno.into()),
    }
}

/// Renames a file or a directory; replaces what has the new path as rename(2) does, unless that `must_not_exist`.
pub(super) fn rename(from: &FilePath, to: &FilePath, must_not_exist: bool, way: Way) -> Result<FileEntry, Refusal> {
    let tree = Tree::of(from, way)?;
    let (old, new) = (tree.place(from)?, tree.place(to)?);
    let stat = statat(&old.directory, old.name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
    if entry::kind(&stat) != FileKind::Directory && (from.names_a_directory() || to.names_a_directory()) {
        return Err(Refusal::of(FileProblem::NotADirectory));
    }
    moved(&old, &new, must_not_exist).map_err(|errno| match errno {
        Errno::XDEV => Refusal::of(FileProblem::OtherFileSystem),
        other => other.into(),
    })?;
    Ok(entry::named(&new.directory, new.name.to_bytes())?)
}

/// Renames within one file system.
pub(super) fn moved(old: &Place, new: &Place, must_not_exist: bool) -> Result<(), Errno> {
    let (from, to) = (old.name.as_c_str(), new.name.as_c_str());
    if !must_not_exist {
        return renameat(&old.directory, from, &new.directory, to);
    }
    match renameat_with(&old.directory, from, &new.directory, to, RenameFlags::NOREPLACE) {
        // Some file systems do not support this rename. There the new path is looked at first, and another writer may be faster.
        Err(Errno::INVAL | Errno::NOSYS) => match statat(&new.directory, to, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => renameat(&old.directory, from, &new.directory, to),
            Err(errno) => Err(errno),
        },
        renamed => renamed,
    }
}

/// Opens the directory of a place for walking, and never through a link.
pub(super) fn open_at(directory: impl rustix::fd::AsFd, name: &std::ffi::CStr) -> Result<rustix::fd::OwnedFd, Errno> {
    openat(directory, name, super::resolve::HOLD | OFlags::NOFOLLOW, Mode::empty())
}
