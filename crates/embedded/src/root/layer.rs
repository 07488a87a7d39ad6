//! Unpacking a layer of an image.

use std::{
    collections::HashSet,
    io::{self, BufRead as _, BufReader, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use tar::{Entry, EntryType};

use super::tree::Tree;

/// A name that begins so says what is not there any more.
const WHITEOUT: &[u8] = b".wh.";
/// This one says so of all that lower layers have put beside it.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// How compressed files begin.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Whether a file that begins so is compressed with gzip.
///
/// # Errors
/// For a way to compress that is not known here.
pub(super) fn is_compressed(beginning: &[u8]) -> io::Result<bool> {
    if beginning.starts_with(&ZSTD) {
        return Err(io::Error::other("it is compressed with zstd; use gzip, or nothing"));
    }
    Ok(beginning.starts_with(&GZIP))
}

/// Unpacks an archive over what is there, compressed or not. Device nodes and pipes are passed over: nothing in a sandbox could use them.
pub(super) fn unpack(tree: &Tree, layer: impl Read) -> io::Result<()> {
    let mut layer = BufReader::new(layer);
    if is_compressed(layer.fill_buf()?)? { put(tree, MultiGzDecoder::new(layer)) } else { put(tree, layer) }
}

fn put(tree: &Tree, layer: impl Read) -> io::Result<()> {
    // What this layer has brought itself stays when it hides what is below.
    let mut brought = HashSet::new();
    for entry in tar::Archive::new(layer).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.file_name().unwrap_or_default().as_bytes();
        let above = path.parent().unwrap_or(Path::new(""));
        if name == OPAQUE {
            for name in tree.names(above)? {
                if !brought.contains(&above.join(&name)) {
                    tree.remove(&above.join(&name))?;
                }
            }
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            tree.remove(&above.join(std::ffi::OsStr::from_bytes(hidden)))?;
        } else {
            put_entry(tree, &path, &mut entry)
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
            remember(&mut brought, &path);
        }
    }
    Ok(())
}

/// An entry brings the directories above it along.
fn remember(brought: &mut HashSet<PathBuf>, path: &Path) {
    for path in path.ancestors() {
        if !brought.insert(path.to_owned()) {
            return;
        }
    }
}

fn put_entry(tree: &Tree, path: &Path, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
    let mode = entry.header().mode()?;
    let target = |entry: &Entry<'_, _>| -> io::Result<PathBuf> {
        let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link without a target"))?;
        Ok(target.into_owned())
    };
    match entry.header().entry_type() {
        EntryType::Directory => tree.directory(path, for_all(mode) | 0o700),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => tree.file(path, for_all(mode), entry),
        EntryType::Symlink => tree.link(path, &target(entry)?),
        EntryType::Link => tree.name(path, &target(entry)?),
        _ => Ok(()),
    }
}

/// What the owner of a file may do, for everybody: all of a sandbox's users are one outside, and not the one that unpacks.
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
            // Past the builder, which refuses paths that an archive may well hold.
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
    fn layers_hide_what_lower_ones_have_brought() {
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
    fn no_archive_writes_outside_of_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        let inside = directory.path().join("inside");
        fs::create_dir(&outside).unwrap();
        fs::create_dir(&inside).unwrap();
        fs::write(outside.join("kept"), "kept").unwrap();
        let tree = Tree::open(&inside).unwrap();
        let away = outside.to_str().unwrap();
        let links = [("etc", EntryType::Symlink, away), ("up", EntryType::Symlink, "../outside")];
        unpack(&tree, &archive(&links)[..]).unwrap();
        // Below the root, the links lead nowhere.
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
