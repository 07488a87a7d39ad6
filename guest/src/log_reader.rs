//! Reads a log while a shim is writing it, by position in the task's whole output.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use bytes::{Bytes, BytesMut};

use crate::{own_file, streams::StreamsReader, task_dir::TaskDir};
use errand_proto::bridge::{Gap, Output, Stream};

/// The most bytes returned by one read.
pub const PIECE: usize = 128 * 1024;

/// What one read returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Position of the first byte in the whole output.
    pub offset: u64,
    /// The stream that wrote these bytes.
    pub stream: Stream,
    /// Number of bytes.
    pub size: usize,
}

/// A reader of a log, starting at a position.
#[derive(Debug)]
pub struct LogReader {
    task: TaskDir,
    log: File,
    streams: StreamsReader,
    position: u64,
}

impl LogReader {
    /// Opens the log of a task.
    ///
    /// # Errors
    /// When the task has no log, or the log cannot be read.
    pub fn open(task: &TaskDir, position: u64) -> io::Result<Self> {
        let log = own_file::open(&task.file("output.log"))?;
        let streams = StreamsReader::new(own_file::open(&task.file("streams")).ok());
        Ok(Self { task: task.clone(), log, streams, position })
    }

    /// The position of the next byte to read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether more than `bytes` bytes are still to come, counting bytes that the log did not keep.
    pub fn is_behind(&self, bytes: u64) -> bool {
        self.end() > self.position.saturating_add(bytes)
    }

    /// Skips to the last `bytes` bytes of the log as it is now, and returns the position of the log's end.
    pub fn skip_to_tail(&mut self, bytes: u64) -> u64 {
        let end = self.end();
        self.position = self.position.max(end.saturating_sub(bytes));
        end
    }

    fn end(&self) -> u64 {
        self.log.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Returns the next piece of one stream, at most `limit` bytes, or none if there is no more output yet. Skips what the log did not
    /// keep.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next(&mut self, limit: u64) -> io::Result<Option<Output>> {
        let mut data = BytesMut::zeroed(usize::try_from(limit).unwrap_or(PIECE).min(PIECE));
        Ok(self.read(&mut data)?.map(|Piece { offset, stream, size }| {
            data.truncate(size);
            Output { offset, data: Bytes::from(data), stream: stream.into(), unpacked: 0 }
        }))
    }

    /// Like [`Self::next`], but into a buffer, and at most as much as fits.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<Piece>> {
        loop {
            let (stream, run) = self.streams.at(self.position, buffer.len() as u64);
            let run = usize::try_from(run).unwrap_or(usize::MAX).min(buffer.len());
            let mut size = self.log.read_at(&mut buffer[..run], self.position)?;
            // The gap is read after the bytes: the shim records a gap before it frees the bytes.
            if let Some(Gap { start, end }) = self.task.gap().filter(|gap| self.overlaps(gap, size as u64)) {
                if start <= self.position {
                    self.position = end;
                    continue;
                }
                size = size.min(usize::try_from(start - self.position).unwrap_or(0));
            }
            let offset = self.position;
            self.position += size as u64;
            return Ok((size > 0).then_some(Piece { offset, stream, size }));
        }
    }

    /// Whether the gap covers part of what was read, or of what comes next.
    fn overlaps(&self, gap: &Gap, read: u64) -> bool {
        gap.start < self.position.saturating_add(read.max(1)) && self.position < gap.end
    }
}
