//! Validates requests about files.

use tonic::Status;

use super::Violations;
use crate::api::{auth::Caller, page};
use errand_engine::FileRef;
use errand_proto::v1::{
    ListDirectoryRequest, ReadFileRequest, RemoveFileRequest, StatFileRequest, WriteFileHead, WriteFileRequest,
    write_file_request::Part,
};
use errand_task::{FilePath, WriteOptions};

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

/// The refusal of a further message that a WriteFile request must not have; none: the stream ended too early.
pub(in crate::api) fn only(message: Option<&WriteFileRequest>) -> Status {
    let mut violations = Violations::new();
    match message.map(|message| &message.part) {
        Some(Some(Part::Head(_))) => violations.add("head", "must come once"),
        Some(_) => violations.add("part", "must be set"),
        None => violations.add("end", "must be the last message, and did not come: nothing was written"),
    }
    violations.into_status()
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
    for (field, text) in [("path", &path), ("root", &root)] {
        violations.bytes(field, text.len(), PATH_LIMIT);
        violations.no_nul(field, text);
    }
    if path.is_empty() {
        violations.add("path", "must not be empty");
    } else if root.is_empty() && !path.starts_with('/') {
        violations.add("path", "must be absolute where there is no root");
    } else if !root.is_empty() && path.starts_with('/') {
        violations.add("path", "must be relative where there is a root");
    }
    if !root.is_empty() && !root.starts_with('/') {
        violations.add("root", "must be an absolute path");
    }
    let path = FilePath { path, root: (!root.is_empty()).then_some(root) };
    Some(FileRef { tenant: caller.tenant.clone(), bot: bot?, path })
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
        assert_eq!(fields(&only(None)), ["end"]);
    }
}
