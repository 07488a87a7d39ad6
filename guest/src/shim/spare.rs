//! Prepares a task directory before it is requested, while its process is idle. Allocating inodes after a mass deletion is slow on ext4; a
//! rename allocates none.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::Path};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::{own_file, task_dir::TaskDir};

/// The name of the spare directory below the root. No task has this name: an id contains no dot.
const SPARE: &str = ".spare";
/// The name of the spare directory until it is complete. A shim that finds an incomplete one completes it.
const PART: &str = ".spare.part";

/// The files that every task starts with.
const FILES: [&str; 3] = ["exit.part", "output.log", "processes"];

/// Renames the spare directory to the task's directory. Returns false when there is no usable spare directory.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when the task already has a directory.
pub(super) fn become_that_of(root: &Path, task: &TaskDir) -> io::Result<bool> {
    match renameat_with(CWD, root.join(SPARE), CWD, task.path(), RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Err(Errno::EXIST.into()),
        Err(_) => Ok(false),
    }
}

/// Makes a spare directory if there is none. Ignores errors: the next launch reports them.
pub(crate) fn make(root: &Path) {
    let _ = try_to_make(root);
}

fn try_to_make(root: &Path) -> io::Result<()> {
    let (spare, part) = (root.join(SPARE), root.join(PART));
    if spare.symlink_metadata().is_ok() {
        return Ok(());
    }
    match DirBuilder::new().mode(0o700).create(&part) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for name in FILES {
        // Another shim may be making the same directory, and a task may have taken it already.
        own_file::keep(&part.join(name))?;
    }
    Ok(renameat_with(CWD, part, CWD, spare, RenameFlags::NOREPLACE)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn spare_becomes_at_most_one_task_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let task = |id| TaskDir::new(root.path(), id).expect("an id");
        assert!(!become_that_of(root.path(), &task("a")).expect("there is none"));

        // A directory that another shim has left incomplete.
        fs::create_dir(root.path().join(PART)).expect("made");
        make(root.path());
        make(root.path());
        fs::create_dir(task("a").path()).expect("made");
        let refused = become_that_of(root.path(), &task("a")).map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::AlreadyExists));
        assert_eq!(fs::read_dir(task("a").path()).expect("read").count(), 0);

        assert!(become_that_of(root.path(), &task("b")).expect("there is one"));
        let mut names: Vec<_> =
            fs::read_dir(task("b").path()).expect("read").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, FILES);
        assert!(!become_that_of(root.path(), &task("c")).expect("it is taken"));
        assert_eq!(fs::read_dir(root.path()).expect("read").count(), 2);
    }
}
