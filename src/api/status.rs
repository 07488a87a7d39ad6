//! The one table from internal errors to gRPC statuses. No other place turns an error into a status.
//!
//! A client is told what it can act on. What only the operator can act on is logged, once, here.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use errand_engine::EngineError;
use errand_runtime::RuntimeError;
use errand_store::StoreError;
use errand_task::{FileProblem, FileRefusal, error_chain};

/// When to retry after an error that is usually transient.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The most characters of a message: it is sent in a header, and clients limit the size of headers.
const MESSAGE_LIMIT: usize = 1000;
/// The domain of the reasons that distinguish errors with the same code.
const DOMAIN: &str = "errand";

/// The status for an error of the engine.
pub(super) fn engine(error: EngineError) -> Status {
    let message = error.to_string();
    match error {
        EngineError::NoSuchTask
        | EngineError::NoneOfThese { .. }
        | EngineError::NoSandbox(_)
        | EngineError::NotAdoptable { .. } => plain(Code::NotFound, &message),
        EngineError::TooManySandboxes { limit } => {
            exhausted("tenant", &format!("{limit} sandboxes of at most {limit}"), &message, None)
        }
        EngineError::TooManyAtOnce { limit } => {
            exhausted("tenant", &format!("{limit} sandboxes at the same time"), &message, Some(RETRY_DELAY))
        }
        EngineError::OthersFirst { subject } => {
            exhausted(subject, "tasks in the queue come first", &message, Some(RETRY_DELAY))
        }
        EngineError::SecretInWatch { index } => {
            let (field, rule) = (format!("watches[{index}]"), "must not hold a secret: the pattern would be shown");
            Status::with_error_details(
                Code::InvalidArgument,
                message,
                ErrorDetails::with_bad_request_violation(field, rule),
            )
        }
        EngineError::OtherSpec { .. }
        | EngineError::OutOfBounds { .. }
        | EngineError::NotYours
        | EngineError::AdoptedNotRunning { .. }
        | EngineError::OtherRuntime { .. }
        | EngineError::SandboxNotRunning
        | EngineError::BridgeCannot { .. }
        | EngineError::InputNotOpen
        | EngineError::NoTerminal
        | EngineError::InputClosed
        | EngineError::InputUnsupported { .. }
        | EngineError::NotStartedYet
        | EngineError::AlreadyFinished
        | EngineError::NothingToSignal
        | EngineError::StreamsTogether
        | EngineError::ScanTooLong { .. }
        | EngineError::LogGone => plain(Code::FailedPrecondition, &message),
        EngineError::OtherSandbox { .. } | EngineError::RequestIdReused => plain(Code::AlreadyExists, &message),
        EngineError::PastTheEnd { .. } | EngineError::InputPastTheEnd { .. } => plain(Code::OutOfRange, &message),
        EngineError::InputBusy
        | EngineError::SandboxBusy(_)
        | EngineError::Reconciling { .. }
        | EngineError::ChangePending
        | EngineError::WatchesNotStored
        | EngineError::SupervisedElsewhere => unavailable(&message, RETRY_DELAY),
        EngineError::Secrets(_) => {
            tracing::error!(%message, "a request failed because of its secrets");
            Status::internal(message)
        }
        EngineError::Defect => Status::internal(message),
        EngineError::File(refusal) => file(&refusal),
        EngineError::FileAbandoned => plain(Code::Cancelled, &message),
        EngineError::ShuttingDown => shutting_down(),
        EngineError::Store(error) => store(error),
        EngineError::Runtime(error) => runtime(&error),
    }
}

