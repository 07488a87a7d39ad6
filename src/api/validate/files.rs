//! Validates requests about files.

use tonic::Status;

use super::Violations;
use crate::api::{auth::Caller, page};
use errand_engine::FileRef;
use errand_proto::v1::{
    ListDirectoryRequest, MakeDirectoryRequest, ReadFileRequest, ReadTreeRequest, RemoveFileRequest, RenameFileRequest,
    StatFileRequest, WatchFilesRequest, WriteFileHead, WriteFileRequest, WriteTreeHead, WriteTreeRequest,
    write_file_request::Part, write_tree_request::Part as TreePart,
};
use errand_task::{FilePath, TreeOptions, WriteOptions};

/// The most bytes of a path; the kernel accepts no more.
const PATH_LIMIT: usize = 4095;
/// Entries of a page when the request does not say.
const PAGE_DEFAULT: u32 = 50;
/// The largest permissions.
const MODE_LIMIT: u64 = 0o7777;

/// A ReadFile request.
pub(in crate::api) struct Reading {
    /// Which file.
    pub(in crate::api) file: FileRef,
    /// The first byte.
    pub(in crate::api) offset: u64,
    /// The most bytes; none: the whole file.
    pub(in crate::api) limit: Option<u64>,
}

/// The head of a WriteFile request.
pub(in crate::api) struct Writing {
    /// The file.
    pub(in crate::api) file: FileRef,
    /// How to write it.
    pub(in crate::api) options: WriteOptions,
}

/// A ListDirectory request.
pub(in crate::api) struct Listing {
    /// Which directory.
    pub(in crate::api) directory: FileRef,
    /// The name after which the page begins.
    pub(in crate::api) after: Option<Vec<u8>>,
    /// The most entries.
    pub(in crate::api) limit: u32,
}

/// Reads a ReadFile request.
pub(in crate::api) fn read(request: ReadFileRequest, caller: &Caller) -> Result<Reading, Status> {
    let mut violations = Violations::new();
    let file = file(&request.bot_id, request.path, request.root, caller, &mut violations);
    let offset = violations.number("offset", request.offset, 0, u64::MAX);
    let limit = violations.number("limit", request.limit, 0, u64::MAX);
    let read =
        (|| Some(Reading { file: file?, offset: offset?, limit: limit.map(|limit| (limit > 0).then_some(limit))? }))();
    violations.or(read)
}

/// Reads the first message of a WriteFile request; none when the stream has no message.
pub(in crate::api) fn write(first: Option<WriteFileRequest>, caller: &Caller) -> Result<Writing, Status> {
    let mut violations = Violations::new();
    let read = match first.and_then(|first| first.part) {
        Some(Part::Head(head)) => violations.within("head", |violations| writing(head, caller, violations)),
        Some(Part::Data(_) | Part::End(_)) | None => {
            violations.add("head", "must be the first message");
            None
        }
    };
    violations.or(read)
}

fn writing(head: WriteFileHead, caller: &Caller, violations: &mut Violations) -> Option<Writing> {
    let file = file(&head.bot_id, head.path, head.root, caller, violations);
    let mode = violations.number("mode", i64::from(head.mode), 0, MODE_LIMIT)?;
    let mode = u32::try_from(mode).ok().filter(|mode| *mode > 0);
    let WriteFileHead { make_parents, must_not_exist, .. } = head;
    Some(Writing { file: file?, options: WriteOptions { mode, make_parents, must_not_exist } })
}

/// A further message that an upload must not have.
pub(in crate::api) enum Misplaced {
    /// A second head.
    Head,
    /// A message without a part.
    Empty,
    /// None at all: the stream ended too early.
    Missing,
}

/// The refusal of such a message.
pub(in crate::api) fn misplaced(message: Misplaced) -> Status {
    let mut violations = Violations::new();
    match message {
        Misplaced::Head => violations.add("head", "must come once"),
        Misplaced::Empty => violations.add("part", "must be set"),
        Misplaced::Missing => violations.add("end", "must be the last message, and did not come: nothing was written"),
    }
    violations.into_status()
}

