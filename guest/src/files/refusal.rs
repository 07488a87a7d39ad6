//! Why a file call failed, and the status that the client gets.

use bytes::Bytes;
use prost::Message as _;
use rustix::io::Errno;
use tonic::{Code, Status};

use super::path::PathError;
use errand_os::file_problem;
use errand_proto::bridge::{self, FileRefusal};
use errand_task::FileProblem;

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) problem: FileProblem,
    /// The kernel's error text, or ours.
    pub(super) detail: String,
}

impl Refusal {
    pub(super) fn of(problem: FileProblem) -> Self {
        Self { problem, detail: problem.cause().to_owned() }
    }

    /// The status for this refusal, naming the path.
    pub(super) fn into_status(self, path: &[u8]) -> Status {
        let message = format!("{:?}: {}", String::from_utf8_lossy(path), self.detail);
        let problem = bridge::FileProblem::named(self.problem.name()).unwrap_or(bridge::FileProblem::Failed);
        let refusal = FileRefusal { problem: problem.into(), detail: self.detail };
        Status::with_details(Code::from(self.problem.status_code()), message, Bytes::from(refusal.encode_to_vec()))
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        let problem = file_problem::meaning(errno);
        // Where the cause depends on the file system, the kernel's text says more.
        let detail = if problem.needs_detail() { file_problem::text(errno) } else { problem.cause().to_owned() };
        Self { problem, detail }
    }
}

impl From<PathError> for Refusal {
    fn from(error: PathError) -> Self {
        Self { problem: FileProblem::InvalidPath, detail: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn kernel_errors_have_their_status_codes() {
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
    fn a_status_names_path_problem_and_cause() {
        let status = Refusal::from(Errno::ROFS).into_status(b"/etc/x");
        assert_eq!(status.message(), "\"/etc/x\": Read-only file system");
        let refusal = FileRefusal::decode(status.details()).unwrap();
        let problem = bridge::FileProblem::NotPermitted;
        assert_eq!((refusal.problem(), refusal.detail.as_str()), (problem, "Read-only file system"));
    }

    #[test]
    fn every_problem_keeps_its_name_in_a_status() {
        for problem in FileProblem::ALL {
            let status = Refusal::of(problem).into_status(b"/p");
            assert_eq!(FileRefusal::decode(status.details()).unwrap().problem().name(), problem.name());
        }
    }
}