/// The status for an error of the store.
pub(super) fn store(error: StoreError) -> Status {
    match error {
        StoreError::TooManyForBot { running, limit } => quota("bot", running, limit, &error.to_string()),
        StoreError::TooManyForTenant { running, limit } => quota("tenant", running, limit, &error.to_string()),
        StoreError::TooManyQueuedForBot { queued, limit } => {
            quota_of("bot", format!("{queued} queued tasks of at most {limit}"), &error.to_string())
        }
        StoreError::TooManyQueuedForTenant { queued, limit } => {
            quota_of("tenant", format!("{queued} queued tasks of at most {limit}"), &error.to_string())
        }
        StoreError::TooMuchQueued { queued, limit } => {
            quota_of("tenant", format!("{queued} queued bytes of at most {limit}"), &error.to_string())
        }
        StoreError::TooManyStored { stored, limit } => {
            quota_of("tenant", format!("{stored} stored tasks of at most {limit}"), &error.to_string())
        }
        StoreError::TooMuchStored { stored, limit } => {
            quota_of("tenant", format!("{stored} stored bytes of at most {limit}"), &error.to_string())
        }
        StoreError::Busy => unavailable(&error.to_string(), RETRY_DELAY),
        StoreError::DiskFull => {
            tracing::error!("a request failed because the disk of the database is full");
            plain(Code::ResourceExhausted, &error.to_string())
        }
        StoreError::Record { .. } => {
            tracing::error!(%error, "a request failed because of a stored record");
            plain(Code::DataLoss, &error.to_string())
        }
        StoreError::Conflict => plain(Code::Aborted, &error.to_string()),
        StoreError::Closed => shutting_down(),
        StoreError::TooNew { .. }
        | StoreError::Unusable { .. }
        | StoreError::InUse { .. }
        | StoreError::Unwritable(_)
        | StoreError::Database(_)
        | StoreError::Unstorable(_) => {
            tracing::error!(error = %error_chain(&error), "a request failed because of the database");
            Status::internal("the server's database failed; its log says more")
        }
    }
}

/// The status for a refused file operation.
fn file(refusal: &FileRefusal) -> Status {
    if refusal.problem == FileProblem::Failed {
        tracing::warn!(path = %refusal.path, detail = %refusal.detail, "a file system in a sandbox failed");
    }
    let code = Code::from(refusal.problem.status_code());
    let details = ErrorDetails::with_error_info(refusal.problem.name(), DOMAIN, HashMap::new());
    Status::with_error_details(code, shortened(&refusal.to_string()), details)
}

/// The status for an error of the runtime.
fn runtime(error: &RuntimeError) -> Status {
    let message = error.to_string();
    match error {
        RuntimeError::Unavailable { .. } | RuntimeError::Uncertain { .. } => unavailable(&message, RETRY_DELAY),
        RuntimeError::NoSuchSandbox { .. } => plain(Code::NotFound, &message),
        RuntimeError::NoSuchImage { .. }
        | RuntimeError::NotRunning { .. }
        | RuntimeError::NotStarted { .. }
        | RuntimeError::NotWritten { .. }
        | RuntimeError::Refused { .. } => plain(Code::FailedPrecondition, &message),
    }
}

/// UNAVAILABLE, with the delay before a retry.
pub(super) fn unavailable(message: &str, retry_delay: Duration) -> Status {
    let details = ErrorDetails::with_retry_info(Some(retry_delay));
    Status::with_error_details(Code::Unavailable, shortened(message), details)
}

/// The status of every call that the shutdown cuts short.
pub(super) fn shutting_down() -> Status {
    unavailable("the server is shutting down", RETRY_DELAY)
}

fn plain(code: Code, message: &str) -> Status {
    Status::new(code, shortened(message))
}

fn quota(subject: &str, running: u32, limit: u32, message: &str) -> Status {
    quota_of(subject, format!("{running} unfinished tasks of at most {limit}"), message)
}

