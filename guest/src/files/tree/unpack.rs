//! Makes a directory from a tar stream: beside its place, under a temporary name, until the archive is complete.
//!
//! Nothing of an archive is trusted: paths lead nowhere but into the new directory, no link of the archive is followed, devices and pipes are
//! left out. Files belong to this process's user.

use std::{
    ffi::CString,
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fd::OwnedFd,
    fs::{
        AtFlags, Dir, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, fstat, futimens, linkat, mkdirat, openat,
        renameat, statat, symlinkat, unlinkat,
    },
    io::{Errno, write},
};

use super::{
    DEPTH_LIMIT,
    archive::{Entry, Found, Kind, Reader},
    invalid, too_deep,
};
use crate::files::{
    directories::{moved, open_at},
    entry,
    path::FilePath,
    refusal::Refusal,
    resolve::{HOLD, Place, Tree, Way},
};
use errand_os::remove::{Manner, READ, empty};
use errand_proto::bridge::{FileKind, WriteTreeHead, WriteTreeResponse};
use errand_task::FileProblem;

/// How many temporary names are tried.
const TRIES: usize = 100;
/// Permissions of a directory that the archive holds no entry for.
const DIRECTORY_MODE: u32 = 0o755;
/// A directory of the archive gets these too: what is in it must still be unpacked and removed.
const OWNER: u32 = 0o700;

/// A tree that is being unpacked. Dropping it removes what is unpacked so far.
pub(in crate::files) struct Unpacking {
    place: Place,
    /// The new directory, under its temporary name.
    temporary: CString,
    top: OwnedFd,
    reader: Reader,
    /// The file whose content comes.
    file: Option<(OwnedFd, Entry)>,
    unpacked: u64,
    left_out: u64,
    merge: bool,
    finished: bool,
}

impl Unpacking {
    /// Finds the place and makes a temporary directory beside it.
    pub(in crate::files) fn begin(path: &FilePath, head: &WriteTreeHead, way: Way) -> Result<Self, Refusal> {
        let tree = Tree::of(path, way)?;
        if head.make_parents {
            tree.make_above(path)?;
        }
        let place = tree.followed(path)?;
        match statat(&place.directory, place.name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) if !head.merge => return Err(Refusal::of(FileProblem::AlreadyExists)),
            Ok(stat) if entry::kind(&stat) != FileKind::Directory => {
                return Err(Refusal::of(FileProblem::NotADirectory));
            }
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let (temporary, top) = make_temporary(&place)?;
        Ok(Self {
            place,
            temporary,
            top,
            reader: Reader::default(),
            file: None,
            unpacked: 0,
            left_out: 0,
            merge: head.merge,
            finished: false,
        })
    }

