//! Reads a file one piece at a time.

use std::sync::Arc;

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    fd::OwnedFd,
    fs::{OFlags, fstat},
    io::{Errno, pread},
};
use tonic::Status;

use super::{
    Files, PIECE, entry,
    path::FilePath,
    refusal::Refusal,
    resolve::{Tree, Way},
};
use errand_proto::bridge::{FileEntry, FileKind, ReadFileResponse, read_file_response};
use errand_task::FileProblem;

/// A file that is being read.
pub(super) struct Reading {
    pub(super) files: Files,
    /// The file's description, until it was sent.
    pub(super) entry: Option<FileEntry>,
    pub(super) file: Arc<OwnedFd>,
    pub(super) offset: u64,
    pub(super) left: u64,
    pub(super) words: Vec<u8>,
}

impl Reading {
    pub(super) async fn step(reading: Option<Self>) -> Option<(Result<ReadFileResponse, Status>, Option<Self>)> {
        let mut reading = reading?;
        if let Some(entry) = reading.entry.take() {
            return Some((Ok(message(read_file_response::Part::Entry(entry))), Some(reading)));
        }
        let wanted = usize::try_from(reading.left).unwrap_or(usize::MAX).min(PIECE);
        if wanted == 0 {
            return None;
        }
        let (file, offset) = (Arc::clone(&reading.file), reading.offset);
        match reading.files.blocking(move || Ok(read_piece(&file, offset, wanted)?)).await {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => {
                reading.offset = reading.offset.saturating_add(piece.len() as u64);
                reading.left -= piece.len() as u64;
                Some((Ok(message(read_file_response::Part::Data(piece))), Some(reading)))
            }
            Err(refusal) => Some((Err(refusal.into_status(&reading.words)), None)),
        }
    }
}

fn message(part: read_file_response::Part) -> ReadFileResponse {
    ReadFileResponse { part: Some(part) }
}

fn read_piece(file: &OwnedFd, offset: u64, wanted: usize) -> Result<Bytes, Errno> {
    // No file is that long, and the kernel uses signed positions.
    if offset.checked_add(wanted as u64).is_none_or(|end| i64::try_from(end).is_err()) {
        return Ok(Bytes::new());
    }
    let mut piece = Vec::with_capacity(wanted);
    loop {
        match pread(file, spare_capacity(&mut piece), offset) {
            Ok(_) => {
                // The buffer can be larger than requested.
                piece.truncate(wanted);
                return Ok(piece.into());
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Opens a regular file. Refuses any file whose reads could block or never end.
pub(super) fn open_file(path: &FilePath, way: Way) -> Result<(OwnedFd, FileEntry), Refusal> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = Tree::of(path, way)?.open(&path.relative(), flags)?;
    let stat = fstat(&file)?;
    match entry::kind(&stat) {
        FileKind::File if path.names_a_directory() => Err(Refusal::of(FileProblem::NotADirectory)),
        FileKind::File => Ok((file, entry::of(path.name(), &stat, Vec::new()))),
        FileKind::Directory => Err(Refusal::of(FileProblem::IsADirectory)),
        FileKind::Symlink | FileKind::Other | FileKind::Unspecified => Err(Refusal::of(FileProblem::NotAFile)),
    }
}
