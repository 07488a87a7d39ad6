//! Files of a sandbox: paths, entries, write options, and the problems that file operations report.

use std::{fmt, time::SystemTime};

/// The path of a file, optionally confined to a root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath {
    /// Absolute if there is no root. Otherwise relative to the root; `.` is the root itself.
    pub path: String,
    /// Absolute path of a directory that the path must not lead out of, by `..` or by symbolic links.
    pub root: Option<String>,
}

impl FilePath {
    /// The last component of the path, for display; `/` or `.` if there is none.
    pub fn name(&self) -> &str {
        let name = self.path.rsplit('/').find(|name| !matches!(*name, "" | "."));
        name.unwrap_or(if self.root.is_some() { "." } else { "/" })
    }
}

/// The metadata of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Name within its directory; for a requested file, the last component of the path. Not necessarily UTF-8.
    pub name: Vec<u8>,
    /// Its kind.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permissions: the lower 12 bits of the mode.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// When its content was last changed.
    pub modified: SystemTime,
    /// Target of a symbolic link; empty for every other kind. Not necessarily UTF-8.
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
    /// Any other kind: a device, a socket, a pipe.
    Other,
}

/// Options for writing a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Permissions of the new file. Default: those of the file that it replaces, else 0644.
    pub mode: Option<u32>,
    /// Whether to make missing parent directories.
    pub make_parents: bool,
    /// Whether an existing path is an error.
    pub must_not_exist: bool,
}

/// Options for unpacking a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeOptions {
    /// Whether to make missing parent directories.
    pub make_parents: bool,
    /// Whether the directory may exist. Its files with the paths of the archive are then replaced; otherwise it is an error.
    pub merge: bool,
}

/// A tree that was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeWritten {
    /// Its directory.
    pub entry: FileEntry,
    /// How many files, directories and links were unpacked.
    pub unpacked: u64,
    /// How many entries of the archive were left out: devices and pipes.
    pub left_out: u64,
}

/// A change in a watched directory. Paths are relative to it and not necessarily UTF-8; the empty path is the directory itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileChange {
    /// A file was made, or moved here.
    Created(ChangedFile),
    /// Its content changed.
    Modified(ChangedFile),
    /// It was removed, or moved elsewhere.
    Removed(ChangedFile),
    /// It has another path now.
    Renamed {
        /// The path before.
        from: Vec<u8>,
        /// The file at its new path.
        to: ChangedFile,
    },
    /// Changes were lost: only a look at the directory tells what is in it.
    Overflow,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFile {
    /// Its path.
    pub path: Vec<u8>,
    /// Whether it is a directory.
    pub is_directory: bool,
}

/// Why a file operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileProblem {
    /// The file or one of its parent directories does not exist.
    NotFound,
    /// The sandbox's user lacks the permission, or the file system is read-only.
    NotPermitted,
    /// The path is a directory.
    IsADirectory,
    /// The path or one of its parents is not a directory.
    NotADirectory,
    /// The path is neither a regular file nor a directory.
    NotAFile,
    /// The directory is not empty.
    NotEmpty,
    /// The path leads out of its root.
    OutsideRoot,
    /// Too many symbolic links.
    TooManyLinks,
    /// The path exists already.
    AlreadyExists,
    /// The disk or the quota is full.
    NoSpace,
    /// The path is a mount point or otherwise in use.
    Busy,
    /// The path cannot name a file, for example because a component is too long.
    InvalidPath,
    /// The file system failed.
    Failed,
    /// The new path is on another file system.
    OtherFileSystem,
    /// The content is no tar archive, is incomplete, or holds a path that leads out of it.
    InvalidArchive,
    /// There are more directories than can be watched.
    TooMany,
}

impl FileProblem {
    /// Every problem.
    pub const ALL: [Self; 16] = [
        Self::NotFound,
        Self::NotPermitted,
        Self::IsADirectory,
        Self::NotADirectory,
        Self::NotAFile,
        Self::NotEmpty,
        Self::OutsideRoot,
        Self::TooManyLinks,
        Self::AlreadyExists,
        Self::NoSpace,
        Self::Busy,
        Self::InvalidPath,
        Self::Failed,
        Self::OtherFileSystem,
        Self::InvalidArchive,
        Self::TooMany,
    ];

