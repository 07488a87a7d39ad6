//! Unpacks one layer of an image over the layers below it.

use std::{
    collections::HashSet,
    io::{self, BufRead as _, BufReader, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use tar::{Entry, EntryType};

use super::tree::Tree;

/// Prefix of a marker that removes a file of a lower layer.
const WHITEOUT: &[u8] = b".wh.";
/// The marker that removes everything that lower layers have put into its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The first bytes of a file compressed with gzip.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The first bytes of a file compressed with zstd.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Whether a file with these first bytes is compressed with gzip.
///
/// # Errors
/// For zstd, which is not supported.
pub(super) fn is_compressed(start: &[u8]) -> io::Result<bool> {
    if start.starts_with(&ZSTD) {
        return Err(io::Error::other("zstd compression is not supported; use gzip or no compression"));
    }
    Ok(start.starts_with(&GZIP))
}

/// Unpacks a layer into a tree. Skips device nodes and named pipes, which no sandbox can use.
pub(super) fn unpack(tree: &Tree, layer: impl Read) -> io::Result<()> {
    let mut layer = BufReader::new(layer);
    if is_compressed(layer.fill_buf()?)? {
        unpack_tar(tree, MultiGzDecoder::new(layer))
    } else {
        unpack_tar(tree, layer)
    }
}

fn unpack_tar(tree: &Tree, layer: impl Read) -> io::Result<()> {
    // An opaque marker removes only what lower layers have put into the directory, not what this layer has.
    let mut own = HashSet::new();
    for entry in tar::Archive::new(layer).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.file_name().unwrap_or_default().as_bytes();
        let parent = path.parent().unwrap_or(Path::new(""));
        if name == OPAQUE {
            for name in tree.names(parent)? {
                if !own.contains(&parent.join(&name)) {
                    tree.remove(&parent.join(&name))?;
                }
            }
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            tree.remove(&parent.join(std::ffi::OsStr::from_bytes(hidden)))?;
        } else {
            unpack_entry(tree, &path, &mut entry)
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
            add_with_parents(&mut own, &path);
        }
    }
    Ok(())
}

/// Adds a path and the directories above it, which belong to the layer too.
fn add_with_parents(own: &mut HashSet<PathBuf>, path: &Path) {
    for path in path.ancestors() {
        if !own.insert(path.to_owned()) {
            return;
        }
    }
}

fn unpack_entry(tree: &Tree, path: &Path, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
    let mode = entry.header().mode()?;
    let target = |entry: &Entry<'_, _>| -> io::Result<PathBuf> {
        let target = entry.link_name()?.ok_or_else(|| io::Error::other("link without a target"))?;
        Ok(target.into_owned())
    };
    match entry.header().entry_type() {
        EntryType::Directory => tree.make_directory(path, for_all(mode) | 0o700),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            tree.write_file(path, for_all(mode), entry)
        }
        EntryType::Symlink => tree.symlink(path, &target(entry)?),
        EntryType::Link => tree.hard_link(path, &target(entry)?),
        _ => Ok(()),
    }
}

/// Grants the owner's permissions to read and execute to everybody: a sandbox has one host user, who does not own the unpacked files.
fn for_all(mode: u32) -> u32 {
    let owner = mode & 0o700;
    let readers = mode & 0o500;
    owner | readers >> 3 | readers >> 6
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o4750);
            // Set in the header directly, because the builder refuses paths that a hostile archive can contain.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            let content = if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.as_gnu_mut().unwrap().linkname[..content.len()].copy_from_slice(content.as_bytes());
                ""
            } else {
                content
            };
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive.append(&header, content.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn markers_remove_files_of_lower_layers() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        let lower = [
            ("a/one", EntryType::Regular, "1"),
            ("a/two", EntryType::Regular, "2"),
            ("b/three", EntryType::Regular, "3"),
            ("c", EntryType::Regular, "4"),
        ];
        let upper = [
            ("b/new", EntryType::Regular, "5"),
            ("b/.wh..wh..opq", EntryType::Regular, ""),
            ("a/.wh.one", EntryType::Regular, ""),
            ("c", EntryType::Directory, ""),
            ("d", EntryType::Link, "a/two"),
            ("e", EntryType::Symlink, "/a/two"),
            ("null", EntryType::Char, ""),
        ];
        for layer in [&lower[..], &upper] {
            unpack(&tree, &archive(layer)[..]).unwrap();
        }
        let at = |path: &str| directory.path().join(path);
        assert!(!at("a/one").exists() && !at("b/three").exists() && !at("null").exists());
        assert_eq!(fs::read_to_string(at("b/new")).unwrap(), "5");
        assert_eq!(fs::read_to_string(at("d")).unwrap(), "2");
        assert!(at("c").is_dir());
        assert_eq!(tree.read("e", 10).unwrap().unwrap(), "2", "links are followed below the root");
        assert_eq!(fs::metadata(at("d")).unwrap().permissions().mode() & 0o7777, 0o755, "no setuid");
    }

    #[test]
    fn no_archive_writes_outside_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        let inside = directory.path().join("inside");
        fs::create_dir(&outside).unwrap();
        fs::create_dir(&inside).unwrap();
        fs::write(outside.join("kept"), "kept").unwrap();
        let tree = Tree::open(&inside).unwrap();
        let target = outside.to_str().unwrap();
        let links = [("etc", EntryType::Symlink, target), ("up", EntryType::Symlink, "../outside")];
        unpack(&tree, &archive(&links)[..]).unwrap();
        // Resolved below the root, the links have no target.
        for entry in ["etc/x", "up/x", "etc/.wh.kept"] {
            assert!(unpack(&tree, &archive(&[(entry, EntryType::Regular, "x")])[..]).is_err(), "{entry}");
        }
        unpack(&tree, &archive(&[("up/.wh..wh..opq", EntryType::Regular, "")])[..]).unwrap();
        for path in ["../outside/x", "a/../../outside/x"] {
            assert!(unpack(&tree, &archive(&[(path, EntryType::Regular, "x")])[..]).is_err(), "{path}");
        }
        assert!(unpack(&tree, &archive(&[("h", EntryType::Link, "up/../kept")])[..]).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    }
}
