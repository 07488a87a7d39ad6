//! Opens the files that the bridge process and its shims keep: those of task directories, and those of the bridge process itself.
//!
//! Commands run as the same user and can put anything in place of such a file: a FIFO, a symbolic link, a directory, a file without end. So
//! opening never blocks and never follows a link, reading is bounded, and anything but a regular file counts as absent.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Opening a FIFO does not wait for its other end, a link is not followed, and a terminal does not become the controlling terminal.
const FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;

/// Opens a file for reading.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] also when the path is not a regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    regular(File::options().read(true), path)
}

/// Reads the first `limit` bytes of a file.
///
/// # Errors
/// As for [`open`], and when the file cannot be read.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.take(limit).read_to_end(&mut content)?;
    Ok(content)
}

/// Opens an empty file for writing. Removes anything but a directory that has this path.
///
/// # Errors
/// When the file cannot be created.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    replacing(File::options().write(true).create(true).truncate(true), path)
}

/// Opens a file for writing and keeps its content. Removes any other kind of file, except a directory, that has this path.
///
/// # Errors
/// When the file cannot be created.
pub(crate) fn keep(path: &Path) -> io::Result<File> {
    replacing(File::options().read(true).write(true).create(true).truncate(false), path)
}

/// Opens a file for appending. Removes any other kind of file, except a directory, that has this path.
///
/// # Errors
/// When the file cannot be created.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    replacing(File::options().append(true).create(true), path)
}

/// Writes a file with this content.
///
/// # Errors
/// As for [`create`], and when the content cannot be written.
pub(crate) fn write(path: &Path, content: &str) -> io::Result<()> {
    create(path)?.write_all(content.as_bytes())
}

/// Creates an empty file whose existence is its meaning. Any file that already has the path serves as well, except a directory.
///
/// # Errors
/// When no such file exists and none can be created.
pub(crate) fn mark(path: &Path) -> io::Result<()> {
    match File::options().write(true).create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || path.is_dir() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether any file has this path.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    match options.custom_flags(FLAGS).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(not_regular(path)),
        // ELOOP: a symbolic link. ENXIO: a socket, or a FIFO opened for writing that has no reader.
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

    /// Puts something other than a regular file at this path.
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
    fn fifos_and_links_neither_block_nor_are_read() {
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
    fn reopened_files_keep_their_content() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        drop(keep(&path).expect("made"));
        fs::write(&path, "old").expect("written");
        drop(keep(&path).expect("open"));
        append(&path).and_then(|mut file| file.write_all(b"er")).expect("written");
        assert_eq!(read(&path, 9).expect("read"), b"older");
    }
}
