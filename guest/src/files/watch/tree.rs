//! Which directories are watched.

use std::{ffi::CString, os::fd::AsRawFd as _};

use rustix::{
    fd::OwnedFd,
    fs::{
        AtFlags, Dir, Mode, OFlags, fstat,
        inotify::{self, ReadFlags, WatchFlags},
        openat, statat,
    },
    io::Errno,
};

use super::{Event, Watches, batch::Batch};
use crate::files::{
    directories::open_at,
    entry,
    path::{FilePath, PATH_LIMIT},
    refusal::Refusal,
    resolve::{Tree, Way},
};
use errand_os::remove::READ;
use errand_proto::bridge::FileKind;
use errand_task::FileProblem;

/// The most directories that one call watches. The kernel's limit is shared by all processes of a user, also those of other sandboxes.
const DIRECTORIES_LIMIT: usize = 1024;

/// What is watched in each directory.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::EXCL_UNLINK);

/// The watched directories.
pub(super) struct Directories {
    top: OwnedFd,
    top_watch: i32,
    /// The directory above the top. While the top is open, the kernel reports its removal only there.
    parent_watch: Option<i32>,
    watches: Watches,
    recursive: bool,
}

/// What follows from an event, apart from a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Nothing,
    /// A directory appeared that shall be watched.
    Made(Vec<u8>),
    /// The top is gone.
    Gone,
}

/// Entries that were found, each with its path and whether it is a directory.
type Entries = Vec<(Vec<u8>, bool)>;

impl Directories {
    pub(super) fn begin(queue: &OwnedFd, path: &FilePath, recursive: bool, way: Way) -> Result<Self, Refusal> {
        let top = Tree::of(path, way)?.open(&path.relative(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let top_watch = add(queue, &top, CHANGES)?;
        let parent_watch = watch_parent(queue, &top)?;
        let watches = Watches::from([(top_watch, Vec::new())]);
        let mut directories = Self { top, top_watch, parent_watch, watches, recursive };
        if recursive {
            directories.enter(queue, b"")?;
        }
        Ok(directories)
    }

    /// Watches the directory with this path and those below it. Returns what is in them: it may have been made before they were watched.
    pub(super) fn enter(&mut self, queue: &OwnedFd, path: &[u8]) -> Result<Entries, Refusal> {
        let mut found = Vec::new();
        let mut left = vec![path.to_vec()];
        while let Some(path) = left.pop() {
            let directory = match self.open(&path) {
                // It is gone again, or became something else.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                // Nobody but its owner sees what changes in it.
                Err(Errno::ACCESS) => continue,
                opened => opened?,
            };
            self.watches.insert(add(queue, &directory, CHANGES)?, path.clone());
            if self.watches.len() > DIRECTORIES_LIMIT {
                return Err(too_many(format!("more than {DIRECTORIES_LIMIT} directories")));
            }
            let mut entries = Dir::new(directory)?;
            while let Some(entry) = entries.read() {
                let entry = entry?;
                let name = entry.file_name();
                let below = joined(&path, name.to_bytes());
                if matches!(name.to_bytes(), b"." | b"..") || below.len() > PATH_LIMIT {
                    continue;
                }
                let is_directory = match statat(entries.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    stat => entry::kind(&stat?) == FileKind::Directory,
                };
                if is_directory {
                    left.push(below.clone());
                }
                // The top's own content is no news, and there may be any number of files in a directory that was moved here.
                if found.len() < DIRECTORIES_LIMIT {
                    found.push((below, is_directory));
                }
            }
        }
        Ok(found)
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut here = openat(&self.top, ".", READ, Mode::empty())?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            here = open_at(&here, &CString::new(name).map_err(|_| Errno::INVAL)?)?;
        }
        openat(&here, ".", READ, Mode::empty())
    }

    /// Adds what an event means to the batch.
    pub(super) fn take(&mut self, queue: &OwnedFd, event: &Event, batch: &mut Batch) -> Taken {
        let has = |flags| event.flags.intersects(flags);
        let is_of_parent = Some(event.directory) == self.parent_watch;
        if (is_of_parent || has(ReadFlags::QUEUE_OVERFLOW)) && fstat(&self.top).is_ok_and(|top| top.st_nlink == 0) {
            batch.removed(Vec::new(), true);
            return Taken::Gone;
        }
        if has(ReadFlags::QUEUE_OVERFLOW) {
            batch.overflow();
            // Directories may have been made unseen.
            return if self.recursive { Taken::Made(Vec::new()) } else { Taken::Nothing };
        }
        let Some(directory) = self.watches.get(&event.directory) else { return Taken::Nothing };
        if has(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT) {
            if event.directory != self.top_watch {
                if has(ReadFlags::IGNORED) {
                    self.watches.remove(&event.directory);
                }
                return Taken::Nothing;
            }
            batch.removed(Vec::new(), true);
            return Taken::Gone;
        }
        let path = joined(directory, &event.name);
        let is_directory = has(ReadFlags::ISDIR);
        if event.name.is_empty() || path.len() > PATH_LIMIT {
            return Taken::Nothing;
        }
        if has(ReadFlags::MOVED_FROM) {
            batch.moved_away(path, is_directory, event.cookie);
        } else if has(ReadFlags::MOVED_TO) {
            match batch.moved_here(path.clone(), is_directory, event.cookie) {
                Some(old) => {
                    if batch.replaced(&path) {
                        self.forget(queue, &path);
                    }
                    self.renamed(&old, &path);
                }
                None if is_directory && self.recursive => return Taken::Made(path),
                None => {}
            }
        } else if has(ReadFlags::CREATE) {
            batch.created(path.clone(), is_directory);
            if is_directory && self.recursive {
                return Taken::Made(path);
            }
        } else if has(ReadFlags::DELETE) {
            batch.removed(path, is_directory);
        } else if has(ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE) {
            batch.modified(path);
        }
        Taken::Nothing
    }

    fn renamed(&mut self, old: &[u8], new: &[u8]) {
        for path in self.watches.values_mut() {
            if let Some(rest) = below(path, old) {
                *path = [new, rest].concat();
            }
        }
    }

    /// Ends the watches of a directory that was moved away, and of those in it.
    pub(super) fn forget(&mut self, queue: &OwnedFd, path: &[u8]) {
        self.watches.retain(|number, known| {
            let is_below = below(known, path).is_some();
            if is_below {
                // The kernel may have ended it already.
                let _ = inotify::remove_watch(queue, *number);
            }
            !is_below
        });
    }
}

/// What follows `path` in a path that is equal or below.
fn below<'a>(known: &'a [u8], path: &[u8]) -> Option<&'a [u8]> {
    known.strip_prefix(path).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// Watches an open directory.
