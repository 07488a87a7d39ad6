//! Reads a directory with everything in it as a tar stream.
//!
//! Holds a descriptor for each level, one piece of the archive, and nothing else. Devices, sockets and pipes are left out. A file with several
//! names is packed once for each name.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use bytes::Bytes;
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Dir, Mode, OFlags, Stat, fstat, openat, readlinkat, statat},
    io::{Errno, read},
};
use tar::{Builder, EntryType, Header};

use super::{DEPTH_LIMIT, too_deep};
use crate::files::{
    PIECE, entry,
    path::{FilePath, PATH_LIMIT},
    refusal::Refusal,
    resolve::{Tree, Way},
};
use errand_proto::bridge::{FileEntry, FileKind};
use errand_task::FileProblem;

/// Flags to open a directory of the tree.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
/// Flags to open a file of the tree: what became a pipe meanwhile must not block.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
/// How much of a file is read at a time.
const READ: usize = 32 * 1024;
/// The unit of the format.
const BLOCK: u64 = 512;

/// A tree that is being packed.
pub(in crate::files) struct Packing {
    levels: Vec<Level>,
    file: Option<Content>,
    archive: Builder<Vec<u8>>,
    ended: bool,
}

struct Level {
    directory: Dir,
    /// Its path below the top; empty for the top itself.
    path: Vec<u8>,
}

/// The file that is being packed. Its header is written: exactly this many bytes have to follow.
struct Content {
    file: OwnedFd,
    path: Vec<u8>,
    left: u64,
    padding: u64,
}

impl Packing {
    pub(in crate::files) fn begin(path: &FilePath, way: Way) -> Result<(Self, FileEntry), Refusal> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let top = Tree::of(path, way)?.open(&path.relative(), flags)?;
        let stat = fstat(&top)?;
        let mut archive = Builder::new(Vec::new());
        append(&mut archive, b"./", EntryType::Directory, &stat, 0)?;
        let levels = vec![Level { directory: Dir::new(top)?, path: Vec::new() }];
        Ok((Self { levels, file: None, archive, ended: false }, entry::of(path.name(), &stat, Vec::new())))
    }

    /// The next piece of the archive; empty after the last one.
    pub(in crate::files) fn next_piece(&mut self) -> Result<Bytes, Refusal> {
        while !self.ended && self.archive.get_ref().len() < PIECE - READ {
            if let Some(content) = self.file.take() {
                self.file = content.read(self.archive.get_mut())?;
            } else if !self.step()? {
                self.ended = true;
                let end = self.archive.get_ref().len() + 2 * BLOCK as usize;
                self.archive.get_mut().resize(end, 0);
            }
        }
        Ok(std::mem::take(self.archive.get_mut()).into())
    }

    /// Packs the next entry; false when there is none.
    fn step(&mut self) -> Result<bool, Refusal> {
        let Some(level) = self.levels.last_mut() else { return Ok(false) };
        let Some(found) = level.directory.read() else {
            self.levels.pop();
            return Ok(true);
        };
        let found = found?;
        let name = found.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            return Ok(true);
        }
        let mut path = level.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        if path.len() > PATH_LIMIT {
            let detail = format!("a path in the directory has more than {PATH_LIMIT} bytes");
            return Err(Refusal { problem: FileProblem::InvalidPath, detail });
        }
        let here = level.directory.fd()?;
        match pack(here, name, &path, &mut self.archive).map_err(|refusal| within(&path, refusal))? {
            Packed::Done => {}
            Packed::File(content) => self.file = Some(content),
            Packed::Directory(directory) => {
                if self.levels.len() >= DEPTH_LIMIT {
                    return Err(too_deep());
                }
                self.levels.push(Level { directory: Dir::new(directory)?, path });
            }
        }
        Ok(true)
    }
}

enum Packed {
    Done,
    File(Content),
    Directory(OwnedFd),
}

