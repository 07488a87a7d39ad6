//! A file that is being written: under a temporary name beside its target, until it is complete.

use std::{
    ffi::CString,
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fd::OwnedFd,
    fs::{
        AtFlags, Gid, Mode, OFlags, RenameFlags, Stat, Uid, fchmod, fchown, fstat, linkat, openat, renameat,
        renameat_with, statat, unlinkat,
    },
    io::{Errno, write},
};

use super::{
    entry,
    path::FilePath,
    refusal::Refusal,
    resolve::{Place, Tree, Way},
};
use errand_proto::bridge::{FileEntry, FileKind, WriteFileHead};
use errand_task::FileProblem;

/// The permissions of a new file that replaces no other.
const MODE: u32 = 0o644;
/// How many temporary names are tried.
const TRIES: usize = 100;

/// The content so far. Dropping it removes the temporary file.
#[derive(Debug)]
pub(super) struct Part {
    place: Place,
    temporary: CString,
    file: OwnedFd,
    mode: Mode,
    /// The owner of the file that is replaced, if there is one.
    owner: Option<(u32, u32)>,
    must_not_exist: bool,
    finished: bool,
}

impl Part {
    /// Finds the target and creates a temporary file beside it.
    pub(super) fn begin(path: &FilePath, head: &WriteFileHead, way: Way) -> Result<Self, Refusal> {
        if path.names_a_directory() {
            return Err(Refusal::of(FileProblem::IsADirectory));
        }
        let tree = Tree::of(path, way)?;
        if head.make_parents {
            tree.make_above(path)?;
        }
        let place = if head.must_not_exist { tree.place(path)? } else { tree.followed(path)? };
        let old = there(&place)?;
        if let Some(old) = &old {
            match entry::kind(old) {
                _ if head.must_not_exist => return Err(Refusal::of(FileProblem::AlreadyExists)),
                FileKind::File => {}
                FileKind::Directory => return Err(Refusal::of(FileProblem::IsADirectory)),
                // A link at this point was created after the path was resolved.
                FileKind::Symlink | FileKind::Other | FileKind::Unspecified => {
                    return Err(Refusal::of(FileProblem::NotAFile));
                }
            }
        }
        let mode = match (head.mode, &old) {
            (0, Some(old)) => old.st_mode & 0o7777,
            (0, None) => MODE,
            (mode, _) => mode & 0o7777,
        };
        let (temporary, file) = make_temporary(&place)?;
        Ok(Self {
            place,
            temporary,
            file,
            mode: Mode::from_raw_mode(mode),
            owner: old.map(|old| (old.st_uid, old.st_gid)),
            must_not_exist: head.must_not_exist,
            finished: false,
        })
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            match write(&self.file, bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Moves the complete file to its target.
    pub(super) fn finish(mut self, name: &[u8]) -> Result<FileEntry, Refusal> {
        if let Some((uid, gid)) = self.owner {
            // Only a privileged user may change the owner; otherwise the new file belongs to this user, as with any editor.
            let _ = fchown(&self.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
        fchmod(&self.file, self.mode)?;
        let stat = fstat(&self.file)?;
        self.rename()?;
        self.finished = true;
        Ok(entry::of(name, &stat, Vec::new()))
    }

    fn rename(&self) -> Result<(), Errno> {
        let (directory, from, to) = (&self.place.directory, self.temporary.as_c_str(), self.place.name.as_c_str());
        if !self.must_not_exist {
            return renameat(directory, from, directory, to);
        }
        match renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
            // Some file systems do not support this rename.
            Err(Errno::INVAL | Errno::NOSYS) => {
                linkat(directory, from, directory, to, AtFlags::empty())?;
                unlinkat(directory, from, AtFlags::empty())
            }
            renamed => renamed,
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.finished {
            // An error here has no receiver.
            let _ = unlinkat(&self.place.directory, self.temporary.as_c_str(), AtFlags::empty());
        }
    }
}

/// The file that has the target's name now, if any.
fn there(place: &Place) -> Result<Option<Stat>, Errno> {
    match statat(&place.directory, place.name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn make_temporary(place: &Place) -> Result<(CString, OwnedFd), Errno> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..TRIES {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let name = format!(".errand-{}-{count}-{time:x}.part", process::id());
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        match openat(&place.directory, name.as_c_str(), flags, Mode::from_raw_mode(0o600)) {
            Err(Errno::EXIST) => {}
            opened => return Ok((name, opened?)),
        }
    }
    Err(Errno::EXIST)
}
