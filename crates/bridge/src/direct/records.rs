//! Parses what the file scripts print: entries on standard output, problems on standard error.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use bytes::BytesMut;

use errand_task::{FileEntry, FileKind, FileProblem};

/// The most bytes of an incomplete record: a name and a link target are shorter.
const RECORD_LIMIT: usize = 64 * 1024;
/// The most link targets that wait for their entries. Scripts describe fewer files at a time.
const LINKS_LIMIT: usize = 256;

/// A parser for entries that arrive in pieces.
#[derive(Debug, Default)]
pub(super) struct Records {
    buffer: BytesMut,
    /// Targets of links whose entries have not arrived yet.
    links: HashMap<Vec<u8>, Vec<u8>>,
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// An entry of a file.
    Entry(FileEntry),
    /// Another line, such as the word at the end.
    Line(String),
}

/// The record cannot be parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Records {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete record.
    pub(super) fn next(&mut self) -> Option<Result<Record, Malformed>> {
        loop {
            match self.take() {
                Ok(Some(Taken::Record(record))) => return Some(Ok(record)),
                Ok(Some(Taken::Link)) => {}
                Ok(None) if self.buffer.len() > RECORD_LIMIT => return Some(Err(Malformed)),
                Ok(None) => return None,
                Err(malformed) => return Some(Err(malformed)),
            }
        }
    }

    /// The bytes after the last record.
    pub(super) fn rest(self) -> BytesMut {
        self.buffer
    }

    fn take(&mut self) -> Result<Option<Taken>, Malformed> {
        if self.buffer.starts_with(b"entry ") {
            return self.take_entry();
        }
        let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let Some(lengths) = line.strip_prefix("link ") else {
            drop(self.buffer.split_to(end + 1));
            return Ok(Some(Taken::Record(Record::Line(line))));
        };
        let (name, target) = lengths.split_once(' ').ok_or(Malformed)?;
        let length = |text: &str| text.parse::<usize>().ok().filter(|length| *length <= RECORD_LIMIT / 2);
        let (name, target) = (length(name).ok_or(Malformed)?, length(target).ok_or(Malformed)?);
        if self.buffer.len() < end + 1 + name + target + 1 {
            return Ok(None);
        }
        if self.links.len() >= LINKS_LIMIT {
            return Err(Malformed);
        }
        drop(self.buffer.split_to(end + 1));
        let name = self.buffer.split_to(name).to_vec();
        let target = self.buffer.split_to(target).to_vec();
        drop(self.buffer.split_to(1));
        self.links.insert(name, target);
        Ok(Some(Taken::Link))
    }

    fn take_entry(&mut self) -> Result<Option<Taken>, Malformed> {
        const HEAD: usize = "entry ".len();
        let Some(slashes) = self.buffer.windows(2).position(|pair| pair == b"//") else { return Ok(None) };
        let Some(length) = self.buffer[slashes..].iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let record = self.buffer.split_to(slashes + length + 1);
        let path = &record[HEAD..slashes];
        let link_target = self.links.remove(path).unwrap_or_default();
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
        let fields = std::str::from_utf8(&record[slashes + 2..slashes + length]).map_err(|_| Malformed)?;
        Ok(Some(Taken::Record(Record::Entry(entry(name, link_target, fields).ok_or(Malformed)?))))
    }
}

enum Taken {
    Record(Record),
    Link,
}

/// Parses `MODE/SIZE/UID/GID/SECONDS/TIME`. The mode is hexadecimal and includes the kind of file. The time is text and includes fractions
/// of a second if the tool knows them.
fn entry(name: Vec<u8>, link_target: Vec<u8>, fields: &str) -> Option<FileEntry> {
    let fields: Vec<&str> = fields.split('/').collect();
    let [mode, size, uid, gid, seconds, time] = fields[..] else { return None };
    let mode = u32::from_str_radix(mode, 16).ok()?;
    let kind = match mode & 0o170_000 {
        0o100_000 => FileKind::File,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let fraction: String = time
        .split_once('.')
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect())
        .unwrap_or_default();
    let nanos: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let seconds: i64 = seconds.parse().ok()?;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let modified = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)?
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)?
    };
    Some(FileEntry {
        name,
        kind,
        size: size.parse().ok()?,
        mode: mode & 0o7777,
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        modified: modified.checked_add(Duration::from_nanos(nanos))?,
        link_target,
    })
}

/// The problem and its message in a script's standard error. None if the script reports no problem.
pub(super) fn refusal(said: &str) -> Option<(FileProblem, String)> {
    let said = match said.strip_prefix("refused ") {
        Some(rest) => rest,
        None => said.split_once("\nrefused ")?.1,
    };
    let (word, words) = said.split_once(' ')?;
    // A tool's message ends with the cause. The path before it may contain anything, but hardly this.
    let cause = words.trim().rsplit(": ").next().unwrap_or_default().lines().next().unwrap_or_default();
    let problem = match word {
        "-" => problem(cause),
        name => FileProblem::named(name).unwrap_or(FileProblem::Failed),
    };
    Some((problem, cause.to_owned()))
}