/// Packs what has this name, without the content of a file or a directory.
fn pack(
    here: impl rustix::fd::AsFd,
    name: &std::ffi::CStr,
    path: &[u8],
    archive: &mut Builder<Vec<u8>>,
) -> Result<Packed, Refusal> {
    // Whatever vanishes or changes its kind between two steps counts as removed.
    let gone = |errno| matches!(errno, Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO);
    let stat = match statat(&here, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(Packed::Done),
        stat => stat?,
    };
    match entry::kind(&stat) {
        FileKind::Directory => {
            let directory = match openat(&here, name, DIRECTORY, Mode::empty()) {
                Err(errno) if gone(errno) => return Ok(Packed::Done),
                opened => opened?,
            };
            append(archive, &[path, b"/"].concat(), EntryType::Directory, &fstat(&directory)?, 0)?;
            Ok(Packed::Directory(directory))
        }
        FileKind::File => {
            let file = match openat(&here, name, FILE, Mode::empty()) {
                Err(errno) if gone(errno) => return Ok(Packed::Done),
                opened => opened?,
            };
            let stat = fstat(&file)?;
            if entry::kind(&stat) != FileKind::File {
                return Ok(Packed::Done);
            }
            let size = u64::try_from(stat.st_size).unwrap_or_default();
            append(archive, path, EntryType::Regular, &stat, size)?;
            let padding = (BLOCK - size % BLOCK) % BLOCK;
            Ok(Packed::File(Content { file, path: path.to_vec(), left: size, padding }))
        }
        FileKind::Symlink => {
            let target = match readlinkat(&here, name, Vec::new()) {
                Err(Errno::NOENT | Errno::INVAL) => return Ok(Packed::Done),
                target => target?.into_bytes(),
            };
            let mut head = header(EntryType::Symlink, &stat, 0);
            archive.append_link(&mut head, as_path(path), as_path(&target)).map_err(|error| broken(&error))?;
            Ok(Packed::Done)
        }
        FileKind::Other | FileKind::Unspecified => Ok(Packed::Done),
    }
}

impl Content {
    /// Packs some more of the file; returns it unless it is complete.
    fn read(mut self, archive: &mut Vec<u8>) -> Result<Option<Self>, Refusal> {
        let begin = archive.len();
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(READ);
        archive.resize(begin + wanted, 0);
        let count = loop {
            match read(&self.file, &mut archive[begin..]) {
                Err(Errno::INTR) => {}
                count => break count.map_err(|errno| within(&self.path, errno.into()))?,
            }
        };
        if count == 0 && wanted > 0 {
            let detail = "it got shorter while it was read".to_owned();
            return Err(within(&self.path, Refusal { problem: FileProblem::Busy, detail }));
        }
        archive.truncate(begin + count);
        self.left -= count as u64;
        if self.left > 0 {
            return Ok(Some(self));
        }
        archive.resize(archive.len() + usize::try_from(self.padding).unwrap_or_default(), 0);
        Ok(None)
    }
}

fn append(archive: &mut Builder<Vec<u8>>, path: &[u8], kind: EntryType, stat: &Stat, size: u64) -> Result<(), Refusal> {
    // The content follows on its own, so that it never is in memory as a whole.
    archive.append_data(&mut header(kind, stat, size), as_path(path), &b""[..]).map_err(|error| broken(&error))
}

fn header(kind: EntryType, stat: &Stat, size: u64) -> Header {
    let mut head = Header::new_gnu();
    head.set_entry_type(kind);
    head.set_size(size);
    head.set_mode(stat.st_mode & 0o7777);
    head.set_uid(stat.st_uid.into());
    head.set_gid(stat.st_gid.into());
    head.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
    head
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

fn broken(error: &std::io::Error) -> Refusal {
    Refusal { problem: FileProblem::Failed, detail: error.to_string() }
}

/// Names the file in question, since the caller named only the tree.
fn within(path: &[u8], refusal: Refusal) -> Refusal {
    Refusal { detail: format!("{}: {}", String::from_utf8_lossy(path), refusal.detail), ..refusal }
}
