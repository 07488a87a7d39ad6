//! Converts a path into the arguments that the scripts take.

use errand_task::{FilePath, FileProblem, FileRefusal};

/// The most bytes of a path that the kernel accepts.
const PATH_LIMIT: usize = 4095;

/// The arguments that every script begins with: the root, the path without redundant names, and `directory` if the path can only name a
/// directory.
pub(super) fn place(path: &FilePath) -> Result<Vec<String>, FileRefusal> {
    let invalid = |detail: &str| FileRefusal {
        path: path.path.clone(),
        problem: FileProblem::InvalidPath,
        detail: detail.to_owned(),
    };
    let root = path.root.as_deref().unwrap_or_default();
    if path.path.contains('\0') || root.contains('\0') {
        return Err(invalid("the path holds NUL"));
    }
    if path.path.len() > PATH_LIMIT || root.len() > PATH_LIMIT {
        return Err(invalid("the path is too long"));
    }
    match (&path.root, path.path.as_bytes().first()) {
        (_, None) => return Err(invalid("the path is empty")),
        (None, Some(first)) if *first != b'/' => return Err(invalid("without a root, the path must be absolute")),
        (Some(_), Some(b'/')) => return Err(invalid("with a root, the path must be relative to it")),
        (Some(root), _) if !root.starts_with('/') => return Err(invalid("the root must be absolute")),
        (None | Some(_), Some(_)) => {}
    }
    let names: Vec<&str> = path.path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    let directory =
        path.path.ends_with('/') || path.path.ends_with("/.") || names.last().is_none_or(|name| *name == "..");
    Ok([root, &names.join("/"), word(directory, "directory")].map(str::to_owned).to_vec())
}

/// An argument that is either `word` or empty.
pub(super) fn word(given: bool, word: &'static str) -> &'static str {
    if given { word } else { "" }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn arguments(path: &str, root: Option<&str>) -> Result<Vec<String>, FileProblem> {
        place(&FilePath { path: path.to_owned(), root: root.map(str::to_owned) }).map_err(|refusal| refusal.problem)
    }

    #[test]
    fn shell_path_has_no_redundant_components() {
        assert_eq!(arguments("/a//./b", None).unwrap(), ["", "a/b", ""]);
        assert_eq!(arguments("a/", Some("/r")).unwrap(), ["/r", "a", "directory"]);
        assert_eq!(arguments(".", Some("/r")).unwrap(), ["/r", "", "directory"]);
        assert_eq!(arguments("a/..", Some("/r")).unwrap(), ["/r", "a/..", "directory"]);
        for (path, root) in [("a", None), ("/a", Some("/r")), ("a", Some("r")), ("", Some("/r")), ("a\0", Some("/r"))] {
            assert_eq!(arguments(path, root), Err(FileProblem::InvalidPath), "{path:?} {root:?}");
        }
    }
}
