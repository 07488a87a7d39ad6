//! Lists a directory one batch at a time.

use rustix::{fs::Dir, io::Errno};
use tonic::Status;

use super::{Files, entry};
use errand_proto::bridge::{FileEntry, ListDirectoryResponse};

/// The most entries of a directory in one message.
pub(super) const BATCH: usize = 256;
/// A message gets no further entries once its names and link targets have this many bytes. The server accepts messages of 128 KiB.
const BATCH_BYTES: usize = 64 * 1024;

/// A directory that is being listed.
pub(super) struct Listing {
    pub(super) files: Files,
    pub(super) directory: Dir,
    pub(super) words: Vec<u8>,
}

impl Listing {
    pub(super) async fn step(listing: Option<Self>) -> Option<(Result<ListDirectoryResponse, Status>, Option<Self>)> {
        let Self { files, mut directory, words } = listing?;
        let read = files.blocking(move || {
            let entries = read_batch(&mut directory)?;
            Ok((entries, directory))
        });
        match read.await {
            Ok((entries, _)) if entries.is_empty() => None,
            Ok((entries, directory)) => {
                Some((Ok(ListDirectoryResponse { entries }), Some(Self { files, directory, words })))
            }
            Err(refusal) => Some((Err(refusal.into_status(&words)), None)),
        }
    }
}

fn read_batch(directory: &mut Dir) -> Result<Vec<FileEntry>, Errno> {
    let mut entries: Vec<FileEntry> = Vec::new();
    let mut bytes = 0;
    while entries.len() < BATCH && bytes < BATCH_BYTES {
        let Some(found) = directory.read() else { break };
        let found = found?;
        let name = found.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        match entry::named(directory.fd()?, name) {
            // The entry was removed since the directory was read, or it no longer is a link.
            Err(Errno::NOENT | Errno::INVAL) => {}
            entry => {
                let entry = entry?;
                bytes += entry.name.len() + entry.link_target.len();
                entries.push(entry);
            }
        }
    }
    Ok(entries)
}
