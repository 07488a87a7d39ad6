//! The log of one task: written as output arrives, bounded by a limit, never blocking the command.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::FileExt as _},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
    pipe::{SpliceFlags, splice},
};

use crate::{own_file, streams::StreamsWriter, task_dir::TaskDir};
use errand_proto::bridge::{Gap, Stream};

/// Read size in bytes when the kernel cannot splice.
const BUFFER: usize = 16 * 1024;
/// The most bytes spliced at once.
const MOVE: usize = 1024 * 1024;
/// From this many bytes of output on, a command counts as writing much.
pub(super) const MUCH: u64 = 1024 * 1024;
/// Read size in bytes for a command that writes much: small enough to still be in a core's cache when it is written. Writes end at
/// multiples of this size, because a file system then caches the file in larger folios.
const LARGE_BUFFER: usize = 64 * 1024;
/// Holes begin and end at multiples of this size: the kernel frees only whole blocks.
const BLOCK: u64 = 4096;
/// The number of steps in which the tail advances by its own length. Until the next step, the disk holds up to one step more than the
/// limit. More steps use less disk; fewer steps are less work.
const STEPS: u64 = 8;
/// The shortest and the longest step, in bytes.
const STEP: std::ops::RangeInclusive<u64> = 64 * 1024..=8 * 1024 * 1024;

/// The result of a read from the command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// This many bytes.
    Bytes(usize),
    /// No output for now.
    Nothing,
    /// The end of the stream.
    End,
}

/// The log.
pub(super) struct Log {
    task: TaskDir,
    file: File,
    streams: Option<StreamsWriter>,
    /// Size of the whole output in bytes.
    size: u64,
    /// The most bytes that are kept.
    limit: u64,
    /// The most bytes on the disk before older ones must be freed.
    most: u64,
    gap: Option<Gap>,
    /// False once the file system has refused to make a hole.
    holes: bool,
    incomplete: bool,
    /// Used for a command that writes much; empty before.
    buffer: Vec<u8>,
    /// Position of the output in the buffer, and how many bytes the last read returned; none if they were not all counted.
    copied: Option<(u64, usize)>,
}

impl Log {
    /// Writes to the empty files of a task. `limit` 0: everything is kept.
    pub(super) fn new(task: &TaskDir, file: File, streams: Option<File>, limit: u64) -> Self {
        let limit = if limit == 0 { u64::MAX } else { limit };
        let step = (limit / 2 / STEPS).clamp(*STEP.start(), *STEP.end());
        Self {
            task: task.clone(),
            file,
            streams: streams.map(StreamsWriter::new),
            size: 0,
            limit,
            most: limit.saturating_add(step),
            gap: None,
            holes: true,
            incomplete: false,
            buffer: Vec::new(),
            copied: None,
        }
    }

    /// Size of the output so far in bytes, including what was not kept.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The range that was not kept because of the limit.
    pub(super) fn gap(&self) -> Option<Gap> {
        self.gap
    }

    /// True when some output could not be written.
    pub(super) fn incomplete(&self) -> bool {
        self.incomplete
    }

    /// Reads what is available from `source`, at most a few megabytes.
    pub(super) fn take(&mut self, source: impl AsFd, stream: Stream, is_pipe: bool) -> Taken {
        self.copied = None;
        if let Some(streams) = &mut self.streams
            && streams.switch(self.size, stream).is_err()
        {
            self.note_incomplete();
        }
        // Splice needs no memory of this process. But while the kernel splices into a file, the command cannot write to its pipe: for a
        // command that writes much, copying is faster.
        if is_pipe && self.keeps() && self.size < MUCH {
            let mut position = self.size;
            match splice(&source, None, &self.file, Some(&mut position), self.room(), SpliceFlags::NONBLOCK) {
                Ok(0) => return Taken::End,
                Ok(moved) => {
                    self.grown(moved);
                    return Taken::Bytes(moved);
                }
                Err(Errno::AGAIN | Errno::INTR) => return Taken::Nothing,
                // The disk is full, or the file system cannot splice: copies instead, and drops what cannot be written.
                Err(_) => {}
            }
        }
        self.copy(source)
    }

