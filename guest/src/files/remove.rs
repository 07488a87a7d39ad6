//! Removes a file, or a directory with everything in it.

use std::sync::atomic::AtomicBool;

use rustix::fs::{AtFlags, Mode, openat, statat, unlinkat};

use super::{entry, path::FilePath, refusal::Refusal, resolve::Tree, resolve::Way};
use errand_os::remove::{Manner, READ, empty};
use errand_proto::bridge::FileKind;
use errand_task::FileProblem;

/// Removes the file or directory at a path. Stops early, with an error, once `stop` is set.
pub(super) fn remove(path: &FilePath, recursive: bool, way: Way, stop: &AtomicBool) -> Result<(), Refusal> {
    let place = Tree::of(path, way)?.place(path)?;
    let name = place.name.as_c_str();
    let stat = statat(&place.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if entry::kind(&stat) != FileKind::Directory {
        if path.names_a_directory() {
            return Err(Refusal::of(FileProblem::NotADirectory));
        }
        return Ok(unlinkat(&place.directory, name, AtFlags::empty())?);
    }
    if recursive {
        let manner = Manner { stop: Some(stop), ..Manner::default() };
        empty(openat(&place.directory, name, READ, Mode::empty())?, manner)?;
    }
    Ok(unlinkat(&place.directory, name, AtFlags::REMOVEDIR)?)
}
