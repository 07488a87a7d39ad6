//! Writes a file into the sandbox without using any of the sandbox's programs.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Printed once the file is in place.
pub const WRITTEN: &str = "written\n";

/// Writes standard input to a file with these permissions, whole or not at all. Creates missing parent directories, accessible to this user
/// only.
///
/// # Errors
/// When the file cannot be written. Reads `size` bytes even then: the sender reads the answer only after it has sent everything, and need
/// not end the input.
pub fn run(path: &Path, size: u64, mode: u32) -> io::Result<()> {
    let mut input = io::stdin().lock().take(size);
    let written = write(path, size, mode, &mut input);
    if written.is_err() {
        io::copy(&mut input, &mut io::sink())?;
    }
    written?;
    io::stdout().write_all(WRITTEN.as_bytes())
}

fn write(path: &Path, size: u64, mode: u32, input: &mut impl io::Read) -> io::Result<()> {
    let Some(directory) = path.parent().filter(|_| path.is_absolute()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the absolute path of a file"));
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Two processes may be writing the same file.
    let part = PathBuf::from(format!("{}.{}.part", path.display(), std::process::id()));
    let done = write_part(&part, size, mode, input).and_then(|()| fs::rename(&part, path));
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    done
}

fn write_part(part: &Path, size: u64, mode: u32, input: &mut impl io::Read) -> io::Result<()> {
    // A command may have put a FIFO or a link there to block this process or to redirect the write.
    let _ = fs::remove_file(part);
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(part)?;
    if io::copy(&mut input.take(size), &mut file)? != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_written_completely_or_not_at_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a/b/file");
        write(&path, 3, 0o640, &mut &b"abc"[..]).expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"abc");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
        let above = path.parent().expect("a directory");
        assert_eq!(fs::metadata(above).expect("there").permissions().mode() & 0o777, 0o700);

        assert!(write(&path, 5, 0o600, &mut &b"cut"[..]).is_err(), "less than was promised");
        assert_eq!(fs::read(&path).expect("read"), b"abc", "what was there stays");
        assert_eq!(fs::read_dir(above).expect("read").count(), 1, "and no part is left");
        assert!(write(Path::new("relative"), 0, 0o600, &mut io::empty()).is_err());
    }
}
