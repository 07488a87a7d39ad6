//! Changes that are collected before they are sent.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use errand_proto::bridge::{FileChange, FileChangeKind};

/// The most changes in one message.
const CHANGES: usize = 256;
/// A message gets no further changes once its paths have this many bytes. The server accepts messages of 128 KiB.
const BYTES: usize = 48 * 1024;

/// Changes in their order. Several writes to one file are one change; the two halves of a renaming are one too.
#[derive(Debug, Default)]
pub(super) struct Batch {
    changes: Vec<Option<FileChange>>,
    bytes: usize,
    /// The newest change of each path.
    newest: HashMap<Vec<u8>, usize>,
    /// Files that were moved away, by the kernel's number of the move.
    moved: HashMap<u32, usize>,
}

impl Batch {
    pub(super) fn is_full(&self) -> bool {
        self.changes.len() >= CHANGES || self.bytes >= BYTES
    }

    pub(super) fn created(&mut self, path: Vec<u8>, is_directory: bool) {
        if self.newest_kind(&path) != Some(FileChangeKind::Created) {
            self.push(FileChangeKind::Created, path, Vec::new(), is_directory);
        }
    }

    pub(super) fn modified(&mut self, path: Vec<u8>) {
        // Whoever hears of a new file reads it; that it was written to as well adds nothing.
        if !matches!(self.newest_kind(&path), Some(FileChangeKind::Created | FileChangeKind::Modified)) {
            self.push(FileChangeKind::Modified, path, Vec::new(), false);
        }
    }

    pub(super) fn removed(&mut self, path: Vec<u8>, is_directory: bool) {
        self.push(FileChangeKind::Removed, path, Vec::new(), is_directory);
    }

    pub(super) fn moved_away(&mut self, path: Vec<u8>, is_directory: bool, cookie: u32) {
        self.moved.insert(cookie, self.changes.len());
        self.push(FileChangeKind::Removed, path, Vec::new(), is_directory);
    }

    /// Takes a file that was moved here. Returns its old path if it was in a watched directory before.
    pub(super) fn moved_here(&mut self, path: Vec<u8>, is_directory: bool, cookie: u32) -> Option<Vec<u8>> {
        let away = self.moved.remove(&cookie).and_then(|index| self.changes.get_mut(index)?.take());
        match away {
            Some(away) => {
                let old = away.path.to_vec();
                self.push(FileChangeKind::Renamed, path, old.clone(), is_directory);
                Some(old)
            }
            None => {
                self.push(FileChangeKind::Created, path, Vec::new(), is_directory);
                None
            }
        }
    }

    /// Whether a directory that was moved out of the watched tree had this path. What takes its place is not forgotten with it.
    pub(super) fn replaced(&mut self, path: &[u8]) -> bool {
        let changes = &self.changes;
        let is_it = |index: usize| {
            changes.get(index).and_then(Option::as_ref).is_some_and(|away| away.is_directory && away.path == path)
        };
        let before = self.moved.len();
        self.moved.retain(|_, index| !is_it(*index));
        self.moved.len() < before
    }

    pub(super) fn overflow(&mut self) {
        self.push(FileChangeKind::Overflow, Vec::new(), Vec::new(), false);
    }

    /// The changes, and the paths of directories that left the watched tree.
    pub(super) fn take(&mut self) -> (Vec<FileChange>, Vec<Vec<u8>>) {
        let Self { changes, moved, .. } = std::mem::take(self);
        let away = moved.into_values().filter_map(|index| changes.get(index)?.as_ref());
        let left = away.filter(|away| away.is_directory).map(|away| away.path.to_vec()).collect();
        (changes.into_iter().flatten().collect(), left)
    }

    fn newest_kind(&self, path: &[u8]) -> Option<FileChangeKind> {
        let index = self.newest.get(path)?;
        self.changes.get(*index)?.as_ref().map(FileChange::kind)
    }

