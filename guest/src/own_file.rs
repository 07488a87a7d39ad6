//! Opens the files that the bridge and its shims keep: those of a task directory and of the bridge's own.
//!
//! Commands have the same user and can put anything in their place: a FIFO, a link, a directory, a file without end. So opening here never
//! blocks and follows no link, reading is bounded, and what is no regular file counts as absent.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// A FIFO is opened without waiting for its other end, a link is not followed, a terminal does not become this process's own.
const FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;

/// Opens a file for reading.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] also for what is no regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    regular(File::options().read(true), path)
}

/// Reads the first `limit` bytes of a file.
///
/// # Errors
/// As for [`open`], and when it cannot be read.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.take(limit).read_to_end(&mut content)?;
    Ok(content)
}

/// Opens an empty file for writing. What stands in its place is removed, but for a directory.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    replacing(File::options().write(true).create(true).truncate(true), path)
}

/// Opens a file for writing and keeps its content. What stands in its place is removed, but for a directory.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn keep(path: &Path) -> io::Result<File> {
    replacing(File::options().read(true).write(true).create(true).truncate(false), path)
}

/// Opens a file for writing at its end. What stands in its place is removed, but for a directory.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    replacing(File::options().append(true).create(true), path)
}

/// Writes a whole file.
///
/// # Errors
/// As for [`create`], and when it cannot be written.
pub(crate) fn write(path: &Path, content: &str) -> io::Result<()> {
    create(path)?.write_all(content.as_bytes())
}

/// Makes an empty file that means something by being there. Anything of that name is as good, but for a directory.
///
/// # Errors
/// When there is none and it cannot be made.
pub(crate) fn mark(path: &Path) -> io::Result<()> {
    match File::options().write(true).create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || path.is_dir() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// True when there is anything of that name.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    match options.custom_flags(FLAGS).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(not_regular(path)),
        // A link; a socket, or a FIFO that is to be written and has no reader.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => Err(not_regular(path)),
        Err(error) => Err(error),
    }
}

fn replacing(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    match regular(options, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::remove_file(path).map_err(|_| error)?;
            regular(options.create_new(true), path)
        }
        opened => opened,
    }
}

fn not_regular(path: &Path) -> io::Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    io::Error::new(io::ErrorKind::NotFound, format!("{name} is not a regular file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts something that is no regular file there.
    fn put(what: &str, path: &Path) {
        use std::os::unix::{fs::symlink, net::UnixListener};
        match what {
            "FIFO" => mkfifo(path),
            "link" => symlink("/dev/zero", path).expect("linked"),
            "dangling link" => symlink("nowhere", path).expect("linked"),
            _ => drop(UnixListener::bind(path).expect("bound")),
        }
    }

    fn mkfifo(path: &Path) {
        let status = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo");
        assert!(status.success());
    }

    #[test]
    fn impostors_neither_block_nor_are_read() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        for what in ["FIFO", "link", "dangling link", "socket"] {
            put(what, &path);
            assert_eq!(open(&path).map_err(|error| error.kind()).err(), Some(io::ErrorKind::NotFound), "{what}");
            mark(&path).expect("it is there");
            assert!(exists(&path), "{what}");
            write(&path, "new").unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(read(&path, 2).expect("read"), b"ne", "{what}");
            fs::remove_file(&path).expect("removed");
        }
        fs::create_dir(&path).expect("made");
        assert!(open(&path).is_err() && create(&path).is_err() && keep(&path).is_err() && mark(&path).is_err());
    }

    #[test]
    fn a_fifo_with_a_reader_is_replaced_too() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        mkfifo(&path);
        let _reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("open");
        write(&path, "new").expect("written");
        assert_eq!(read(&path, 9).expect("read"), b"new");
    }

    #[test]
    fn what_is_kept_keeps_its_content() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        drop(keep(&path).expect("made"));
        fs::write(&path, "old").expect("written");
        drop(keep(&path).expect("open"));
        append(&path).and_then(|mut file| file.write_all(b"er")).expect("written");
        assert_eq!(read(&path, 9).expect("read"), b"older");
    }
}
