//! Packs files into archives, for sandboxes without a shell.

use std::path::{Component, Path};

use bytes::Bytes;

/// A file in an archive, and where to unpack it.
pub(super) struct Archive {
    /// An absolute path, one level deep. The engine accepts the mount point of a volume even if the root is read-only.
    pub(super) directory: String,
    pub(super) content: Bytes,
}

/// Packs a file for `owner`, with the directories above it. None if the path is not absolute, or directly below the root.
pub(super) fn pack(path: &str, content: &[u8], mode: u32, owner: Option<u64>) -> Option<Archive> {
    let mut parts = Path::new(path).components();
    if parts.next() != Some(Component::RootDir) {
        return None;
    }
    let directory = format!("/{}", parts.next()?.as_os_str().to_str()?);
    let below = parts.as_path();
    below.parent()?;
    let mut archive = tar::Builder::new(Vec::new());
    let mut above: Vec<&Path> = below.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    above.reverse();
    let header = |kind: tar::EntryType, mode: u32, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header.set_uid(owner.unwrap_or(0));
        header.set_gid(owner.unwrap_or(0));
        header
    };
    for directory in above {
        let mut header = header(tar::EntryType::Directory, 0o711, 0);
        archive.append_data(&mut header, directory, std::io::empty()).ok()?;
    }
    archive.append_data(&mut header(tar::EntryType::Regular, mode, content.len()), below, content).ok()?;
    Some(Archive { directory, content: archive.into_inner().ok()?.into() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn file_is_packed_with_its_parent_directories() {
        let archive = pack("/tmp/errand/.bridge/program", b"content", 0o700, Some(1000)).unwrap();
        assert_eq!(archive.directory, "/tmp");
        let mut unpacked = tar::Archive::new(&archive.content[..]);
        let entries: Vec<_> = unpacked
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                (path, entry.header().mode().unwrap(), entry.header().uid().unwrap(), entry.size())
            })
            .collect();
        assert_eq!(
            entries,
            [
                ("errand".to_owned(), 0o711, 1000, 0),
                ("errand/.bridge".to_owned(), 0o711, 1000, 0),
                ("errand/.bridge/program".to_owned(), 0o700, 1000, 7)
            ]
        );
        for path in ["relative/x", "/", "/x", ""] {
            assert!(pack(path, b"", 0, None).is_none(), "{path:?}");
        }
    }
}
