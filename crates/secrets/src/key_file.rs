//! The file of the keys: one key a line, 64 hexadecimal digits. The first key encrypts; all of them decrypt. Empty lines, and lines that
//! begin with `#`, mean nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// A key.
pub(crate) type Key = Zeroizing<[u8; 32]>;

/// The most keys of a file.
const KEYS: usize = 64;

/// Why the keys cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or made.
    #[error("the key file {} cannot be read or made", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else than keys.
    #[error("the key file {}, line {line}: must be 64 hexadecimal digits, as of: openssl rand -hex 32", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The file holds no key, or too many.
    #[error("the key file {} must hold 1 to {KEYS} keys, holds {found}", path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// How many it holds.
        found: usize,
    },
    /// Other users may read the file.
    #[error("the key file {0} can be read by other users; run: chmod 600 {0}", path.display())]
    Public {
        /// The file.
        path: PathBuf,
    },
    /// The system has no random numbers.
    #[error("no key can be made: the system gives no random numbers")]
    NoRandomness,
}

/// Reads the keys, or makes the file with a new one. The file appears whole or not at all.
pub(crate) fn read_or_make(path: &Path) -> Result<Vec<Key>, KeyFileError> {
    let failed = |source| KeyFileError::Io { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) => {
            let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(KeyFileError::Public { path: path.to_owned() });
            }
            parse(path, &Zeroizing::new(text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = new_key()?;
            write(path, &key).map_err(failed)?;
            Ok(vec![key])
        }
        Err(error) => Err(failed(error)),
    }
}

/// A random key.
pub(crate) fn new_key() -> Result<Key, KeyFileError> {
    let mut key = Key::default();
    getrandom::fill(&mut *key).map_err(|_| KeyFileError::NoRandomness)?;
    Ok(key)
}

fn write(path: &Path, key: &Key) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part)?;
    let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(&key[..]))));
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(part, path)?;
    // Without this, a crash of the machine could leave records that were encrypted with a key that is gone.
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn parse(path: &Path, text: &str) -> Result<Vec<Key>, KeyFileError> {
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut key = Key::default();
        hex::decode_to_slice(line, &mut *key)
            .map_err(|_| KeyFileError::Malformed { path: path.to_owned(), line: number })?;
        keys.push(key);
    }
    if keys.is_empty() || keys.len() > KEYS {
        return Err(KeyFileError::Count { path: path.to_owned(), found: keys.len() });
    }
    Ok(keys)
}
