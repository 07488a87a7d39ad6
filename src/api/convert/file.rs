//! Converts a file's description to the wire type.

use super::{count, timestamp};
use errand_proto::v1;
use errand_task::{ChangedFile, FileChange, FileEntry, FileKind, TreeWritten};

/// Converts a file's description.
pub(in crate::api) fn file(entry: FileEntry) -> v1::FileEntry {
    let name = String::from_utf8_lossy(&entry.name);
    v1::FileEntry {
        name_is_inexact: std::str::from_utf8(&entry.name).is_err(),
        name: name.into_owned(),
        kind: kind(entry.kind).into(),
        size_bytes: count(entry.size),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        modified_at: Some(timestamp(entry.modified)),
        link_target: String::from_utf8_lossy(&entry.link_target).into_owned(),
    }
}

/// Converts the answer to an unpacked tree.
pub(in crate::api) fn tree(written: TreeWritten) -> v1::WriteTreeResponse {
    let TreeWritten { entry, unpacked, left_out } = written;
    v1::WriteTreeResponse { entry: Some(file(entry)), unpacked: count(unpacked), left_out: count(left_out) }
}

/// Converts a change in a watched directory.
pub(in crate::api) fn file_change(change: FileChange) -> v1::FileChange {
    use v1::FileChangeKind as Kind;
    let of = |kind: Kind, file: ChangedFile| v1::FileChange {
        kind: kind.into(),
        path_is_inexact: std::str::from_utf8(&file.path).is_err(),
        path: String::from_utf8_lossy(&file.path).into_owned(),
        old_path: String::new(),
        is_directory: file.is_directory,
    };
    match change {
        FileChange::Created(file) => of(Kind::Created, file),
        FileChange::Modified(file) => of(Kind::Modified, file),
        FileChange::Removed(file) => of(Kind::Removed, file),
        FileChange::Renamed { from, to } => {
            v1::FileChange { old_path: String::from_utf8_lossy(&from).into_owned(), ..of(Kind::Renamed, to) }
        }
        FileChange::Overflow => v1::FileChange { kind: Kind::Overflow.into(), ..v1::FileChange::default() },
    }
}

fn kind(kind: FileKind) -> v1::FileKind {
    match kind {
        FileKind::File => v1::FileKind::File,
        FileKind::Directory => v1::FileKind::Directory,
        FileKind::Symlink => v1::FileKind::Symlink,
        FileKind::Other => v1::FileKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn non_utf8_name_is_marked() {
        let entry = |name: &[u8]| {
            file(FileEntry {
                name: name.to_vec(),
                kind: FileKind::Symlink,
                size: 1,
                mode: 0o777,
                uid: 2,
                gid: 3,
                modified: SystemTime::UNIX_EPOCH,
                link_target: b"a\xff".to_vec(),
            })
        };
        assert_eq!((entry("ä\n".as_bytes()).name.as_str(), entry(b"a").name_is_inexact), ("ä\n", false));
        assert_eq!((entry(b"a\xff").name.as_str(), entry(b"a\xff").name_is_inexact), ("a\u{FFFD}", true));
        assert_eq!(entry(b"a").link_target, "a\u{FFFD}");
    }
}