    /// The problem with this name; none if there is no such problem.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|problem| problem.name() == name)
    }

    /// Its name in both protocols and in the scripts of the direct bridge, such as `IS_A_DIRECTORY`.
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
            Self::OtherFileSystem => "OTHER_FILE_SYSTEM",
            Self::InvalidArchive => "INVALID_ARCHIVE",
            Self::TooMany => "TOO_MANY",
        }
    }

    /// The number of the gRPC status code that reports it, in both protocols.
    pub fn status_code(self) -> i32 {
        const INVALID_ARGUMENT: i32 = 3;
        const NOT_FOUND: i32 = 5;
        const ALREADY_EXISTS: i32 = 6;
        const PERMISSION_DENIED: i32 = 7;
        const RESOURCE_EXHAUSTED: i32 = 8;
        const FAILED_PRECONDITION: i32 = 9;
        const INTERNAL: i32 = 13;
        match self {
            Self::NotFound => NOT_FOUND,
            Self::NotPermitted => PERMISSION_DENIED,
            Self::IsADirectory
            | Self::NotADirectory
            | Self::NotAFile
            | Self::NotEmpty
            | Self::OutsideRoot
            | Self::TooManyLinks
            | Self::OtherFileSystem
            | Self::Busy => FAILED_PRECONDITION,
            Self::AlreadyExists => ALREADY_EXISTS,
            Self::NoSpace | Self::TooMany => RESOURCE_EXHAUSTED,
            Self::InvalidPath | Self::InvalidArchive => INVALID_ARGUMENT,
            Self::Failed => INTERNAL,
        }
    }

    /// The text for people.
    pub fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "no such file or directory",
            Self::NotPermitted => "not permitted",
            Self::IsADirectory => "is a directory",
            Self::NotADirectory => "it or one of its parents is not a directory",
            Self::NotAFile => "neither a regular file nor a directory",
            Self::NotEmpty => "directory not empty",
            Self::OutsideRoot => "leads out of its root",
            Self::TooManyLinks => "too many symbolic links",
            Self::AlreadyExists => "already exists",
            Self::NoSpace => "no space left",
            Self::Busy => "in use",
            Self::InvalidPath => "invalid path",
            Self::Failed => "file system error",
            Self::OtherFileSystem => "the new path is on another file system",
            Self::InvalidArchive => "invalid tar archive",
            Self::TooMany => "too many to watch",
        }
    }

    /// True if the kernel's message tells more than ours.
    pub fn needs_detail(self) -> bool {
        match self {
            Self::NotPermitted
            | Self::Busy
            | Self::InvalidPath
            | Self::InvalidArchive
            | Self::TooMany
            | Self::Failed => true,
            Self::NotFound
            | Self::IsADirectory
            | Self::NotADirectory
            | Self::NotAFile
            | Self::NotEmpty
            | Self::OutsideRoot
            | Self::TooManyLinks
            | Self::AlreadyExists
            | Self::OtherFileSystem
            | Self::NoSpace => false,
        }
    }
}

/// A refused file operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FileRefusal {
    /// The path as the caller gave it.
    pub path: String,
    /// The problem.
    pub problem: FileProblem,
    /// The kernel's message, such as `Read-only file system`; may be empty.
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
    fn every_problem_is_found_by_its_name() {
        for problem in FileProblem::ALL {
            assert_eq!(FileProblem::named(problem.name()), Some(problem));
        }
        assert_eq!(FileProblem::named(""), None);
    }

    #[test]
    fn refusal_names_path_cause_and_detail() {
        let refusal = |problem, detail: &str| {
            FileRefusal { path: "/a".to_owned(), problem, detail: detail.to_owned() }.to_string()
        };
        assert_eq!(refusal(FileProblem::NotFound, "No such file"), "\"/a\": no such file or directory");
        assert_eq!(
            refusal(FileProblem::NotPermitted, "Read-only file system"),
            "\"/a\": not permitted (Read-only file system)"
        );
    }
}
