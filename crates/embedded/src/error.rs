//! Errors of the host, as the runtime reports them.

use std::fmt::Display;

use errand_runtime::RuntimeError;

/// The error for an operation on the host that failed, such as a write to a full disk.
pub(super) fn refused(what: &str, error: &dyn Display) -> RuntimeError {
    RuntimeError::Refused { detail: format!("{what}: {error}") }
}