fn add(queue: &OwnedFd, directory: &OwnedFd, flags: WatchFlags) -> Result<i32, Refusal> {
    // By its descriptor: nothing can be swapped meanwhile.
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    inotify::add_watch(queue, path, flags | WatchFlags::ONLYDIR).map_err(limit)
}

/// Watches for removals in the directory above; none for `/`, and where this user may not read that directory.
fn watch_parent(queue: &OwnedFd, top: &OwnedFd) -> Result<Option<i32>, Refusal> {
    let parent = match openat(top, "..", READ, Mode::empty()) {
        Err(Errno::ACCESS) => return Ok(None),
        parent => parent?,
    };
    let (above, here) = (fstat(&parent)?, fstat(top)?);
    if (above.st_dev, above.st_ino) == (here.st_dev, here.st_ino) {
        return Ok(None);
    }
    add(queue, &parent, WatchFlags::DELETE).map(Some)
}

/// The kernel reports its limits as a full disk or a full table.
pub(super) fn limit(errno: Errno) -> Refusal {
    match errno {
        Errno::NOSPC | Errno::MFILE | Errno::NFILE => too_many("the kernel allows no more watches".to_owned()),
        other => other.into(),
    }
}

fn too_many(detail: String) -> Refusal {
    Refusal { problem: FileProblem::TooMany, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_below_a_path() {
        assert_eq!(below(b"a/b/c", b"a/b"), Some(&b"/c"[..]));
        assert_eq!(below(b"a/b", b"a/b"), Some(&b""[..]));
        assert_eq!(below(b"a/bc", b"a/b"), None);
    }
}
