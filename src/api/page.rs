//! Pages of a list: the token for a position in the list, and how much one answer holds.

use std::{fmt::Display, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;

/// The most bytes of the entries in one answer: 3 MiB including what surrounds them, because clients accept at most 4 MiB unless configured
/// otherwise. One entry always fits.
pub(super) const ANSWER_LIMIT: usize = errand_store::PAGE_BYTES - 4096;

/// The token for the page after the entry with this id or sequence. Opaque to callers.
pub(super) fn token(last: impl Display) -> String {
    token_of(last.to_string().as_bytes())
}

/// The token for the page after the entry with this name, which need not be text.
pub(super) fn token_of(name: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(name)
}

/// The id or sequence in a token; none when the server did not make the token.
pub(super) fn place<T: FromStr>(token: &str) -> Option<T> {
    String::from_utf8(name(token)?).ok()?.parse().ok()
}

/// The name in a token; none when the server did not make the token.
pub(super) fn name(token: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(token).ok()
}

/// How many of these entries one answer holds; at least one, if there is one.
pub(super) fn fitting<M: Message>(entries: &[M]) -> usize {
    let mut size = 0;
    let fits = |entry: &&M| {
        size += entry_len(*entry);
        size <= ANSWER_LIMIT
    };
    entries.iter().take_while(fits).count().max(1).min(entries.len())
}

/// The first entries, as many as one answer holds. Entries that do not fit are never converted.
pub(super) fn filled<M: Message>(entries: impl IntoIterator<Item = M>) -> Vec<M> {
    let mut size = 0;
    let mut held: Vec<M> = Vec::new();
    for entry in entries {
        size += entry_len(&entry);
        if size > ANSWER_LIMIT && !held.is_empty() {
            break;
        }
        held.push(entry);
    }
    held
}

/// The encoded size of an entry in an answer: the entry, its field number and its length.
pub(super) fn entry_len(entry: &impl Message) -> usize {
    let len = entry.encoded_len();
    1 + prost::length_delimiter_len(len) + len
}

/// Cuts entries to one page of at most `limit`. True when some were cut off, so that there is another page.
pub(super) fn cut<M: Message>(entries: &mut Vec<M>, limit: u32) -> bool {
    let read = entries.len();
    entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    entries.truncate(fitting(entries));
    entries.len() < read
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;
    use errand_task::TaskId;

    #[test]
    fn page_token_round_trips() {
        let id = TaskId::new();
        assert_eq!(place::<TaskId>(&token(id)), Some(id));
        assert_eq!(place::<i64>(&token(17)), Some(17));
        assert_eq!(place::<TaskId>(&token(17)), None);
        assert_eq!(place::<i64>("?"), None);
        assert_eq!(name(&token_of(b"a\n\xff")), Some(b"a\n\xff".to_vec()));
    }

    #[test]
    fn page_is_bounded_in_entries_and_bytes() {
        let mut small = vec!["a".to_owned(); 5];
        assert!(cut(&mut small, 3));
        assert_eq!(small.len(), 3);
        assert!(!cut(&mut small, 3));
        let mut large = vec!["x".repeat(1024 * 1024); 5];
        assert!(cut(&mut large, 100));
        assert_eq!(large.len(), 2);
        assert_eq!(filled(large.clone()).len(), 2);
        let mut huge = vec!["x".repeat(ANSWER_LIMIT * 2)];
        assert!(!cut(&mut huge, 100));
        assert_eq!(filled(huge).len(), 1);
        assert!(!cut(&mut Vec::<String>::new(), 100));
    }
}