fn quota_of(subject: &str, description: String, message: &str) -> Status {
    let details = ErrorDetails::with_quota_failure_violation(subject, description);
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// RESOURCE_EXHAUSTED, with the owner of the quota, the quota, and the delay before a retry if waiting helps.
pub(super) fn exhausted(subject: &str, quota: &str, message: &str, retry_delay: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_quota_failure_violation(subject, quota);
    if retry_delay.is_some() {
        details.set_retry_info(retry_delay);
    }
    Status::with_error_details(Code::ResourceExhausted, shortened(message), details)
}

fn shortened(message: &str) -> String {
    message.chars().take(MESSAGE_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::sync::Arc;

    use super::*;
    use errand_runtime::NotStarted;
    use errand_task::BotId;

    #[test]
    fn every_error_has_its_code() {
        let text = String::new;
        let table: Vec<(EngineError, Code)> = vec![
            (EngineError::NoSuchTask, Code::NotFound),
            (EngineError::NoSandbox(BotId::new("b").unwrap()), Code::NotFound),
            (RuntimeError::NoSuchSandbox { id: text() }.into(), Code::NotFound),
            (EngineError::OtherSpec { fields: vec!["image"] }, Code::FailedPrecondition),
            (EngineError::NotYours, Code::FailedPrecondition),
            (EngineError::AdoptedNotRunning { name: text() }, Code::FailedPrecondition),
            (EngineError::SandboxNotRunning, Code::FailedPrecondition),
            (EngineError::LogGone, Code::FailedPrecondition),
            (EngineError::StreamsTogether, Code::FailedPrecondition),
            (EngineError::ScanTooLong { limit: Duration::ZERO, read: 1, size: 2 }, Code::FailedPrecondition),
            (
                EngineError::BridgeCannot { fields: vec!["stdin"], bridge: "direct", why: text() },
                Code::FailedPrecondition,
            ),
            (EngineError::InputNotOpen, Code::FailedPrecondition),
            (EngineError::NoTerminal, Code::FailedPrecondition),
            (EngineError::InputClosed, Code::FailedPrecondition),
            (EngineError::InputUnsupported { why: text() }, Code::FailedPrecondition),
            (EngineError::NotStartedYet, Code::FailedPrecondition),
            (EngineError::InputPastTheEnd { offset: 2, taken: 1 }, Code::OutOfRange),
            (RuntimeError::NoSuchImage { image: text() }.into(), Code::FailedPrecondition),
            (RuntimeError::NotRunning { id: text() }.into(), Code::FailedPrecondition),
            (RuntimeError::Refused { detail: text() }.into(), Code::FailedPrecondition),
            (RuntimeError::NotStarted { reason: NotStarted::Other, detail: text() }.into(), Code::FailedPrecondition),
            (EngineError::OtherSandbox { name: text() }, Code::AlreadyExists),
            (EngineError::RequestIdReused, Code::AlreadyExists),
            (EngineError::PastTheEnd { offset: 2, size: 1 }, Code::OutOfRange),
            (
                EngineError::NotAdoptable {
                    container: text(),
                    label: "",
                    tenant: errand_task::TenantId::local(),
                    bot_label: "",
                    bot: BotId::new("b").unwrap(),
                },
                Code::NotFound,
            ),
            (EngineError::OutOfBounds { field: "cpus", rule: text() }, Code::FailedPrecondition),
            (EngineError::TooManySandboxes { limit: 1 }, Code::ResourceExhausted),
            (EngineError::TooManyAtOnce { limit: 1 }, Code::ResourceExhausted),
            (EngineError::SandboxBusy(BotId::new("b").unwrap()), Code::Unavailable),
            (EngineError::InputBusy, Code::Unavailable),
            (EngineError::Reconciling { bot: BotId::new("b").unwrap(), reason: text() }, Code::Unavailable),
            (EngineError::Defect, Code::Internal),
            (EngineError::ShuttingDown, Code::Unavailable),
            (EngineError::SupervisedElsewhere, Code::Unavailable),
            (RuntimeError::Unavailable { detail: text() }.into(), Code::Unavailable),
            (RuntimeError::Uncertain { detail: text() }.into(), Code::Unavailable),
            (StoreError::Closed.into(), Code::Unavailable),
            (StoreError::Conflict.into(), Code::Aborted),
            (StoreError::InUse { detail: text() }.into(), Code::Internal),
            (StoreError::TooManyForBot { running: 1, limit: 1 }.into(), Code::ResourceExhausted),
            (StoreError::TooManyForTenant { running: 1, limit: 1 }.into(), Code::ResourceExhausted),
            (StoreError::TooManyQueuedForBot { queued: 1, limit: 1 }.into(), Code::ResourceExhausted),
            (StoreError::TooManyQueuedForTenant { queued: 1, limit: 1 }.into(), Code::ResourceExhausted),
            (StoreError::TooMuchQueued { queued: 1, limit: 1 }.into(), Code::ResourceExhausted),
            (EngineError::OthersFirst { subject: "bot" }, Code::ResourceExhausted),
        ];
        for (error, code) in table {
            let said = format!("{error:?}");
            assert_eq!(engine(error).code(), code, "{said}");
        }
    }

    #[test]
    fn file_problems_have_code_and_reason() {
        for (problem, code) in [
            (FileProblem::NotFound, Code::NotFound),
            (FileProblem::NotPermitted, Code::PermissionDenied),
            (FileProblem::IsADirectory, Code::FailedPrecondition),
            (FileProblem::NotADirectory, Code::FailedPrecondition),
            (FileProblem::NotAFile, Code::FailedPrecondition),
            (FileProblem::NotEmpty, Code::FailedPrecondition),
            (FileProblem::OutsideRoot, Code::FailedPrecondition),
            (FileProblem::TooManyLinks, Code::FailedPrecondition),
            (FileProblem::Busy, Code::FailedPrecondition),
            (FileProblem::AlreadyExists, Code::AlreadyExists),
            (FileProblem::NoSpace, Code::ResourceExhausted),
            (FileProblem::InvalidPath, Code::InvalidArgument),
            (FileProblem::Failed, Code::Internal),
        ] {
            let refusal = FileRefusal { path: "/p".repeat(2000), problem, detail: String::new() };
            let status = engine(EngineError::File(refusal));
            let info = status.get_details_error_info().unwrap();
            assert_eq!((status.code(), info.reason.as_str(), info.domain.as_str()), (code, problem.name(), DOMAIN));
            assert!(status.message().chars().count() <= MESSAGE_LIMIT);
        }
        assert_eq!(engine(EngineError::FileAbandoned).code(), Code::Cancelled);
    }

    #[test]
    fn unsupported_requests_name_field_and_reason() {
        let cannot = |why: &str| {
            engine(EngineError::BridgeCannot { fields: vec!["stdin", "nice"], bridge: "direct", why: why.to_owned() })
        };
        assert_eq!(cannot("").message(), "the sandbox has only the direct bridge, which cannot keep stdin, nice");
        let with_reason = "the sandbox has only the direct bridge (no exec), which cannot keep stdin, nice";
        assert_eq!(cannot("no exec").message(), with_reason);
    }

    #[test]
    fn database_failure_is_hidden_from_clients() {
        let error = StoreError::Database(Arc::new(std::io::Error::other("secret path")));
        assert!(error_chain(&error).contains("secret path"));
        let status = store(error);
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.message(), "the server's database failed; its log says more");
    }

    #[test]
    fn a_full_quota_names_both_numbers() {
        let status = store(StoreError::TooManyForBot { running: 64, limit: 63 });
        let violations = status.get_details_quota_failure().unwrap().violations;
        assert!(status.message().contains("64") && status.message().contains("63"));
        assert!(violations[0].description.contains("64") && violations[0].description.contains("63"));
        assert_eq!(violations[0].subject, "bot");
    }

    #[test]
    fn temporary_errors_carry_a_retry_delay() {
        let status = engine(RuntimeError::Unavailable { detail: "no answer ".repeat(1000) }.into());
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(RETRY_DELAY));
        assert_eq!(status.message().chars().count(), MESSAGE_LIMIT);
    }
}
