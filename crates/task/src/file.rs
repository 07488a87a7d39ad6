//! Files of a sandbox: how they are named and described, and what can be in the way of using them.

use std::{fmt, time::SystemTime};

/// Which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath {
    /// Absolute without a root; with one, relative to it, and `.` is the root itself.
    pub path: String,
    /// Absolute path of a directory that the path must not lead out of, by `..` or by symbolic links.
    pub root: Option<String>,
}

impl FilePath {
    /// The last name in it, for showing; `/` or `.` where there is none.
    pub fn name(&self) -> &str {
        let name = self.path.rsplit('/').find(|name| !matches!(*name, "" | "."));
        name.unwrap_or(if self.root.is_some() { "." } else { "/" })
    }
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name within its directory; of a file that was asked for, the last name of the path. Not necessarily UTF-8.
    pub name: Vec<u8>,
    /// What kind it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permissions, the lower twelve bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When its content was last changed.
    pub modified: SystemTime,
    /// Where a symbolic link leads to; empty for all else. Not necessarily UTF-8.
    pub link_target: Vec<u8>,
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, a socket, a pipe.
    Other,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Its permissions; none: those of the file that it takes the place of, else 0644.
    pub mode: Option<u32>,
    /// Whether directories above it are made.
    pub make_parents: bool,
    /// Whether it is an error when anything is there.
    pub must_not_exist: bool,
}

/// What can be in the way of using a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileProblem {
    /// There is no such file, or no such directory above it.
    NotFound,
    /// The sandbox's user may not, or the file system is read-only.
    NotPermitted,
    /// It is a directory.
    IsADirectory,
    /// It, or what should be a directory above it, is none.
    NotADirectory,
    /// It is neither a regular file nor a directory.
    NotAFile,
    /// The directory is not empty.
    NotEmpty,
    /// The path leads out of its root.
    OutsideRoot,
    /// Too many symbolic links.
    TooManyLinks,
    /// It is there already.
    AlreadyExists,
    /// No space, or no quota, is left.
    NoSpace,
    /// Something is mounted there, or it is in use otherwise.
    Busy,
    /// No file can have this path.
    InvalidPath,
    /// The file system failed.
    Failed,
}

impl FileProblem {
    /// Its name in the API, such as `IS_A_DIRECTORY`.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::NotPermitted => "NOT_PERMITTED",
            Self::IsADirectory => "IS_A_DIRECTORY",
            Self::NotADirectory => "NOT_A_DIRECTORY",
            Self::NotAFile => "NOT_A_FILE",
            Self::NotEmpty => "NOT_EMPTY",
            Self::OutsideRoot => "OUTSIDE_ROOT",
            Self::TooManyLinks => "TOO_MANY_LINKS",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::NoSpace => "NO_SPACE",
            Self::Busy => "BUSY",
            Self::InvalidPath => "INVALID_PATH",
            Self::Failed => "FAILED",
        }
    }

    /// What people are told.
    fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "there is no such file or directory",
            Self::NotPermitted => "not permitted",
            Self::IsADirectory => "is a directory",
            Self::NotADirectory => "is not a directory, or something above it is none",
            Self::NotAFile => "is neither a file nor a directory",
            Self::NotEmpty => "the directory is not empty",
            Self::OutsideRoot => "leads out of its root",
            Self::TooManyLinks => "too many symbolic links",
            Self::AlreadyExists => "is there already",
            Self::NoSpace => "no space is left",
            Self::Busy => "is in use",
            Self::InvalidPath => "no file can have this path",
            Self::Failed => "the file system failed",
        }
    }

    /// True where the sandbox's own words say more than ours.
    fn needs_detail(self) -> bool {
        match self {
            Self::NotPermitted | Self::Busy | Self::InvalidPath | Self::Failed => true,
            Self::NotFound
            | Self::IsADirectory
            | Self::NotADirectory
            | Self::NotAFile
            | Self::NotEmpty
            | Self::OutsideRoot
            | Self::TooManyLinks
            | Self::AlreadyExists
            | Self::NoSpace => false,
        }
    }
}

/// Why a file could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FileRefusal {
    /// Which file, as it was asked for.
    pub path: String,
    /// What is in the way.
    pub problem: FileProblem,
    /// The sandbox's own words, such as `Read-only file system`; may be empty.
    pub detail: String,
}

impl fmt::Display for FileRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.path, self.problem.cause())?;
        if self.problem.needs_detail() && !self.detail.is_empty() && self.detail != self.problem.cause() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_name_is_the_last_path_component() {
        let name = |path: &str, root: Option<&str>| {
            FilePath { path: path.to_owned(), root: root.map(str::to_owned) }.name().to_owned()
        };
        assert_eq!(name("/a/b/", None), "b");
        assert_eq!(name("/a/./", None), "a");
        assert_eq!(name("/", None), "/");
        assert_eq!(name(".", Some("/r")), ".");
    }

    #[test]
    fn refusal_names_path_cause_and_detail() {
        let refusal = |problem, detail: &str| {
            FileRefusal { path: "/a".to_owned(), problem, detail: detail.to_owned() }.to_string()
        };
        assert_eq!(refusal(FileProblem::NotFound, "No such file"), "\"/a\": there is no such file or directory");
        assert_eq!(
            refusal(FileProblem::NotPermitted, "Read-only file system"),
            "\"/a\": not permitted (Read-only file system)"
        );
    }
}
