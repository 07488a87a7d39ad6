//! What the kernel's errors mean for a file.

use errand_task::FileProblem;
use rustix::io::Errno;

/// The errors with a meaning of their own. Every other error is [`FileProblem::Failed`].
pub const MEANINGS: [(Errno, FileProblem); 19] = [
    (Errno::NOENT, FileProblem::NotFound),
    (Errno::ACCESS, FileProblem::NotPermitted),
    (Errno::PERM, FileProblem::NotPermitted),
    (Errno::ROFS, FileProblem::NotPermitted),
    (Errno::ISDIR, FileProblem::IsADirectory),
    (Errno::NOTDIR, FileProblem::NotADirectory),
    (Errno::NXIO, FileProblem::NotAFile),
    (Errno::NOTEMPTY, FileProblem::NotEmpty),
    (Errno::XDEV, FileProblem::OutsideRoot),
    (Errno::LOOP, FileProblem::TooManyLinks),
    (Errno::EXIST, FileProblem::AlreadyExists),
    (Errno::NOSPC, FileProblem::NoSpace),
    (Errno::DQUOT, FileProblem::NoSpace),
    (Errno::FBIG, FileProblem::NoSpace),
    (Errno::BUSY, FileProblem::Busy),
    (Errno::TXTBSY, FileProblem::Busy),
    (Errno::INVAL, FileProblem::InvalidPath),
    (Errno::NAMETOOLONG, FileProblem::InvalidPath),
    (Errno::ILSEQ, FileProblem::InvalidPath),
];

/// What an error means.
pub fn meaning(errno: Errno) -> FileProblem {
    let known = MEANINGS.iter().find(|(known, _)| *known == errno);
    known.map_or(FileProblem::Failed, |(_, problem)| *problem)
}

/// The kernel's text for an error, without its number.
pub fn text(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
