//! Validates the settings of a command's process: its streams, its user, its limits.

use super::Violations;
use errand_proto::v1::{self, StartTaskRequest};
use errand_task::{DEFAULT_OUTPUT_LIMIT, ResourceLimits, Stdin, TaskSpec, TerminalSize};

/// The most bytes of a user's name.
const USER_LIMIT: usize = 128;
/// The largest niceness.
const NICE_LIMIT: u8 = 19;
/// The smallest limit on the output that is kept, in bytes.
const OUTPUT_LEAST: u64 = 64 * 1024;
/// The largest limit on the output that is kept, in bytes.
const OUTPUT_MOST: u64 = 10 * 1024 * 1024 * 1024;

/// Reads the fields about the process into `spec`. None: something is wrong with them, and was recorded.
pub(super) fn process(request: &StartTaskRequest, spec: TaskSpec, violations: &mut Violations) -> Option<TaskSpec> {
    let terminal = match request.terminal {
        Some(size) => violations.within("terminal", |violations| terminal_size(size, violations)).map(Some),
        None => Some(None),
    };
    if request.terminal.is_some() && request.separate_stderr {
        violations.add("separate_stderr", "must not be set together with terminal, which has one stream for both");
    }
    user(&request.user, violations);
    let limits = match request.limits {
        Some(given) => violations.within("limits", |violations| limits(given, violations)),
        None => Some(ResourceLimits::default()),
    };
    let nice = u8::try_from(request.nice).ok().filter(|nice| *nice <= NICE_LIMIT);
    if nice.is_none() {
        violations.add("nice", format!("must be 0 to {NICE_LIMIT}, is {}", request.nice));
    }
    let output_limit =
        violations.number("output_limit_bytes", request.output_limit_bytes, DEFAULT_OUTPUT_LIMIT, OUTPUT_MOST);
    if output_limit.is_some_and(|limit| limit < OUTPUT_LEAST) {
        violations.add(
            "output_limit_bytes",
            format!("must be at least {OUTPUT_LEAST}, or 0 for the default, is {}", request.output_limit_bytes),
        );
    }
    Some(TaskSpec {
        stdin: if request.stdin { Stdin::Open } else { Stdin::Closed },
        terminal: terminal?,
        user: (!request.user.is_empty()).then(|| request.user.clone()),
        clean_env: request.clean_env,
        limits: limits?,
        nice: nice?,
        output_limit: output_limit?,
        separate_stderr: request.separate_stderr,
        ..spec
    })
}

/// The size of a terminal.
pub(super) fn terminal_size(size: v1::TerminalSize, violations: &mut Violations) -> Option<TerminalSize> {
    let mut side = |field, given: i32| {
        let side = u16::try_from(given).ok().filter(|side| *side > 0);
        if side.is_none() {
            violations.add(field, format!("must be 1 to {}, is {given}", u16::MAX));
        }
        side
    };
    let (rows, columns) = (side("rows", size.rows), side("columns", size.columns));
    Some(TerminalSize { rows: rows?, columns: columns? })
}

fn user(user: &str, violations: &mut Violations) {
    violations.bytes("user", user.len(), USER_LIMIT);
    let mut parts = user.split(':');
    let (name, group) = (parts.next().unwrap_or_default(), parts.next());
    let well_formed = user.is_empty() || (is_account(name) && group.is_none_or(is_account) && parts.next().is_none());
    if !well_formed {
        violations
            .add("user", "must be a name or number, or two of them with `:` between, of letters, digits and ._-@$");
    }
}

/// Whether a user or a group may have this name. A name that looks like an option is refused.
fn is_account(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name.chars().all(|character| character.is_ascii_alphanumeric() || "._-@$".contains(character))
}

fn limits(given: v1::ResourceLimits, violations: &mut Violations) -> Option<ResourceLimits> {
    let mut limit = |field, given: Option<i64>, least: u64| match given {
        None => Some(None),
        Some(number) => {
            let limit = u64::try_from(number).ok().filter(|limit| *limit >= least);
            if limit.is_none() {
                violations.add(field, format!("must be at least {least}, is {number}"));
            }
            limit.map(Some)
        }
    };
    // With fewer open files, not even the command's own program could be started.
    let open_files = limit("open_files", given.open_files, 3);
    let processes = limit("processes", given.processes, 1);
    let file_bytes = limit("file_bytes", given.file_bytes, 0);
    let cpu_seconds = limit("cpu_seconds", given.cpu_seconds, 1);
    let address_space_bytes = limit("address_space_bytes", given.address_space_bytes, 1024 * 1024);
    let core_bytes = limit("core_bytes", given.core_bytes, 0);
    let stack_bytes = limit("stack_bytes", given.stack_bytes, 64 * 1024);
    Some(ResourceLimits {
        open_files: open_files?,
        processes: processes?,
        file_bytes: file_bytes?,
        cpu_seconds: cpu_seconds?,
        address_space_bytes: address_space_bytes?,
        core_bytes: core_bytes?,
        stack_bytes: stack_bytes?,
    })
}