    fn copy(&mut self, source: impl AsFd) -> Taken {
        if self.size < MUCH {
            return self.copy_through(source, &mut [0u8; BUFFER]);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(LARGE_BUFFER, 0);
        let until_multiple = LARGE_BUFFER - usize::try_from(self.size % LARGE_BUFFER as u64).unwrap_or(0);
        let before = self.size;
        let taken = self.copy_through(source, &mut buffer[..until_multiple]);
        self.buffer = buffer;
        if let Taken::Bytes(read) = taken
            && self.size == before + read as u64
        {
            self.copied = Some((before, read));
        }
        taken
    }

    /// The position and the bytes of the last read of `taken` bytes, if they are still in memory.
    pub(super) fn copied(&self, taken: usize) -> Option<(u64, &[u8])> {
        let (position, read) = self.copied.filter(|(_, read)| *read == taken)?;
        Some((position, self.buffer.get(..read)?))
    }

    fn copy_through(&mut self, source: impl AsFd, buffer: &mut [u8]) -> Taken {
        match rustix::io::read(source, &mut *buffer) {
            Ok(0) => Taken::End,
            Ok(read) => {
                self.write(&buffer[..read]);
                Taken::Bytes(read)
            }
            Err(Errno::AGAIN | Errno::INTR) => Taken::Nothing,
            // A terminal returns an error when no process has it open.
            Err(_) => Taken::End,
        }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if !self.keeps() {
                self.size += bytes.len() as u64;
                self.drop_newest();
                return;
            }
            match self.file.write_at(&bytes[..bytes.len().min(self.room())], self.size) {
                Ok(written) if written > 0 => {
                    bytes = &bytes[written..];
                    self.grown(written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.note_incomplete();
                    return;
                }
            }
        }
    }

    /// False when the limit is reached and no older bytes can be freed for new ones.
    fn keeps(&self) -> bool {
        self.holes || self.gap.is_none()
    }

    /// How many bytes can be added before older ones must be freed.
    fn room(&self) -> usize {
        usize::try_from(self.most - self.kept()).unwrap_or(MOVE).min(MOVE)
    }

    fn kept(&self) -> u64 {
        self.size - self.gap.map_or(0, |gap| gap.end - gap.start)
    }

    fn grown(&mut self, by: usize) {
        self.size += by as u64;
        if self.kept() >= self.most {
            self.trim();
        }
    }

    /// Frees everything beyond the limit, when no more output is expected for now. Head and tail then add up to the limit.
    pub(super) fn settle(&mut self) {
        if self.keeps() && self.kept() > self.limit {
            self.trim();
        }
    }

    /// Frees the range between the head and the newest tail.
    fn trim(&mut self) {
        let before = self.gap;
        let start = self.limit / 2;
        let gap = Gap { start, end: self.size - (self.limit - start) };
        if !self.holes || self.write_gap(gap).is_err() || self.free(before, gap).is_err() {
            // The tail cannot advance: output from here on is not kept.
            self.holes = false;
            self.gap = before;
            // Done first, so that a full disk has room to record the gap.
            let _ = self.file.set_len(before.map_or(self.limit, |gap| gap.start));
            self.drop_newest();
        }
    }

    /// Frees the part of the gap that was not freed before.
    fn free(&self, before: Option<Gap>, gap: Gap) -> io::Result<()> {
        let freed = before.map_or(0, |before| before.end / BLOCK * BLOCK);
        let start = gap.start.next_multiple_of(BLOCK).max(freed);
        let end = gap.end / BLOCK * BLOCK;
        if start >= end {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::io::retry_on_intr(|| fallocate(&self.file, flags, start, end - start))?)
    }

    /// Where no hole can be made, the gap is at the end of the log.
    fn drop_newest(&mut self) {
        let gap = Gap { start: self.gap.map_or(self.limit, |gap| gap.start).min(self.size), end: self.size };
        // Nothing more is kept, whether or not the gap can be recorded.
        let _ = self.write_gap(gap);
        self.gap = Some(gap);
    }

    fn write_gap(&mut self, gap: Gap) -> io::Result<()> {
        let part = self.task.file("gap.part");
        own_file::write(&part, &format!("{} {}\n", gap.start, gap.end))?;
        fs::rename(part, self.task.file("gap"))?;
        self.gap = Some(gap);
        Ok(())
    }

    fn note_incomplete(&mut self) {
        if !self.incomplete {
            self.incomplete = true;
            // The mark takes an inode and no block, so it can be created even on a full disk.
            let _ = own_file::mark(&self.task.file("incomplete"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::MetadataExt as _, path::Path};

    use super::*;
    use crate::log_reader::LogReader;

    fn task(root: &Path) -> TaskDir {
        let task = TaskDir::new(root, "t").expect("an id");
        fs::create_dir(task.path()).expect("made");
        task
    }

    fn log(task: &TaskDir, limit: u64) -> Log {
        let file = File::create(task.file("output.log")).expect("made");
        let streams = File::create(task.file("streams")).expect("made");
        Log::new(task, file, Some(streams), limit)
    }

    fn read(task: &TaskDir) -> Vec<(u64, Stream, Vec<u8>)> {
        let mut reader = LogReader::open(task, 0).expect("a log");
        let mut pieces = Vec::new();
        while let Some(piece) = reader.next(u64::MAX).expect("read") {
            pieces.push((piece.offset, piece.stream(), piece.data.to_vec()));
        }
        pieces
    }

    fn feed(log: &mut Log, bytes: &[u8], stream: Stream) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&reader, true).expect("not blocking");
        for piece in bytes.chunks(BUFFER) {
            (&writer).write_all(piece).expect("room");
            loop {
                match log.take(&reader, stream, true) {
                    Taken::Bytes(_) => {}
                    Taken::Nothing => break,
                    Taken::End => panic!("the command can still write"),
                }
            }
        }
        drop(writer);
        // A child that another test just forked holds all pipes open until it executes its program.
        let ended = loop {
            match log.take(&reader, stream, true) {
                Taken::Nothing => std::thread::yield_now(),
                taken => break taken,
            }
        };
        assert_eq!(ended, Taken::End);
    }

    #[test]
    fn streams_are_recorded_in_reading_order() {
        let root = tempfile::tempdir().expect("a directory");
        let task = task(root.path());
        let mut log = log(&task, 0);
        feed(&mut log, b"one\n", Stream::Stdout);
        feed(&mut log, b"two\n", Stream::Stderr);
        feed(&mut log, b"three\n", Stream::Stdout);
        assert_eq!(
            read(&task),
            [
                (0, Stream::Stdout, b"one\n".to_vec()),
                (4, Stream::Stderr, b"two\n".to_vec()),
                (8, Stream::Stdout, b"three\n".to_vec())
            ]
        );
    }

    /// Returns this many bytes with a different value at each position.
    fn numbers(size: usize) -> Vec<u8> {
        (0..u32::MAX).flat_map(|number| format!("{number:09}\n").into_bytes()).take(size).collect()
    }

    /// Checks that the kept bytes are right and returns how many they are.
    fn kept(task: &TaskDir, all: &[u8]) -> u64 {
        let pieces = read(task);
        for (offset, _, bytes) in &pieces {
            assert!(*bytes == all[usize::try_from(*offset).expect("small")..][..bytes.len()], "at {offset}");
        }
        pieces.iter().map(|(_, _, bytes)| bytes.len() as u64).sum()
    }

    #[test]
    fn long_output_frees_disk_between_head_and_tail() {
        let root = tempfile::tempdir().expect("a directory");
        let task = task(root.path());
        let limit = 1024 * 1024;
        let mut log = log(&task, limit);
        let all = numbers(5_000_000);
        let on_disk = || fs::metadata(task.file("output.log")).expect("a log").blocks() * 512;
        for piece in all.chunks(100_000) {
            feed(&mut log, piece, Stream::Stdout);
            assert!(on_disk() <= limit + limit / 16 + 2 * BLOCK, "{} bytes on the disk", on_disk());
            assert!(kept(&task, &all) >= limit.min(log.size()));
        }
        log.settle();
        let gap = log.gap().expect("a gap");
        assert_eq!((log.size(), log.incomplete()), (all.len() as u64, false));
        assert_eq!(gap, Gap { start: limit / 2, end: all.len() as u64 - limit / 2 });
        assert_eq!(kept(&task, &all), limit);
        assert!(on_disk() <= limit + 2 * BLOCK, "{} bytes on the disk", on_disk());
    }

    #[test]
    fn head_and_tail_add_up_to_the_limit() {
        for (limit, holes) in [(65_536, true), (100_001, true), (1_048_576, true), (100_001, false)] {
            let step = limit / 16;
            for size in [1, limit - 1, limit, limit + 1, limit + step, limit + 65_536, limit + 65_537, 3 * limit + 7] {
                let root = tempfile::tempdir().expect("a directory");
                let task = task(root.path());
                let mut log = log(&task, limit);
                log.holes = holes;
                let all = numbers(usize::try_from(size).expect("small"));
                for (number, piece) in all.chunks(70_001).enumerate() {
                    feed(&mut log, piece, if number % 2 == 0 { Stream::Stdout } else { Stream::Stderr });
                }
                log.settle();
                let head = if holes { limit / 2 } else { limit };
                let gap = (size > limit).then(|| Gap { start: head, end: size - (limit - head) });
                assert_eq!((log.size(), log.gap(), task.gap()), (size, gap, gap), "{limit}");
                assert_eq!(kept(&task, &all), size.min(limit), "{size} of {limit}");
                // A daemon goes on writing.
                feed(&mut log, &all[..1], Stream::Stdout);
                log.settle();
                let missing = log.gap().map_or(0, |gap| gap.end - gap.start);
                assert_eq!(log.size() - missing, (size + 1).min(limit), "{size} of {limit}");
            }
        }
    }

    #[test]
    fn output_is_counted_after_log_removal() {
        for limit in [256 * 1024, 2 * MUCH] {
            let root = tempfile::tempdir().expect("a directory");
            let task = task(root.path());
            let mut log = log(&task, limit);
            feed(&mut log, b"first", Stream::Stdout);
            fs::remove_dir_all(task.path()).expect("removed");
            let rest = usize::try_from(limit + MUCH).expect("small");
            feed(&mut log, &vec![b'x'; rest], Stream::Stdout);
            let gap = log.gap().expect("a gap");
            assert_eq!((log.size(), gap.end), (5 + rest as u64, log.size()));
        }
    }

    #[test]
    fn newest_output_is_dropped_without_hole_punching() {
        let root = tempfile::tempdir().expect("a directory");
        let task = task(root.path());
        let mut log = log(&task, 256 * 1024);
        log.holes = false;
        feed(&mut log, &vec![b'x'; 600 * 1024], Stream::Stdout);
        let gap = log.gap().expect("a gap");
        assert_eq!((log.size(), gap.end), (600 * 1024, 600 * 1024));
        let kept: usize = read(&task).iter().map(|(_, _, bytes)| bytes.len()).sum();
        assert_eq!(kept as u64, gap.start);
    }
}
