//! Parses the exit file of a task. The writer fills a temporary file and renames it into place.
//!
//! One line: `errand 1 NONCE RESULT` and a newline, where RESULT is `exited CODE`, `signaled NUMBER`,
//! `timed_out MILLISECONDS` or `failed WORD ERRNO MESSAGE`. ERRNO is the kernel's number for the failure, 0 where there is none. The newline marks the line as complete, so
//! that a file truncated by a full disk is never taken for a result.

use std::time::Duration;

use super::{Ending, Nonce, Signal, StartFailure};

/// Name of the exit file in the task directory.
pub const NAME: &str = "exit";
/// The format's version, for writing and reading.
pub const VERSION: u32 = 1;
/// The most bytes of a valid exit file. Readers stop there.
pub const SIZE_LIMIT: usize = 1024;

/// The result of reading an exit file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sentinel {
    /// The file does not exist.
    Absent,
    /// The file is complete; this is how the command ended.
    Complete(Ending),
    /// The file exists and cannot be parsed.
    Corrupt,
    /// The file belongs to another launch, or has a newer version.
    Foreign,
}

/// The text before the result in the exit file of a launch.
pub fn head(nonce: impl std::fmt::Display) -> String {
    format!("errand {VERSION} {nonce} ")
}

/// The unparsed RESULT of a complete exit file of this launch, for code that only passes it on. `None` for every other content.
pub fn result(content: &str, nonce: impl std::fmt::Display) -> Option<&str> {
    content.strip_prefix(&head(nonce))?.strip_suffix('\n')
}

/// Parses the content of an exit file; `content` is `None` if the file does not exist.
pub fn read(content: Option<&[u8]>, nonce: Nonce) -> Sentinel {
    match content {
        None => Sentinel::Absent,
        Some(bytes) => parse(bytes, nonce).unwrap_or(Sentinel::Corrupt),
    }
}

fn parse(bytes: &[u8], nonce: Nonce) -> Option<Sentinel> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    if line.contains('\n') || line.len() >= SIZE_LIMIT {
        return None;
    }
    let mut words = line.splitn(4, ' ');
    if words.next()? != "errand" {
        return None;
    }
    let version: u32 = words.next()?.parse().ok()?;
    let found: Nonce = words.next()?.parse().ok()?;
    if version != VERSION || found != nonce {
        return Some(Sentinel::Foreign);
    }
    parse_result(words.next()?).map(Sentinel::Complete)
}

/// Parses RESULT. `None` if it is malformed.
pub fn parse_result(result: &str) -> Option<Ending> {
    let (word, rest) = result.split_once(' ')?;
    match word {
        "exited" => decimal(rest).and_then(|code| u8::try_from(code).ok()).map(Ending::Exited),
        "signaled" => decimal(rest).and_then(|n| i32::try_from(n).ok()).and_then(Signal::new).map(Ending::Signaled),
        "timed_out" => {
            decimal(rest).map(|milliseconds| Ending::TimedOut { after: Duration::from_millis(milliseconds) })
        }
        "failed" => parse_failure(rest),
        _ => None,
    }
}

/// Parses the text after `failed`. `None` if it is malformed.
pub fn parse_failure(failure: &str) -> Option<Ending> {
    let (word, rest) = failure.split_once(' ')?;
    let (errno, message) = rest.split_once(' ')?;
    let errno = i32::try_from(decimal(errno)?).ok()?;
    Some(Ending::FailedToStart {
        failure: StartFailure::from_word(word)?,
        errno: (errno > 0).then_some(errno),
        message: message.to_owned(),
    })
}

/// A number as `printf %d` writes it: digits only.
fn decimal(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn line(nonce: Nonce, result: &str) -> Vec<u8> {
        format!("errand 1 {nonce} {result}\n").into_bytes()
    }

    #[test]
    fn absent_complete_corrupt_and_foreign_files_differ() {
        let nonce = Nonce::new();
        assert_eq!(read(None, nonce), Sentinel::Absent);
        assert_eq!(read(Some(&line(nonce, "exited 0")), nonce), Sentinel::Complete(Ending::Exited(0)));
        assert_eq!(read(Some(&line(nonce, "signaled 9")), nonce), Sentinel::Complete(Ending::Signaled(Signal::KILL)));
        assert_eq!(
            read(Some(&line(nonce, "timed_out 1500")), nonce),
            Sentinel::Complete(Ending::TimedOut { after: Duration::from_millis(1500) })
        );
        for (word, errno) in [("2", Some(2)), ("0", None)] {
            assert_eq!(
                read(Some(&line(nonce, &format!("failed not_found {word} no fish here"))), nonce),
                Sentinel::Complete(Ending::FailedToStart {
                    failure: StartFailure::NotFound,
                    errno,
                    message: "no fish here".to_owned()
                })
            );
        }
        assert_eq!(read(Some(&line(Nonce::new(), "exited 0")), nonce), Sentinel::Foreign);
        assert_eq!(read(Some(format!("errand 2 {nonce} exited 0\n").as_bytes()), nonce), Sentinel::Foreign);
        for corrupt in ["", "\n", "errand", "77\n", "errand 1 x exited 0\n"] {
            assert_eq!(read(Some(corrupt.as_bytes()), nonce), Sentinel::Corrupt, "{corrupt:?}");
        }
        for corrupt in [
            "exited 256",
            "exited -1",
            "exited +1",
            "exited",
            "signaled 0",
            "signaled 65",
            "gone 1",
            "failed x 2 y",
            "failed not_found",
            "failed not_found no fish",
            "failed not_found 99999999999 no fish",
            "timed_out",
            "timed_out soon",
        ] {
            assert_eq!(read(Some(&line(nonce, corrupt)), nonce), Sentinel::Corrupt, "{corrupt:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_or_invent_a_result(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(read(Some(&bytes), Nonce::new()) == Sentinel::Corrupt, true);
        }

        #[test]
        fn truncated_file_is_never_a_result(code in any::<u8>(), cut in 0usize..60) {
            let nonce = Nonce::new();
            let whole = line(nonce, &format!("exited {code}"));
            let cut = cut.min(whole.len() - 1);
            prop_assert_eq!(read(Some(&whole[..cut]), nonce), Sentinel::Corrupt);
            prop_assert_eq!(read(Some(&whole), nonce), Sentinel::Complete(Ending::Exited(code)));
        }
    }
}
