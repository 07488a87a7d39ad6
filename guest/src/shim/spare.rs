//! A task directory that is made before it is asked for, while nothing else is to be done. On a disk where many files were removed a moment
//! ago ext4 looks long for the room of a new one; who renames needs none.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::Path};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::{own_file, task_dir::TaskDir};

/// Its name below the root. No task has it: there is no dot in an id.
const SPARE: &str = ".spare";
/// Its name until it is whole. Whoever finds one that somebody has left goes on with it.
const PART: &str = ".spare.part";

/// The files that every task begins with.
const FILES: [&str; 3] = ["exit.part", "output.log", "processes"];

/// Makes the spare directory the task's, if there is one: false when there is none that can be.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when the task has a directory.
pub(super) fn become_that_of(root: &Path, task: &TaskDir) -> io::Result<bool> {
    match renameat_with(CWD, root.join(SPARE), CWD, task.path(), RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Err(Errno::EXIST.into()),
        Err(_) => Ok(false),
    }
}

/// Makes one if there is none. Where that is not possible the next launch says why.
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
        // Another shim may make the same one, and a task have it already.
        own_file::keep(&part.join(name))?;
    }
    Ok(renameat_with(CWD, part, CWD, spare, RenameFlags::NOREPLACE)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_spare_becomes_one_directory_and_replaces_none() {
        let root = tempfile::tempdir().expect("a directory");
        let task = |id| TaskDir::new(root.path(), id).expect("an id");
        assert!(!become_that_of(root.path(), &task("a")).expect("there is none"));

        // One that somebody has left half made.
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
