//! Reads a tar archive from pieces of any size. Pure: fit for a fuzzer. Holds at most one header and one extended header in memory.
//!
//! Reads what GNU tar, busybox, bsdtar and Python write: ustar, GNU's long names, and the extended headers of POSIX. Sparse files are refused.

use tar::{EntryType, Header, PaxExtensions};

/// The size of a header, and of the unit that content is padded to.
const BLOCK: usize = 512;
/// The largest extended header or long name, in bytes. It holds two paths, of at most 4095 bytes each, and some times.
const EXTENSION_LIMIT: u64 = 64 * 1024;

/// Reads an archive.
#[derive(Debug)]
pub struct Reader {
    state: State,
    /// What extended headers have said about the next entry.
    next: Extensions,
    /// Whether the last block was all zero. Two such blocks end an archive; one is enough if nothing follows.
    zero: bool,
}

#[derive(Debug)]
enum State {
    Header(Box<[u8; BLOCK]>, usize),
    Extension { kind: Extension, bytes: Vec<u8>, left: u64, padding: u64 },
    Content { left: u64, padding: u64 },
    Padding(u64),
    Ended,
}

#[derive(Debug, Clone, Copy)]
enum Extension {
    LongPath,
    LongLink,
    Pax,
    Ignored,
}

#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

/// What comes next in an archive.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// An entry. Its content follows.
    Entry(Entry),
    /// Some of its content.
    Content(&'a [u8]),
    /// The content is complete. Comes once for each entry.
    EntryEnd,
}

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path, as the archive has it.
    pub path: Vec<u8>,
    /// Its kind.
    pub kind: Kind,
    /// Bytes of content.
    pub size: u64,
    /// The lower 12 bits of its mode.
    pub mode: u32,
    /// When it was last changed, in seconds since 1970.
    pub modified: u64,
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// Another name of the file with this path in the archive.
    HardLink(Vec<u8>),
    /// A device or a pipe.
    Other,
}

/// Why bytes are no archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// A header whose checksum is wrong.
    #[error("not a tar archive, or damaged: a header's checksum is wrong")]
    Checksum,
    /// A header with a number that is none.
    #[error("a header holds a malformed number")]
    Number,
    /// An extended header or a long name beyond the limit.
    #[error("an extended header has more than {EXTENSION_LIMIT} bytes")]
    Extension,
    /// A malformed extended header.
    #[error("an extended header is malformed")]
    Pax,
    /// A sparse file.
    #[error("sparse files are not supported")]
    Sparse,
}

impl Default for Reader {
    fn default() -> Self {
        Self { state: header(), next: Extensions::default(), zero: false }
    }
}