/// The tools' wordings of kernel errors, in the order in which they are searched. The guest sees the errors themselves; a test compares this
/// table with the guest's.
const CAUSES: [(&str, FileProblem); 21] = [
    ("no such file", FileProblem::NotFound),
    ("nonexistent", FileProblem::NotFound),
    ("permission denied", FileProblem::NotPermitted),
    ("not permitted", FileProblem::NotPermitted),
    ("read-only", FileProblem::NotPermitted),
    ("not a directory", FileProblem::NotADirectory),
    ("is a directory", FileProblem::IsADirectory),
    ("overwrite directory", FileProblem::IsADirectory),
    ("not empty", FileProblem::NotEmpty),
    ("file exists", FileProblem::AlreadyExists),
    ("no space", FileProblem::NoSpace),
    ("quota", FileProblem::NoSpace),
    ("file too large", FileProblem::NoSpace),
    ("name too long", FileProblem::InvalidPath),
    ("invalid argument", FileProblem::InvalidPath),
    ("multibyte", FileProblem::InvalidPath),
    ("illegal byte sequence", FileProblem::InvalidPath),
    ("too many levels", FileProblem::TooManyLinks),
    ("symbolic link loop", FileProblem::TooManyLinks),
    ("busy", FileProblem::Busy),
    ("no such device", FileProblem::NotAFile),
];

fn problem(cause: &str) -> FileProblem {
    let cause = cause.to_lowercase();
    let known = CAUSES.iter().find(|(words, _)| cause.contains(words));
    known.map_or(FileProblem::Failed, |(_, problem)| *problem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use proptest::prelude::*;

    use super::*;

    fn all(said: &[u8], cut: usize) -> Vec<Result<Record, Malformed>> {
        let mut records = Records::default();
        let mut found = Vec::new();
        for piece in said.chunks(cut) {
            records.push(piece);
            while let Some(record) = records.next() {
                let broken = record.is_err();
                found.push(record);
                if broken {
                    return found;
                }
            }
        }
        found
    }

    const SAID: &[u8] = b"link 4 3\n./l\nx/y\nentry ./l\n//a1ff/3/0/5/17/1970-01-01 00:00:17.5 +0000\n\
        entry ./a b//81a4/12/1000/0/-1/1969-12-31 23:59:59\nend\n";

    #[test]
    fn entries_keep_any_name_and_link_target() {
        for cut in 1..SAID.len() {
            let found = all(SAID, cut);
            let [Ok(Record::Entry(link)), Ok(Record::Entry(file)), Ok(Record::Line(end))] = &found[..] else {
                panic!("{found:?}")
            };
            assert_eq!(
                (&link.name[..], &link.link_target[..], link.kind),
                (&b"l\n"[..], &b"x/y"[..], FileKind::Symlink)
            );
            assert_eq!(link.modified, SystemTime::UNIX_EPOCH + Duration::from_millis(17_500));
            assert_eq!((&file.name[..], file.mode, file.size, file.uid), (&b"a b"[..], 0o644, 12, 1000));
            assert_eq!(file.modified, SystemTime::UNIX_EPOCH - Duration::from_secs(1));
            assert_eq!(end, "end");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for said in ["entry ./a//zz/1/0/0/0/\n", "entry ./a//81a4/1\n", "link 4\n", "link x y\n", "link 99999999 1\n"] {
            assert_eq!(all(said.as_bytes(), 64), [Err(Malformed)], "{said:?}");
        }
        assert_eq!(all(&vec![b'x'; RECORD_LIMIT * 2], RECORD_LIMIT * 2), [Err(Malformed)]);
    }

    #[test]
    fn tool_messages_map_to_file_problems() {
        for (said, problem) in [
            ("refused IS_A_DIRECTORY \n", FileProblem::IsADirectory),
            (
                "refused - stat: can't stat './a: Permission denied/b': No such file or directory\n",
                FileProblem::NotFound,
            ),
            ("refused - sh: 7: cannot create ./x: Directory nonexistent\n", FileProblem::NotFound),
            (
                "sh: odd\nrefused - mkdir: cannot create directory 'x': Read-only file system\n",
                FileProblem::NotPermitted,
            ),
            (
                "refused - dd: error writing 'standard output': No space left on device\n1+0 records in\n",
                FileProblem::NoSpace,
            ),
            ("refused - mv: cannot overwrite directory 'd' with non-directory\n", FileProblem::IsADirectory),
            ("refused - rm: can't remove 'x': Device or resource busy\n", FileProblem::Busy),
            ("refused - sh: dd: not found\n", FileProblem::Failed),
        ] {
            assert_eq!(refusal(said).unwrap().0, problem, "{said}");
        }
        assert_eq!(refusal("sh: syntax error"), None);
    }

    #[test]
    fn scripts_and_guest_agree_on_kernel_errors() {
        for (errno, expected) in errand_os::file_problem::MEANINGS {
            // The scripts resolve paths by themselves and report this problem by its name.
            if expected == FileProblem::OutsideRoot {
                continue;
            }
            let text = errand_os::file_problem::text(errno);
            assert_eq!(refusal(&format!("refused - stat: cannot stat 'x': {text}\n")).unwrap().0, expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_arbitrary_records_never_panics(said in prop::collection::vec(any::<u8>(), 0..200), cut in 1usize..50) {
            all(&said, cut);
            all(&[b"entry ", &said[..]].concat(), cut);
            all(&[b"link ", &said[..]].concat(), cut);
            let _ = refusal(&String::from_utf8_lossy(&said));
        }
    }
}
