//! Finds programs of the host.

use std::{env, os::unix::fs::PermissionsExt as _, path::PathBuf};

/// Directories that are searched after `PATH`: the `PATH` of a server that a user starts often lacks the `sbin` directories.
pub(super) const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The path of an executable program; none when it is not installed.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from)).collect();
    directories
        .into_iter()
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|file| file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0))
}