    /// Unpacks more of the archive.
    pub(in crate::files) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while let Some(found) = self.reader.next(&mut bytes).map_err(|error| invalid(error.to_string()))? {
            match found {
                Found::Entry(found) => self.begin_entry(found)?,
                Found::Content(content) => {
                    if let Some((file, _)) = &self.file {
                        write_all(file, content)?;
                    }
                }
                Found::EntryEnd => {
                    if let Some((file, found)) = self.file.take() {
                        fchmod(&file, Mode::from_raw_mode(found.mode))?;
                        set_modified(&file, found.modified);
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_entry(&mut self, found: Entry) -> Result<(), Refusal> {
        let names = names(&found.path)?;
        if found.kind == Kind::Other {
            self.left_out += 1;
            return Ok(());
        }
        let Some((name, above)) = names.split_last() else {
            // The top itself.
            return match found.kind {
                Kind::Directory => Ok(fchmod(self.opened(&[])?, Mode::from_raw_mode(found.mode | OWNER))?),
                _ => Err(invalid("an entry without a name")),
            };
        };
        let parent = self.directory(above)?;
        let name = c_string(name)?;
        match &found.kind {
            Kind::Directory => {
                made(mkdirat(&parent, name.as_c_str(), Mode::from_raw_mode(DIRECTORY_MODE)))?;
                let made = openat(&parent, name.as_c_str(), READ, Mode::empty())?;
                fchmod(&made, Mode::from_raw_mode(found.mode | OWNER))?;
            }
            Kind::File => {
                remove_old(&parent, &name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(&parent, name.as_c_str(), flags, Mode::from_raw_mode(0o600))?;
                self.file = Some((file, found));
            }
            Kind::Symlink(target) => {
                remove_old(&parent, &name)?;
                symlinkat(target.as_slice(), &parent, name.as_c_str())?;
            }
            Kind::HardLink(target) => {
                remove_old(&parent, &name)?;
                let target = self::names(target)?;
                let Some((last, above)) = target.split_last() else { return Err(invalid("a link to the top")) };
                let directory = self.directory(above)?;
                // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is another name of that link.
                linkat(&directory, *last, &parent, name.as_c_str(), AtFlags::empty())?;
            }
            Kind::Other => {}
        }
        self.unpacked += 1;
        Ok(())
    }

    /// Opens a directory of the new tree, and makes what is missing of it.
    fn directory(&self, names: &[&[u8]]) -> Result<OwnedFd, Refusal> {
        let mut here = openat(&self.top, ".", HOLD, Mode::empty())?;
        for name in names {
            let name = c_string(name)?;
            here = match open_at(&here, &name) {
                Err(Errno::NOENT) => {
                    made(mkdirat(&here, name.as_c_str(), Mode::from_raw_mode(DIRECTORY_MODE)))?;
                    open_at(&here, &name)?
                }
                opened => opened?,
            };
        }
        Ok(here)
    }

    /// Opens a directory of the new tree to change its mode.
    fn opened(&self, names: &[&[u8]]) -> Result<OwnedFd, Refusal> {
        Ok(openat(self.directory(names)?, ".", READ, Mode::empty())?)
    }

    /// Moves the complete tree to its place.
    pub(in crate::files) fn finish(mut self, name: &[u8]) -> Result<WriteTreeResponse, Refusal> {
        if !self.reader.is_complete() {
            return Err(invalid("the archive is incomplete"));
        }
        let from =
            Place { directory: openat(&self.place.directory, ".", HOLD, Mode::empty())?, name: self.temporary.clone() };
        match moved(&from, &self.place, true) {
            Ok(()) => self.finished = true,
            Err(Errno::EXIST) if self.merge => {
                let old = open_at(&self.place.directory, &self.place.name)?;
                merge(&self.top, &old, 0)?;
                self.removal()();
                self.finished = true;
            }
            Err(errno) => return Err(errno.into()),
        }
        let directory = open_at(&self.place.directory, &self.place.name)?;
        let entry = Some(entry::of(name, &fstat(&directory)?, Vec::new()));
        Ok(WriteTreeResponse { entry, unpacked: self.unpacked, left_out: self.left_out })
    }
}

impl Unpacking {
    /// What removes the temporary directory. An error has no receiver.
    fn removal(&self) -> impl FnOnce() + Send + 'static {
        let (top, directory) = (openat(&self.top, ".", READ, Mode::empty()), self.place.directory.try_clone());
        let name = self.temporary.clone();
        move || {
            let (Ok(top), Ok(directory)) = (top, directory) else { return };
            let _ = empty(top, Manner::default());
            let _ = unlinkat(&directory, name.as_c_str(), AtFlags::REMOVEDIR);
        }
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // A tree may be large, and the caller's thread serves other calls.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(self.removal())),
            Err(_) => self.removal()(),
        }
    }
}

/// Moves everything from one directory into another. Directories of the same name become one; other files replace those of their name.
fn merge(from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<(), Refusal> {
    if depth > DEPTH_LIMIT {
        return Err(too_deep());
    }
    let mut found = Dir::new(openat(from, ".", READ, Mode::empty())?)?;
    while let Some(next) = found.read() {
        let next = next?;
        let name = next.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind_in = |directory| match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(entry::kind(&stat) == FileKind::Directory)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        };
        match (kind_in(from)?, kind_in(to)?) {
            (Some(true), Some(true)) => merge(&open_at(from, name)?, &open_at(to, name)?, depth + 1)?,
            (Some(true), Some(false)) => return Err(Refusal::of(FileProblem::NotADirectory)),
            (Some(false), Some(true)) => return Err(Refusal::of(FileProblem::IsADirectory)),
            (Some(_), None) | (Some(false), Some(false)) => renameat(from, name, to, name)?,
            (None, _) => {}
        }
    }
    Ok(())
}

fn make_temporary(place: &Place) -> Result<(CString, OwnedFd), Errno> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..TRIES {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let name =
            CString::new(format!(".errand-{}-{count}-{time:x}.tree", process::id())).map_err(|_| Errno::INVAL)?;
        match mkdirat(&place.directory, name.as_c_str(), Mode::from_raw_mode(DIRECTORY_MODE)) {
            Err(Errno::EXIST) => {}
            made => {
                made?;
                let top = open_at(&place.directory, &name)?;
                return Ok((name, top));
            }
        }
    }
    Err(Errno::EXIST)
}

/// The names in a path of the archive, without `.`.
fn names(path: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    if path.starts_with(b"/") || path.contains(&0) {
        return Err(invalid(format!("the path {:?} is not relative", String::from_utf8_lossy(path))));
    }
    let names: Vec<_> = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    if names.contains(&&b".."[..]) {
        return Err(invalid(format!("the path {:?} holds `..`", String::from_utf8_lossy(path))));
    }
    if names.len() > DEPTH_LIMIT { Err(too_deep()) } else { Ok(names) }
}

/// A later entry of an archive replaces an earlier one of the same name.
fn remove_old(parent: &OwnedFd, name: &CString) -> Result<(), Errno> {
    match unlinkat(parent, name.as_c_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn made(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(file, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Sets when a file was last changed. A file system that cannot keep that time does not spoil the file.
fn set_modified(file: &OwnedFd, seconds: u64) {
    let modified = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let _ = futimens(file, &Timestamps { last_access, last_modification: modified });
}

fn c_string(name: &[u8]) -> Result<CString, Refusal> {
    CString::new(name).map_err(|_| invalid("a name holds NUL"))
}
