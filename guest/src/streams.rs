//! Records which parts of a log came from standard output and which from standard error.
//!
//! The file `streams` holds one entry of 8 bytes, little-endian, for each place where the stream changes: the position in the lower 62
//! bits, the stream in the upper two. An entry is written before the bytes it describes. Bytes before the first entry, and all bytes if the
//! file does not exist, count as from both streams.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
};

use errand_proto::bridge::Stream;

/// Size of an entry in bytes.
const ENTRY: u64 = 8;
const POSITION_BITS: u32 = 62;
/// The most entries: a command that changes the stream with every byte must not fill the disk. Bytes after the last entry count as from
/// both streams.
const ENTRIES: u64 = 1024 * 1024;
/// The reader steps through this many entries, then uses a binary search for the rest.
const STEPS: u32 = 64;

/// Writes the file `streams`.
#[derive(Debug)]
pub struct StreamsWriter {
    file: File,
    entries: u64,
    last: Stream,
}

impl StreamsWriter {
    /// Starts with an empty file.
    pub fn new(file: File) -> Self {
        Self { file, entries: 0, last: Stream::Unspecified }
    }

    /// Records that output from `position` on comes from `stream`.
    ///
    /// # Errors
    /// When the entry cannot be written. The recorded stream is then unchanged.
    pub fn switch(&mut self, position: u64, stream: Stream) -> io::Result<()> {
        let stream = if self.entries + 1 < ENTRIES { stream } else { Stream::Unspecified };
        if stream == self.last {
            return Ok(());
        }
        self.file.write_all(&encode(position, stream))?;
        self.entries += 1;
        self.last = stream;
        Ok(())
    }
}

fn encode(position: u64, stream: Stream) -> [u8; ENTRY as usize] {
    (position | ((stream as u64) << POSITION_BITS)).to_le_bytes()
}

fn decode(entry: [u8; ENTRY as usize]) -> (u64, Stream) {
    let entry = u64::from_le_bytes(entry);
    let stream = match entry >> POSITION_BITS {
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        _ => Stream::Unspecified,
    };
    (entry & ((1 << POSITION_BITS) - 1), stream)
}

/// Reads the file `streams`, going forward only.
#[derive(Debug)]
pub struct StreamsReader {
    file: Option<File>,
    /// The index of the entry after the current one.
    next: u64,
    stream: Stream,
}

impl StreamsReader {
    /// Starts at position 0. Without a file, all output counts as from both streams.
    pub fn new(file: Option<File>) -> Self {
        Self { file, next: 0, stream: Stream::Unspecified }
    }

    /// Returns the stream at `position` and for how many bytes it continues, at most `limit`. Positions must never decrease between calls.
    pub fn at(&mut self, position: u64, limit: u64) -> (Stream, u64) {
        if self.next == 0 {
            self.skip_to(position);
        }
        let mut steps = 0;
        while let Some((begins, stream)) = self.entry(self.next) {
            if begins > position {
                return (self.stream, limit.min(begins - position));
            }
            self.stream = stream;
            self.next += 1;
            steps += 1;
            if steps == STEPS {
                self.skip_to(position);
            }
        }
        (self.stream, limit)
    }

    /// Finds the last entry that begins at or before `position`.
    fn skip_to(&mut self, position: u64) {
        let entries = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |file| file.len() / ENTRY);
        let (mut low, mut high) = (self.next, entries.min(ENTRIES));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle) {
                Some((begins, stream)) if begins <= position => {
                    self.stream = stream;
                    low = middle + 1;
                }
                Some(_) | None => high = middle,
            }
        }
        self.next = low;
    }

    fn entry(&self, index: u64) -> Option<(u64, Stream)> {
        // A command may have replaced the file with one without end.
        if index >= ENTRIES {
            return None;
        }
        let mut entry = [0; ENTRY as usize];
        self.file.as_ref()?.read_exact_at(&mut entry, index * ENTRY).ok()?;
        Some(decode(entry))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_byte_keeps_its_stream(
            runs in prop::collection::vec((1u64..20, prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)]), 1..30),
            from in 0u64..100,
        ) {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("streams");
            let mut writer = StreamsWriter::new(File::create(&path).expect("made"));
            let mut bytes = Vec::new();
            for (length, stream) in runs {
                writer.switch(bytes.len() as u64, stream).expect("written");
                bytes.extend(std::iter::repeat_n(stream, usize::try_from(length).expect("small")));
            }
            let size = bytes.len() as u64;
            let mut position = from.min(size);
            let mut reader = StreamsReader::new(Some(File::open(&path).expect("there")));
            while position < size {
                let (stream, length) = reader.at(position, size - position);
                prop_assert!(length > 0);
                for byte in &bytes[usize::try_from(position).expect("small")..][..usize::try_from(length).expect("small")] {
                    prop_assert_eq!(*byte, stream);
                }
                position += length;
            }
        }
    }

    #[test]
    fn missing_streams_file_means_unspecified_stream() {
        assert_eq!(StreamsReader::new(None).at(5, 10), (Stream::Unspecified, 10));
    }
}