impl Reader {
    /// The next part of the archive, taken from the front of `bytes`; none when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are no archive. The reader must not be used afterwards.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Found<'a>>, ArchiveError> {
        loop {
            match &mut self.state {
                State::Ended => {
                    // Archives are padded to the size of a record.
                    *bytes = &[];
                    return Ok(None);
                }
                State::Padding(left) => {
                    *left -= take(bytes, *left).len() as u64;
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = header();
                }
                State::Content { left: 0, padding } => {
                    self.state = State::Padding(*padding);
                    return Ok(Some(Found::EntryEnd));
                }
                State::Content { left, .. } => {
                    let content = take(bytes, *left);
                    *left -= content.len() as u64;
                    return Ok((!content.is_empty()).then_some(Found::Content(content)));
                }
                State::Extension { bytes: held, left, .. } if *left > 0 => {
                    let more = take(bytes, *left);
                    *left -= more.len() as u64;
                    held.extend_from_slice(more);
                    if *left > 0 {
                        return Ok(None);
                    }
                }
                State::Extension { kind, bytes: held, padding, .. } => {
                    let (kind, held, padding) = (*kind, std::mem::take(held), *padding);
                    self.extend(kind, held)?;
                    self.state = State::Padding(padding);
                }
                State::Header(block, have) => {
                    let more = take(bytes, (BLOCK - *have) as u64);
                    block[*have..*have + more.len()].copy_from_slice(more);
                    *have += more.len();
                    if *have < BLOCK {
                        return Ok(None);
                    }
                    let block = std::mem::replace(block, Box::new([0; BLOCK]));
                    if let Some(entry) = self.header(&block)? {
                        return Ok(Some(Found::Entry(entry)));
                    }
                }
            }
        }
    }

    /// Whether the archive has come to its end: at least one block of zeros, and nothing half read.
    pub fn is_complete(&self) -> bool {
        match &self.state {
            State::Ended => true,
            State::Header(_, have) => self.zero && *have == 0,
            State::Extension { .. } | State::Content { .. } | State::Padding(_) => false,
        }
    }

    /// Takes a header; returns an entry unless the header only extends the next one or ends the archive.
    fn header(&mut self, block: &[u8; BLOCK]) -> Result<Option<Entry>, ArchiveError> {
        if block.iter().all(|byte| *byte == 0) {
            self.state = if self.zero { State::Ended } else { header() };
            self.zero = true;
            return Ok(None);
        }
        self.zero = false;
        let head = Header::from_byte_slice(block);
        if head.cksum().map_err(|_| ArchiveError::Checksum)? != checksum(block) {
            return Err(ArchiveError::Checksum);
        }
        let size = head.entry_size().map_err(|_| ArchiveError::Number)?;
        let extension = match head.entry_type() {
            EntryType::GNULongName => Some(Extension::LongPath),
            EntryType::GNULongLink => Some(Extension::LongLink),
            EntryType::XHeader => Some(Extension::Pax),
            EntryType::XGlobalHeader => Some(Extension::Ignored),
            _ => None,
        };
        if let Some(kind) = extension {
            if size > EXTENSION_LIMIT {
                return Err(ArchiveError::Extension);
            }
            self.state = State::Extension { kind, bytes: Vec::new(), left: size, padding: padding(size) };
            return Ok(None);
        }
        let entry = self.entry(head, size)?;
        self.state = State::Content { left: entry.size, padding: padding(entry.size) };
        Ok(Some(entry))
    }

    fn entry(&mut self, head: &Header, size: u64) -> Result<Entry, ArchiveError> {
        let Extensions { path, link, size: larger } = std::mem::take(&mut self.next);
        let path = path.unwrap_or_else(|| head.path_bytes().into_owned());
        let link = link.or_else(|| head.link_name_bytes().map(std::borrow::Cow::into_owned)).unwrap_or_default();
        let kind = match head.entry_type() {
            // Old archives mark a directory by its name alone.
            EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link),
            EntryType::Link => Kind::HardLink(link),
            EntryType::GNUSparse => return Err(ArchiveError::Sparse),
            _ => Kind::Other,
        };
        let mode = head.mode().map_err(|_| ArchiveError::Number)? & 0o7777;
        // A time before 1970 is written as a negative number, which the field cannot hold: such a file counts as old as can be.
        let modified = head.mtime().unwrap_or_default();
        // POSIX gives the size of the linked file in the header of a link, without any content.
        let size = match &kind {
            Kind::File | Kind::Other => larger.unwrap_or(size),
            Kind::Directory | Kind::Symlink(_) | Kind::HardLink(_) => 0,
        };
        if padding_overflows(size) {
            return Err(ArchiveError::Number);
        }
        Ok(Entry { path, kind, size, mode, modified })
    }

    fn extend(&mut self, kind: Extension, mut bytes: Vec<u8>) -> Result<(), ArchiveError> {
        match kind {
            Extension::LongPath | Extension::LongLink => {
                // Ends with NUL.
                bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
                match kind {
                    Extension::LongPath => self.next.path = Some(bytes),
                    _ => self.next.link = Some(bytes),
                }
            }
            Extension::Pax => {
                for record in PaxExtensions::new(&bytes) {
                    let record = record.map_err(|_| ArchiveError::Pax)?;
                    match record.key_bytes() {
                        b"path" => self.next.path = Some(record.value_bytes().to_vec()),
                        b"linkpath" => self.next.link = Some(record.value_bytes().to_vec()),
                        b"size" => {
                            let number = record.value().ok().and_then(|value| value.parse().ok());
                            self.next.size = Some(number.ok_or(ArchiveError::Number)?);
                        }
                        key if key.starts_with(b"GNU.sparse.") => return Err(ArchiveError::Sparse),
                        _ => {}
                    }
                }
            }
            Extension::Ignored => {}
        }
        Ok(())
    }
}

fn header() -> State {
    State::Header(Box::new([0; BLOCK]), 0)
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// No file is that large, and positions in it could not be counted.
fn padding_overflows(size: u64) -> bool {
    i64::try_from(size).is_err()
}

/// The sum of a header's bytes, with blanks in the place of the sum itself.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let sum: u32 = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum();
    sum + 8 * u32::from(b' ')
}