/// Reads the first message of a WriteTree request; none when the stream has no message.
pub(in crate::api) fn write_tree(
    first: Option<WriteTreeRequest>,
    caller: &Caller,
) -> Result<(FileRef, TreeOptions), Status> {
    let mut violations = Violations::new();
    let read = match first.and_then(|first| first.part) {
        Some(TreePart::Head(head)) => violations.within("head", |violations| {
            let WriteTreeHead { bot_id, path, root, make_parents, merge } = head;
            Some((file(&bot_id, path, root, caller, violations)?, TreeOptions { make_parents, merge }))
        }),
        Some(TreePart::Data(_) | TreePart::End(_)) | None => {
            violations.add("head", "must be the first message");
            None
        }
    };
    violations.or(read)
}

/// Reads a ReadTree request.
pub(in crate::api) fn read_tree(request: ReadTreeRequest, caller: &Caller) -> Result<FileRef, Status> {
    let mut violations = Violations::new();
    let file = file(&request.bot_id, request.path, request.root, caller, &mut violations);
    violations.or(file)
}

/// Reads a WatchFiles request.
pub(in crate::api) fn watch_files(request: WatchFilesRequest, caller: &Caller) -> Result<FileRef, Status> {
    let mut violations = Violations::new();
    let file = file(&request.bot_id, request.path, request.root, caller, &mut violations);
    violations.or(file)
}

/// Reads a MakeDirectory request: the directory and its permissions.
pub(in crate::api) fn make_directory(
    request: MakeDirectoryRequest,
    caller: &Caller,
) -> Result<(FileRef, Option<u32>), Status> {
    let mut violations = Violations::new();
    let file = file(&request.bot_id, request.path, request.root, caller, &mut violations);
    let mode = violations.number("mode", i64::from(request.mode), 0, MODE_LIMIT);
    let read = (|| Some((file?, u32::try_from(mode?).ok().filter(|mode| *mode > 0))))();
    violations.or(read)
}

/// Reads a RenameFile request: the file and its new path.
pub(in crate::api) fn rename(request: RenameFileRequest, caller: &Caller) -> Result<(FileRef, String), Status> {
    let mut violations = Violations::new();
    path_rules("new_path", &request.new_path, &request.root, &mut violations);
    let new_path = request.new_path;
    let file = file(&request.bot_id, request.path, request.root, caller, &mut violations);
    violations.or(file.map(|file| (file, new_path)))
}

/// Reads a ListDirectory request.
pub(in crate::api) fn list(request: ListDirectoryRequest, caller: &Caller) -> Result<Listing, Status> {
    let mut violations = Violations::new();
    let directory = file(&request.bot_id, request.path, request.root, caller, &mut violations);
    let limit = violations.page_size("page_size", request.page_size, PAGE_DEFAULT);
    let after = match request.page_token.as_str() {
        "" => Some(None),
        token => page::name(token).map(Some),
    };
    if after.is_none() {
        violations.add("page_token", "must be the next_page_token of the page before");
    }
    let read = (|| Some(Listing { directory: directory?, after: after?, limit: limit? }))();
    violations.or(read)
}

/// Reads a StatFile request.
pub(in crate::api) fn stat(request: StatFileRequest, caller: &Caller) -> Result<FileRef, Status> {
    let mut violations = Violations::new();
    let file = file(&request.bot_id, request.path, request.root, caller, &mut violations);
    violations.or(file)
}

/// Reads a RemoveFile request.
pub(in crate::api) fn remove(request: RemoveFileRequest, caller: &Caller) -> Result<FileRef, Status> {
    let mut violations = Violations::new();
    let file = file(&request.bot_id, request.path, request.root, caller, &mut violations);
    violations.or(file)
}

fn file(bot_id: &str, path: String, root: String, caller: &Caller, violations: &mut Violations) -> Option<FileRef> {
    let bot = violations.id("bot_id", bot_id);
    path_rules("path", &path, &root, violations);
    violations.bytes("root", root.len(), PATH_LIMIT);
    violations.no_nul("root", &root);
    if !root.is_empty() && !root.starts_with('/') {
        violations.add("root", "must be an absolute path");
    }
    let path = FilePath { path, root: (!root.is_empty()).then_some(root) };
    Some(FileRef { tenant: caller.tenant.clone(), bot: bot?, path })
}