    fn push(&mut self, kind: FileChangeKind, path: Vec<u8>, old_path: Vec<u8>, is_directory: bool) {
        self.bytes += path.len() + old_path.len();
        self.newest.insert(path.clone(), self.changes.len());
        let (path, old_path) = (Bytes::from(path), Bytes::from(old_path));
        self.changes.push(Some(FileChange { kind: kind.into(), path, old_path, is_directory }));
    }
}

/// Takes the changes of one message.
pub(super) fn message(ready: &mut VecDeque<FileChange>) -> Vec<FileChange> {
    let (mut changes, mut bytes) = (Vec::new(), 0);
    while changes.len() < CHANGES && bytes < BYTES {
        let Some(change) = ready.pop_front() else { break };
        bytes += change.path.len() + change.old_path.len();
        changes.push(change);
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(batch: &mut Batch) -> Vec<(FileChangeKind, String, String)> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let (changes, _) = batch.take();
        changes.iter().map(|change| (change.kind(), text(&change.path), text(&change.old_path))).collect()
    }

    fn change(kind: FileChangeKind, path: &str, old: &str) -> (FileChangeKind, String, String) {
        (kind, path.to_owned(), old.to_owned())
    }

    #[test]
    fn writes_to_one_file_are_one_change() {
        let mut batch = Batch::default();
        for _ in 0..1000 {
            batch.modified(b"a".to_vec());
        }
        batch.removed(b"a".to_vec(), false);
        batch.created(b"a".to_vec(), false);
        batch.modified(b"a".to_vec());
        let kinds: Vec<_> = told(&mut batch).into_iter().map(|(kind, ..)| kind).collect();
        assert_eq!(kinds, [FileChangeKind::Modified, FileChangeKind::Removed, FileChangeKind::Created]);
        assert!(told(&mut batch).is_empty());
    }

    #[test]
    fn halves_of_a_renaming_become_one_change() {
        let mut batch = Batch::default();
        batch.moved_away(b"a".to_vec(), false, 1);
        batch.moved_away(b"b".to_vec(), true, 2);
        assert_eq!(batch.moved_here(b"c".to_vec(), false, 1), Some(b"a".to_vec()));
        assert_eq!(batch.moved_here(b"d".to_vec(), false, 3), None);
        let (changes, left) = batch.take();
        assert_eq!(left, [b"b".to_vec()], "a directory that left");
        batch.changes = changes.into_iter().map(Some).collect();
        let expected = [
            change(FileChangeKind::Removed, "b", ""),
            change(FileChangeKind::Renamed, "c", "a"),
            change(FileChangeKind::Created, "d", ""),
        ];
        assert_eq!(told(&mut batch), expected);
    }

    #[test]
    fn messages_are_bounded_in_changes_and_bytes() {
        let change = |size: usize| FileChange { path: vec![b'a'; size].into(), ..FileChange::default() };
        let mut ready: VecDeque<_> = std::iter::repeat_n(change(1), CHANGES + 1).collect();
        assert_eq!((message(&mut ready).len(), message(&mut ready).len(), ready.len()), (CHANGES, 1, 0));
        let mut ready: VecDeque<_> = std::iter::repeat_n(change(4000), 100).collect();
        while !ready.is_empty() {
            let bytes: usize = message(&mut ready).iter().map(|change| change.path.len()).sum();
            assert!((1..BYTES + 4000).contains(&bytes), "{bytes}");
        }
    }

    #[test]
    fn directory_that_takes_the_place_of_another_is_not_forgotten_with_it() {
        let mut batch = Batch::default();
        batch.moved_away(b"a".to_vec(), true, 1);
        batch.moved_away(b"b".to_vec(), true, 2);
        assert!(batch.replaced(b"a") && !batch.replaced(b"a"));
        assert_eq!(batch.take().1, [b"b".to_vec()]);
    }

    #[test]
    fn batch_is_bounded_in_changes_and_bytes() {
        let mut batch = Batch::default();
        (0..CHANGES).for_each(|number| batch.modified(number.to_string().into_bytes()));
        assert!(batch.is_full());
        batch.take();
        (0..BYTES / 4000 + 1).for_each(|number| batch.modified(vec![b'a' + u8::try_from(number).unwrap_or(0); 4000]));
        assert!(batch.is_full());
    }
}
