//! Parses paths without touching the file system. Pure: fit for a fuzzer.
//!
//! Keeps `..` as it is: the parent of a directory depends on the links that led into it, and only the file system knows those.

/// The most bytes of a path that the kernel takes (PATH_MAX without the NUL).
pub const PATH_LIMIT: usize = 4095;

/// A path relative to the place where its tree begins: a root, or `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath {
    root: Option<Vec<u8>>,
    /// The names, without `.` and empty names.
    names: Vec<Vec<u8>>,
    directory: bool,
}

/// Why a path is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path has no bytes.
    #[error("the path is empty")]
    Empty,
    /// The path holds a NUL byte, which would end it.
    #[error("the path holds NUL")]
    Nul,
    /// The path is longer than the kernel accepts.
    #[error("the path has more than {PATH_LIMIT} bytes")]
    TooLong,
    /// A relative path without a root.
    #[error("without a root, the path must be absolute")]
    NotAbsolute,
    /// An absolute path with a root.
    #[error("with a root, the path must be relative to it")]
    Absolute,
    /// The root is a relative path.
    #[error("the root must be absolute")]
    RootNotAbsolute,
}

/// Parses a path. An empty root means no root.
///
/// # Errors
/// When the path is invalid.
pub fn parse(path: &[u8], root: &[u8]) -> Result<FilePath, PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.contains(&0) || root.contains(&0) {
        return Err(PathError::Nul);
    }
    if path.len() > PATH_LIMIT || root.len() > PATH_LIMIT {
        return Err(PathError::TooLong);
    }
    match (root.first(), path[0]) {
        (None, first) if first != b'/' => return Err(PathError::NotAbsolute),
        (Some(b'/'), b'/') => return Err(PathError::Absolute),
        (Some(first), _) if *first != b'/' => return Err(PathError::RootNotAbsolute),
        (None | Some(_), _) => {}
    }
    let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    Ok(FilePath {
        root: (!root.is_empty()).then(|| root.to_vec()),
        names: names.map(<[u8]>::to_vec).collect(),
        directory: path.ends_with(b"/") || path.ends_with(b"/.") || path == b".",
    })
}

impl FilePath {
    /// The absolute path of the root that this path must not leave.
    pub fn root(&self) -> Option<&[u8]> {
        self.root.as_deref()
    }

    /// True when the path is written so that only a directory can match, such as `a/`.
    pub fn names_a_directory(&self) -> bool {
        self.directory || self.split().is_none()
    }

    /// The path relative to the place where its tree begins.
    pub fn relative(&self) -> Vec<u8> {
        joined(&self.names)
    }

    /// The directory and the name in it; none for the root itself and for a path that ends in `..`: those have no name of their own.
    pub fn split(&self) -> Option<(Vec<u8>, &[u8])> {
        let (name, above) = self.names.split_last()?;
        (name != b"..").then(|| (joined(above), name.as_slice()))
    }

    /// The last name, for display.
    pub fn name(&self) -> &[u8] {
        match (self.names.last(), &self.root) {
            (Some(name), _) => name,
            (None, Some(_)) => b".",
            (None, None) => b"/",
        }
    }

    /// The directories above the last name, outermost first.
    pub fn above(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        (1..self.names.len()).map(|length| joined(&self.names[..length]))
    }
}

fn joined(names: &[Vec<u8>]) -> Vec<u8> {
    if names.is_empty() { b".".to_vec() } else { names.join(&b'/') }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_relative_to_their_root() {
        assert_eq!(parse(b"/a//./b", b"").unwrap().relative(), b"a/b");
        assert_eq!(parse(b"a/../b", b"/r").unwrap().relative(), b"a/../b");
        assert_eq!(parse(b"/", b"").unwrap().relative(), b".");
        assert_eq!(parse(b".", b"/r").unwrap().relative(), b".");
        assert_eq!(parse(b"a", b""), Err(PathError::NotAbsolute));
        assert_eq!(parse(b"/a", b"/r"), Err(PathError::Absolute));
        assert_eq!(parse(b"a", b"r"), Err(PathError::RootNotAbsolute));
        assert_eq!(parse(b"", b"/r"), Err(PathError::Empty));
        assert_eq!(parse(b"a\0", b"/r"), Err(PathError::Nul));
        assert_eq!(parse(&[b'a'; PATH_LIMIT + 1], b"/r"), Err(PathError::TooLong));
    }

    #[test]
    fn path_splits_into_parent_and_name() {
        let split = |path: &[u8]| parse(path, b"/r").unwrap().split().map(|(above, name)| (above, name.to_vec()));
        assert_eq!(split(b"a/b"), Some((b"a".to_vec(), b"b".to_vec())));
        assert_eq!(split(b"b/"), Some((b".".to_vec(), b"b".to_vec())));
        assert_eq!(split(b"."), None);
        assert_eq!(split(b"a/.."), None);
        assert!(parse(b"a/", b"/r").unwrap().names_a_directory());
        assert!(parse(b"a/.", b"/r").unwrap().names_a_directory());
        assert!(!parse(b"a.", b"/r").unwrap().names_a_directory());
    }

    proptest! {
        #[test]
        fn parsing_arbitrary_paths_never_panics_or_escapes(
            path in prop::collection::vec(any::<u8>(), 0..64),
            root in prop::collection::vec(any::<u8>(), 0..16),
        ) {
            if let Ok(parsed) = parse(&path, &root) {
                prop_assert!(!parsed.relative().starts_with(b"/"));
                prop_assert!(!parsed.relative().is_empty() && !parsed.relative().contains(&0));
                if let Some((above, name)) = parsed.split() {
                    prop_assert!(!above.starts_with(b"/") && !name.contains(&b'/') && name != b".." && name != b".");
                }
            }
        }
    }
}
