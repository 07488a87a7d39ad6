//! Why a runtime could not do what it was asked to do.

/// Why a runtime could not do what it was asked to do.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The runtime does not answer, or the connection to it broke.
    #[error("the runtime does not answer: {detail}")]
    Unavailable {
        /// What was tried, and the error.
        detail: String,
    },
    /// The runtime does not have the image.
    #[error("the runtime has no image {image:?}")]
    NoSuchImage {
        /// The image.
        image: String,
    },
    /// The sandbox does not exist.
    #[error("the sandbox {id:?} does not exist")]
    NoSuchSandbox {
        /// The id or name that was asked for.
        id: String,
    },
    /// The sandbox exists and does not run.
    #[error("the sandbox {id:?} is not running")]
    NotRunning {
        /// The id or name that was asked for.
        id: String,
    },
    /// The connection broke while a process was being started: it is unknown whether the process runs.
    #[error("the runtime broke off while it was starting a process: {detail}")]
    Uncertain {
        /// The error.
        detail: String,
    },
    /// The process was certainly not started.
    #[error("the process was not started: {detail}")]
    NotStarted {
        /// The kind of failure.
        reason: NotStarted,
        /// The runtime's message.
        detail: String,
    },
    /// A file was not written. Nothing of it was left behind.
    #[error("{path} cannot be written: {detail}")]
    NotWritten {
        /// The file.
        path: String,
        /// The error.
        detail: String,
    },
    /// The runtime refused the request.
    #[error("the runtime refused: {detail}")]
    Refused {
        /// The runtime's message.
        detail: String,
    },
}

/// Why a process was certainly not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStarted {
    /// The program does not exist in the sandbox.
    NotFound,
    /// The program cannot be executed.
    NotExecutable,
    /// The sandbox's user does not exist.
    NoSuchUser,
    /// The arguments and the environment are larger than the kernel accepts.
    TooLarge,
    /// Any other reason.
    Other,
}
