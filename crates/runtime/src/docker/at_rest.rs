//! Reads files of containers that do not run. The engine sends each as an archive of one entry.

use bollard::{Docker, query_parameters::DownloadFromContainerOptionsBuilder};
use futures_util::StreamExt as _;

use super::error;
use crate::{FileAtRest, RuntimeError};

/// Room for the entry's header and the records that may precede it: a long name, times.
const HEADERS: usize = 16 * 1024;

pub(super) async fn read(
    docker: &Docker,
    runtime_id: &str,
    path: &str,
    limit: usize,
) -> Result<Option<FileAtRest>, RuntimeError> {
    let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
    let mut archive = std::pin::pin!(docker.download_from_container(runtime_id, Some(options)));
    let mut beginning = Vec::new();
    while beginning.len() < HEADERS + limit
        && let Some(piece) = archive.next().await
    {
        match piece {
            Ok(piece) => beginning.extend_from_slice(&piece),
            // The engine gives the same answer for a missing container and for a missing file in it.
            Err(failure) => match error::about_container(failure, runtime_id) {
                RuntimeError::NoSuchSandbox { .. } | RuntimeError::Refused { .. } => return Ok(None),
                other => return Err(other),
            },
        }
    }
    Ok(first_file(&beginning, limit))
}

/// The first entry of an archive, if it is a regular file. `beginning` holds the archive's first bytes.
fn first_file(beginning: &[u8], limit: usize) -> Option<FileAtRest> {
    let mut archive = tar::Archive::new(beginning);
    let entry = archive.entries().ok()?.next()?.ok()?;
    let (size, start) = (entry.size(), usize::try_from(entry.raw_file_position()).ok()?);
    if !entry.header().entry_type().is_file() {
        return None;
    }
    let length = usize::try_from(size).unwrap_or(usize::MAX).min(limit);
    let content = beginning.get(start..start.checked_add(length)?)?.to_vec();
    Some(FileAtRest { size, content })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn archive(kind: tar::EntryType, name: &str, content: &[u8]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content).unwrap();
        archive.into_inner().unwrap()
    }

    #[test]
    fn beginning_of_a_regular_file_is_read() {
        let name = "n".repeat(300);
        let whole = archive(tar::EntryType::Regular, &name, &[b'x'; 5000]);
        let read = |limit| first_file(&whole[..HEADERS.min(whole.len())], limit).unwrap();
        assert_eq!(read(3), FileAtRest { size: 5000, content: b"xxx".to_vec() });
        assert_eq!(read(0), FileAtRest { size: 5000, content: Vec::new() });
        assert_eq!(read(9999).content.len(), 5000);
    }

    #[test]
    fn archive_without_a_complete_file_yields_none() {
        assert_eq!(first_file(&archive(tar::EntryType::Fifo, "exit", b""), 10), None);
        assert_eq!(first_file(&archive(tar::EntryType::Directory, "exit", b""), 10), None);
        let cut = archive(tar::EntryType::Regular, "exit", &[b'x'; 600]);
        assert_eq!(first_file(&cut[..700], 600), None, "the content is cut short");
        assert_eq!(first_file(b"no archive", 10), None);
    }
}