fn path_rules(field: &str, path: &str, root: &str, violations: &mut Violations) {
    violations.bytes(field, path.len(), PATH_LIMIT);
    violations.no_nul(field, path);
    if path.is_empty() {
        violations.add(field, "must not be empty");
    } else if root.is_empty() && !path.starts_with('/') {
        violations.add(field, "must be absolute where there is no root");
    } else if !root.is_empty() && path.starts_with('/') {
        violations.add(field, "must be relative where there is a root");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use tonic_types::StatusExt as _;

    use super::*;

    fn fields(status: &Status) -> Vec<String> {
        let violations = status.get_details_bad_request().unwrap().field_violations;
        violations.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn paths_are_absolute_or_below_a_root() {
        let stat = |path: &str, root: &str| {
            let (path, root) = (path.to_owned(), root.to_owned());
            let request = StatFileRequest { bot_id: "b".to_owned(), path, root, follow: false };
            stat(request, &Caller::local()).map_err(|status| fields(&status))
        };
        assert_eq!(stat("/a", "").unwrap().path.root, None);
        assert_eq!(stat("../a", "/r").unwrap().path.root.as_deref(), Some("/r"));
        for (path, root, field) in [
            ("", "", "path"),
            ("a", "", "path"),
            ("/a", "/r", "path"),
            ("a", "r", "root"),
            ("/a\0", "", "path"),
            ("a", "/r\0", "root"),
            (&format!("/{}", "x".repeat(4095)), "", "path"),
        ] {
            assert_eq!(stat(path, root).unwrap_err(), [field], "{path:?} {root:?}");
        }
    }

    #[test]
    fn both_paths_of_a_renaming_are_checked() {
        let rename = |path: &str, new_path: &str, root: &str| {
            let [path, new_path, root] = [path, new_path, root].map(str::to_owned);
            let request = RenameFileRequest { bot_id: "b".to_owned(), path, new_path, root, must_not_exist: false };
            rename(request, &Caller::local()).map(drop).map_err(|status| fields(&status))
        };
        assert_eq!(rename("/a", "/b", ""), Ok(()));
        assert_eq!(rename("a", "../b", "/r"), Ok(()));
        assert_eq!(rename("/a", "b", ""), Err(vec!["new_path".to_owned()]));
        assert_eq!(rename("a", "/b", "/r"), Err(vec!["new_path".to_owned()]));
        assert_eq!(rename("/a", "", ""), Err(vec!["new_path".to_owned()]));
        assert_eq!(rename("", "/b\0", ""), Err(vec!["new_path".to_owned(), "path".to_owned()]));
        let head = WriteTreeHead { bot_id: "b".to_owned(), path: "a".to_owned(), ..WriteTreeHead::default() };
        let first = WriteTreeRequest { part: Some(TreePart::Head(head)) };
        assert_eq!(fields(&write_tree(Some(first), &Caller::local()).unwrap_err()), ["head.path"]);
        assert_eq!(fields(&write_tree(None, &Caller::local()).unwrap_err()), ["head"]);
        let mode =
            MakeDirectoryRequest { bot_id: "b".to_owned(), path: "/a".to_owned(), mode: 0o10000, ..Default::default() };
        assert_eq!(fields(&make_directory(mode, &Caller::local()).unwrap_err()), ["mode"]);
    }

    #[test]
    fn write_head_comes_first_with_named_fields() {
        let message = |part| Some(WriteFileRequest { part: Some(part) });
        let refused = |first| fields(&write(first, &Caller::local()).err().unwrap());
        assert_eq!(refused(None), ["head"]);
        assert_eq!(refused(message(Part::Data(Default::default()))), ["head"]);
        let head = WriteFileHead { bot_id: "b".to_owned(), path: "/a".to_owned(), ..WriteFileHead::default() };
        let wrong = WriteFileHead { bot_id: String::new(), mode: 0o10000, ..head.clone() };
        assert_eq!(refused(message(Part::Head(wrong))), ["head.bot_id", "head.mode"]);
        let right = write(message(Part::Head(WriteFileHead { mode: 0o600, ..head })), &Caller::local()).unwrap();
        assert_eq!(right.options, WriteOptions { mode: Some(0o600), ..WriteOptions::default() });
        assert_eq!(fields(&misplaced(Misplaced::Missing)), ["end"]);
    }
}