fn take<'a>(bytes: &mut &'a [u8], most: u64) -> &'a [u8] {
    let length = bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use proptest::prelude::*;

    use super::*;

    /// Every entry with its content.
    type Entries = Vec<(Entry, Vec<u8>)>;

    /// What is in an archive, and whether it is complete.
    fn read(archive: &[u8], piece: usize) -> Result<(Entries, bool), ArchiveError> {
        let mut reader = Reader::default();
        let mut found = Vec::new();
        let mut ends = 0;
        for mut bytes in archive.chunks(piece) {
            while let Some(part) = reader.next(&mut bytes)? {
                match part {
                    Found::Entry(entry) => found.push((entry, Vec::new())),
                    Found::Content(content) => found.last_mut().unwrap().1.extend_from_slice(content),
                    Found::EntryEnd => ends += 1,
                }
            }
            assert!(bytes.is_empty());
        }
        assert!(!reader.is_complete() || ends == found.len());
        Ok((found, reader.is_complete()))
    }

    fn sample() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let head = |kind, size, mode| {
            let mut head = Header::new_gnu();
            head.set_entry_type(kind);
            head.set_size(size);
            head.set_mode(mode);
            head.set_mtime(7);
            head
        };
        builder.append_data(&mut head(EntryType::Directory, 0, 0o755), "d/", &b""[..]).unwrap();
        builder.append_data(&mut head(EntryType::Regular, 513, 0o4644), "d/f", &[b'x'; 513][..]).unwrap();
        let long = format!("d/{}/g", "n".repeat(200));
        builder.append_data(&mut head(EntryType::Regular, 0, 0o600), &long, &b""[..]).unwrap();
        builder.append_link(&mut head(EntryType::Symlink, 0, 0o777), "d/l", "t".repeat(150)).unwrap();
        builder.append_pax_extensions([("path", &b"d/\xffp"[..]), ("mtime", b"1.5")]).unwrap();
        builder.append_data(&mut head(EntryType::Regular, 2, 0o600), "short", &b"ab"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn entries_are_the_same_at_any_piece_size() {
        let archive = sample();
        let (whole, complete) = read(&archive, archive.len()).unwrap();
        assert!(complete);
        let paths: Vec<_> = whole.iter().map(|(entry, content)| (entry.path.as_slice(), content.len())).collect();
        let long = format!("d/{}/g", "n".repeat(200));
        let expected: [(&[u8], usize); 5] =
            [(b"d/", 0), (b"d/f", 513), (long.as_bytes(), 0), (b"d/l", 0), (b"d/\xffp", 2)];
        assert_eq!(paths, expected);
        assert_eq!(whole[1].0.mode, 0o4644);
        assert_eq!(whole[3].0.kind, Kind::Symlink("t".repeat(150).into_bytes()));
        for piece in [1, 7, 511, 512, 513, 1000] {
            assert_eq!(read(&archive, piece).unwrap(), (whole.clone(), true), "{piece}");
        }
    }

    #[test]
    fn cut_archive_is_not_complete() {
        let archive = sample();
        let end = archive.len() - 2 * BLOCK;
        for length in [0, 1, BLOCK, BLOCK + 1, end - 1, end] {
            assert!(!read(&archive[..length], 4096).unwrap().1, "{length}");
        }
        assert!(read(&archive[..end + BLOCK], 4096).unwrap().1, "one block of zeros is enough");
        assert_eq!(read(&[b'x'; BLOCK], 4096), Err(ArchiveError::Checksum));
    }

    #[test]
    fn oversized_extension_is_refused() {
        let mut head = Header::new_gnu();
        head.set_entry_type(EntryType::GNULongName);
        head.set_size(EXTENSION_LIMIT + 1);
        head.set_cksum();
        assert_eq!(read(head.as_bytes(), 4096), Err(ArchiveError::Extension));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048), at in 0_usize..3000, piece in 1_usize..600) {
            let _ = read(&bytes, piece);
            // Damage at any place of a real archive.
            let mut archive = sample();
            let at = at % archive.len();
            archive[at] ^= bytes.first().copied().unwrap_or(1);
            let _ = read(&archive, piece);
        }
    }
}
