//! Describes files for the server.

use rustix::{
    fd::AsFd,
    fs::{AtFlags, FileType, Stat, readlinkat, statat},
    io::Errno,
};

use errand_proto::bridge::{FileEntry, FileKind};

/// Converts the result of stat(2).
pub(super) fn of(name: &[u8], stat: &Stat, link_target: Vec<u8>) -> FileEntry {
    let micros = stat.st_mtime * 1_000_000 + i64::try_from(stat.st_mtime_nsec / 1000).unwrap_or_default();
    FileEntry {
        name: name.to_vec().into(),
        kind: kind(stat).into(),
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified_us: micros,
        link_target: link_target.into(),
    }
}

/// Describes the file with this name in a directory. A link is described itself, not its target.
pub(super) fn named(directory: impl AsFd, name: &[u8]) -> Result<FileEntry, Errno> {
    let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let target = match kind(&stat) {
        FileKind::Symlink => readlinkat(&directory, name, Vec::new())?.into_bytes(),
        FileKind::Unspecified | FileKind::File | FileKind::Directory | FileKind::Other => Vec::new(),
    };
    Ok(of(name, &stat, target))
}

pub(super) fn kind(stat: &Stat) -> FileKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    }
}
