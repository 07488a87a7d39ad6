//! Validates input for a command, and sizes of its terminal.

use std::time::Duration;

use tonic::Status;

use super::{Violations, fields::Span, process::terminal_size, tasks::reference};
use crate::api::auth::Caller;
use errand_engine::{InputRequest, TaskRef};
use errand_proto::v1::{ResizeTerminalRequest, WriteInputRequest};
use errand_task::TerminalSize;

/// The most bytes of input in one call.
const DATA_LIMIT: usize = 1024 * 1024;
/// How long to wait for the command to take the input when the request does not say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest such wait.
const TIMEOUT_LIMIT: Duration = Duration::from_secs(600);

/// Reads a WriteInput request.
pub(in crate::api) fn write_input(
    request: WriteInputRequest,
    caller: &Caller,
) -> Result<(TaskRef, InputRequest), Status> {
    let mut violations = Violations::new();
    let task = reference(&request.task_id, &request.bot_id, &request.session_id, caller, &mut violations);
    let offset = match request.offset {
        Some(offset) => violations.number("offset", offset, 0, i64::MAX as u64).map(Some),
        None => Some(None),
    };
    violations.bytes("data", request.data.len(), DATA_LIMIT);
    let timeout = violations.duration("timeout", request.timeout, Span::up_to(TIMEOUT_LIMIT));
    let read = (|| {
        let (task, offset, timeout) = (task?, offset?, timeout?.unwrap_or(TIMEOUT));
        Some((task, InputRequest { offset, data: request.data, end: request.end, timeout }))
    })();
    let (task, input) = violations.or(read)?;
    Ok((task?, input))
}

/// Reads a ResizeTerminal request.
pub(in crate::api) fn resize_terminal(
    request: &ResizeTerminalRequest,
    caller: &Caller,
) -> Result<(TaskRef, TerminalSize), Status> {
    let mut violations = Violations::new();
    let task = reference(&request.task_id, &request.bot_id, &request.session_id, caller, &mut violations);
    let size = match request.size {
        Some(size) => violations.within("size", |violations| terminal_size(size, violations)),
        None => {
            violations.add("size", "must be set");
            None
        }
    };
    let (task, size) = violations.or(task.zip(size))?;
    Ok((task?, size))
}
