//! Validates waits for tasks, and what they wait for.

use std::{collections::HashMap, time::Duration};

use tonic::Status;

use super::{Acknowledge, Violations, fields::Span, notify, tasks::reference};
use crate::api::auth::Caller;
use errand_engine::{OutputPattern, TaskRef, WaitRequest};
use errand_proto::v1::{self, WaitMode, WaitTaskRequest, WaitTasksRequest, output_pattern::Kind};
use errand_task::TaskId;

/// How long to wait when the request does not say.
const DEFAULT: Duration = Duration::from_secs(120);
/// The longest wait.
const LIMIT: Duration = Duration::from_secs(600);
/// The shortest silence that a caller can wait for.
const IDLE_LEAST: Duration = Duration::from_secs(1);
/// The most tasks of one call.
const TASKS_LIMIT: usize = 64;

/// A WaitTasks request.
pub(in crate::api) struct Several {
    /// The tasks, each with its conditions.
    pub(in crate::api) tasks: Vec<(TaskRef, WaitRequest)>,
    /// Whether to wait for all of them.
    pub(in crate::api) all: bool,
    /// The longest wait.
    pub(in crate::api) timeout: Duration,
    /// How to acknowledge the completions of finished tasks.
    pub(in crate::api) acknowledge: Acknowledge,
}

/// A WaitTask request.
pub(in crate::api) struct One {
    /// The task.
    pub(in crate::api) task: TaskRef,
    /// Its conditions.
    pub(in crate::api) wait: WaitRequest,
    /// How to acknowledge its completion.
    pub(in crate::api) acknowledge: Acknowledge,
}

/// Reads a WaitTask request.
pub(in crate::api) fn wait(request: WaitTaskRequest, caller: &Caller) -> Result<One, Status> {
    let mut violations = Violations::new();
    let task = reference(&request.task_id, &request.bot_id, &request.session_id, caller, &mut violations);
    let wait = conditions(
        (request.timeout, request.until_stalled, request.until_idle),
        request.until_match,
        request.until_listening,
        &mut violations,
    );
    let acknowledge = notify::acknowledge(request.acknowledge_mode, request.acknowledge, &mut violations);
    let read = (|| Some((task?, wait?, acknowledge?)))();
    let (task, wait, acknowledge) = violations.or(read)?;
    Ok(One { task: task?, wait, acknowledge })
}

/// Reads a WaitTasks request.
pub(in crate::api) fn several(request: WaitTasksRequest, caller: &Caller) -> Result<Several, Status> {
    let mut violations = Violations::new();
    let ids = &request.task_ids;
    if !(1..=TASKS_LIMIT).contains(&ids.len()) {
        violations.add("task_ids", format!("must have 1 to {TASKS_LIMIT} entries, has {}", ids.len()));
    }
    let mut references: Vec<Result<TaskRef, Status>> = Vec::new();
    for (index, id) in ids.iter().take(TASKS_LIMIT).enumerate() {
        let known = violations.id::<TaskId>(&format!("task_ids[{index}]"), id);
        if ids[..index].contains(id) {
            violations.add(&format!("task_ids[{index}]"), "must not be there twice");
        }
        if known.is_some() {
            references.extend(reference(id, &request.bot_id, &request.session_id, caller, &mut violations));
        }
    }
    let mode = violations.choice::<WaitMode>("mode", request.mode);
    let searches = request.until_match.is_some();
    let wait = conditions(
        (request.timeout, request.until_stalled, request.until_idle),
        request.until_match,
        request.until_listening,
        &mut violations,
    );
    let offsets = match_offsets(&request.match_offsets, ids, searches, &mut violations);
    let acknowledge = notify::acknowledge(request.acknowledge_mode, request.acknowledge, &mut violations);
    let read = (|| Some((mode?, wait?, offsets?, acknowledge?)))();
    let (mode, wait, offsets, acknowledge) = violations.or(read)?;
    let mut tasks = Vec::with_capacity(references.len());
    for task in references {
        let task = task?;
        let mut wait = wait.clone();
        if let (Some((_, offset)), Some(given)) = (&mut wait.until_match, offsets.get(&task.id)) {
            *offset = *given;
        }
        tasks.push((task, wait));
    }
    let all = mode == WaitMode::All;
    Ok(Several { tasks, all, timeout: wait.timeout, acknowledge })
}

/// Reads what a wait waits for.
fn conditions(
    (timeout, until_stalled, until_idle): (Option<prost_types::Duration>, bool, Option<prost_types::Duration>),
    until_match: Option<v1::OutputPattern>,
    until_listening: i32,
    violations: &mut Violations,
) -> Option<WaitRequest> {
    let timeout = violations.duration("timeout", timeout, Span::up_to(LIMIT));
    let span = Span { at_least: IDLE_LEAST, at_most: Duration::MAX };
    let until_idle = violations.duration("until_idle", until_idle, span);
    let until_match = match until_match {
        None => Some(None),
        Some(given) => violations.within("until_match", |violations| pattern(&given, violations)).map(Some),
    };
    let port = violations.number("until_listening", i64::from(until_listening), 0, u64::from(u16::MAX));
    Some(WaitRequest {
        timeout: timeout?.unwrap_or(DEFAULT),
        until_stalled,
        until_idle: until_idle?,
        until_match: until_match?,
        until_listening: u16::try_from(port?).ok().filter(|port| *port > 0),
    })
}

fn pattern(given: &v1::OutputPattern, violations: &mut Violations) -> Option<(OutputPattern, u64)> {
    let offset = violations.number("offset", given.offset, 0, i64::MAX as u64);
    let (field, pattern) = match &given.kind {
        None => {
            violations.add("substring", "must be set, unless `regex` is");
            return None;
        }
        Some(Kind::Substring(text)) => ("substring", OutputPattern::substring(text)),
        Some(Kind::Regex(pattern)) => ("regex", OutputPattern::regex(pattern)),
    };
    let pattern = pattern.map_err(|error| violations.add(field, error.to_string())).ok();
    pattern.zip(offset)
}

/// Reads the positions of single tasks.
fn match_offsets(
    given: &HashMap<String, i64>,
    ids: &[String],
    searches: bool,
    violations: &mut Violations,
) -> Option<HashMap<TaskId, u64>> {
    if given.len() > TASKS_LIMIT {
        violations.add("match_offsets", format!("must have at most {TASKS_LIMIT} entries, has {}", given.len()));
        return None;
    }
    let mut entries: Vec<_> = given.iter().collect();
    entries.sort_unstable();
    let mut offsets = HashMap::new();
    for (id, offset) in entries {
        let path = format!("match_offsets[{id:?}]");
        if !searches || !ids.contains(id) {
            violations.add(&path, "must be of a task in `task_ids`, and `until_match` must be set");
        }
        let offset = violations.number(&path, *offset, 0, i64::MAX as u64)?;
        offsets.insert(id.parse().ok()?, offset);
    }
    Some(offsets)
}
