//! Reading a log that is being written, by position in all output.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use bytes::{Bytes, BytesMut};

use crate::{own_file, streams::StreamsReader, task_dir::TaskDir};
use errand_proto::bridge::{Gap, Output, Stream};

/// The most that is read at once, in bytes.
pub const PIECE: usize = 128 * 1024;

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Position of its first byte in all output.
    pub offset: u64,
    /// Where it comes from.
    pub stream: Stream,
    /// How many bytes it is.
    pub size: usize,
}

/// A log from a position on.
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
    /// When there is none, or it cannot be read.
    pub fn open(task: &TaskDir, position: u64) -> io::Result<Self> {
        let log = own_file::open(&task.file("output.log"))?;
        let streams = StreamsReader::new(own_file::open(&task.file("streams")).ok());
        Ok(Self { task: task.clone(), log, streams, position })
    }

    /// Where it stands.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether there is more to come than so many bytes, with what the log has not kept.
    pub fn is_behind(&self, bytes: u64) -> bool {
        self.end() > self.position.saturating_add(bytes)
    }

    /// Goes on with the last bytes that there are by now, and returns where they end.
    pub fn skip_to_tail(&mut self, bytes: u64) -> u64 {
        let end = self.end();
        self.position = self.position.max(end.saturating_sub(bytes));
        end
    }

    fn end(&self) -> u64 {
        self.log.metadata().map_or(0, |metadata| metadata.len())
    }

    /// The next piece, of one stream, at most `limit` bytes; none when there is no more yet. Jumps over what the log has not kept.
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

    /// The same into a buffer, as much as fits.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<Piece>> {
        loop {
            let (stream, run) = self.streams.at(self.position, buffer.len() as u64);
            let run = usize::try_from(run).unwrap_or(usize::MAX).min(buffer.len());
            let mut size = self.log.read_at(&mut buffer[..run], self.position)?;
            // Looked at after reading: the gap is written down before the bytes go.
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

    /// True when something of what was read, or of what would come next, is missing.
    fn overlaps(&self, gap: &Gap, read: u64) -> bool {
        gap.start < self.position.saturating_add(read.max(1)) && self.position < gap.end
    }
}
