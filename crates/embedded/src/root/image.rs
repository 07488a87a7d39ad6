//! An image's directory as the root of a sandbox: its settings, its texts, and bubblewrap's arguments for it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{archive::Settings, etc, tree::Tree};

/// The file with an unpacked image's settings, beside its root.
pub(super) const SETTINGS: &str = "settings.json";
/// How much of a text file of an image is read, in bytes.
pub(super) const FILE_LIMIT: u64 = 1 << 20;
/// Names in a sandbox's root that never come from the image.
const OWN: [&str; 6] = ["proc", "dev", "sys", "tmp", "workspace", "run"];

/// The settings of an image; empty when the image was not unpacked from an archive.
pub(super) fn settings(root: &Path) -> Settings {
    let text = root.parent().and_then(|directory| fs::read(directory.join(SETTINGS)).ok());
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// The content of an image's text file; empty when it cannot be read.
pub(super) fn text(root: &Path, path: &str) -> String {
    let read = Tree::open(root).and_then(|tree| tree.read(path, FILE_LIMIT));
    read.ok().flatten().unwrap_or_default()
}

/// Bubblewrap's arguments that mount an image read-only. `directory`: the image's directory as bubblewrap sees it.
///
/// # Errors
/// When the image's directory cannot be read.
pub(super) fn arguments(root: &Path, directory: &Path, etc: &Path) -> io::Result<Vec<String>> {
    let mut arguments = Vec::new();
    let mut add = |words: [&str; 3]| arguments.extend(words.map(str::to_owned));
    let mut entries = fs::read_dir(root)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if OWN.contains(&&*name) {
            continue;
        }
        let target = format!("/{name}");
        if entry.file_type()?.is_symlink() {
            add(["--symlink", &fs::read_link(entry.path())?.to_string_lossy(), &target]);
        } else {
            add(["--ro-bind", &directory.join(&name).to_string_lossy(), &target]);
        }
    }
    arguments.extend(etc_arguments(root, etc));
    Ok(arguments)
}

/// Bubblewrap's arguments that mount the sandbox's files of `/etc` over those of an image.
pub(super) fn etc_arguments(root: &Path, etc: &Path) -> Vec<String> {
    let is_directory = |path: PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let is_file = |path: PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    if !is_directory(root.join("etc")) {
        return Vec::new();
    }
    let existing = etc::NAMES.into_iter().filter(|name| is_file(root.join("etc").join(name)));
    existing
        .flat_map(|name| {
            ["--ro-bind".to_owned(), etc.join(name).to_string_lossy().into_owned(), format!("/etc/{name}")]
        })
        .collect()
}
