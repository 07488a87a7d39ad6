//! Why a file call failed, and the status that the client gets.

use bytes::Bytes;
use prost::Message as _;
use rustix::io::Errno;
use tonic::{Code, Status};

use super::path::PathError;
use errand_proto::bridge::{FileProblem, FileRefusal};

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) problem: FileProblem,
    /// The kernel's error text, or ours.
    pub(super) detail: String,
}

impl Refusal {
    pub(super) fn of(problem: FileProblem) -> Self {
        Self { problem, detail: cause(problem).to_owned() }
    }

    /// The status for this refusal, naming the path.
    pub(super) fn into_status(self, path: &[u8]) -> Status {
        let message = format!("{:?}: {}", String::from_utf8_lossy(path), self.detail);
        let refusal = FileRefusal { problem: self.problem.into(), detail: self.detail };
        Status::with_details(code(self.problem), message, Bytes::from(refusal.encode_to_vec()))
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        let problem = problem(errno);
        let detail = match problem {
            // The cause depends on the file system: the kernel's text is kept.
            FileProblem::NotPermitted | FileProblem::Busy | FileProblem::InvalidPath | FileProblem::Failed => {
                words(errno)
            }
            known => cause(known).to_owned(),
        };
        Self { problem, detail }
    }
}

impl From<PathError> for Refusal {
    fn from(error: PathError) -> Self {
        Self { problem: FileProblem::InvalidPath, detail: error.to_string() }
    }
}

/// The kernel's text for an error, without its number.
fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn problem(errno: Errno) -> FileProblem {
    match errno {
        Errno::NOENT => FileProblem::NotFound,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => FileProblem::NotPermitted,
        Errno::ISDIR => FileProblem::IsADirectory,
        Errno::NOTDIR => FileProblem::NotADirectory,
        Errno::NXIO => FileProblem::NotAFile,
        Errno::NOTEMPTY => FileProblem::NotEmpty,
        Errno::XDEV => FileProblem::OutsideRoot,
        Errno::LOOP => FileProblem::TooManyLinks,
        Errno::EXIST => FileProblem::AlreadyExists,
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => FileProblem::NoSpace,
        Errno::BUSY | Errno::TXTBSY => FileProblem::Busy,
        Errno::INVAL | Errno::NAMETOOLONG | Errno::ILSEQ => FileProblem::InvalidPath,
        _ => FileProblem::Failed,
    }
}

fn cause(problem: FileProblem) -> &'static str {
    match problem {
        FileProblem::NotFound => "there is no such file or directory",
        FileProblem::NotPermitted => "not permitted",
        FileProblem::IsADirectory => "is a directory",
        FileProblem::NotADirectory => "is not a directory, or something above it is none",
        FileProblem::NotAFile => "is neither a file nor a directory",
        FileProblem::NotEmpty => "the directory is not empty",
        FileProblem::OutsideRoot => "leads out of its root",
        FileProblem::TooManyLinks => "too many symbolic links",
        FileProblem::AlreadyExists => "is there already",
        FileProblem::NoSpace => "no space is left",
        FileProblem::Busy => "is in use",
        FileProblem::InvalidPath => "no file can have this path",
        FileProblem::Failed | FileProblem::Unspecified => "the file system failed",
    }
}

fn code(problem: FileProblem) -> Code {
    match problem {
        FileProblem::NotFound => Code::NotFound,
        FileProblem::NotPermitted => Code::PermissionDenied,
        FileProblem::IsADirectory
        | FileProblem::NotADirectory
        | FileProblem::NotAFile
        | FileProblem::NotEmpty
        | FileProblem::OutsideRoot
        | FileProblem::TooManyLinks
        | FileProblem::Busy => Code::FailedPrecondition,
        FileProblem::AlreadyExists => Code::AlreadyExists,
        FileProblem::NoSpace => Code::ResourceExhausted,
        FileProblem::InvalidPath => Code::InvalidArgument,
        FileProblem::Failed | FileProblem::Unspecified => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn every_error_of_the_kernel_has_its_code() {
        for (errno, code) in [
            (Errno::NOENT, Code::NotFound),
            (Errno::ACCESS, Code::PermissionDenied),
            (Errno::PERM, Code::PermissionDenied),
            (Errno::ROFS, Code::PermissionDenied),
            (Errno::ISDIR, Code::FailedPrecondition),
            (Errno::NOTDIR, Code::FailedPrecondition),
            (Errno::NOTEMPTY, Code::FailedPrecondition),
            (Errno::XDEV, Code::FailedPrecondition),
            (Errno::LOOP, Code::FailedPrecondition),
            (Errno::BUSY, Code::FailedPrecondition),
            (Errno::EXIST, Code::AlreadyExists),
            (Errno::NOSPC, Code::ResourceExhausted),
            (Errno::DQUOT, Code::ResourceExhausted),
            (Errno::INVAL, Code::InvalidArgument),
            (Errno::NAMETOOLONG, Code::InvalidArgument),
            (Errno::IO, Code::Internal),
        ] {
            assert_eq!(Refusal::from(errno).into_status(b"/p").code(), code, "{errno:?}");
        }
    }

    #[test]
    fn a_status_says_the_path_and_the_cause_and_tells_problems_apart() {
        let status = Refusal::from(Errno::ROFS).into_status(b"/etc/x");
        assert_eq!(status.message(), "\"/etc/x\": Read-only file system");
        let refusal = FileRefusal::decode(status.details()).unwrap();
        assert_eq!((refusal.problem(), refusal.detail.as_str()), (FileProblem::NotPermitted, "Read-only file system"));
    }
}
