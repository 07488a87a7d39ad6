//! Converts a task to the wire type.

use std::sync::Arc;

use super::{count, duration, notify, outcome, process, stall, timestamp, watches};
use errand_proto::v1::{self, TaskStatus};
use errand_task::{MemoryKills, Program, Retained, Status, Stdin, Task};

/// Converts a task.
pub(in crate::api) fn task(task: Task) -> v1::Task {
    let status = status(task.status());
    let outcome_of_state = task.state.outcome().map(|ended| outcome(ended, task.memory_kills));
    let (started_at, finished_at) = (task.state.started_at(), task.state.finished_at());
    let queue_deadline = task.spec.queue_deadline();
    let spec = Arc::unwrap_or_clone(task.spec);
    let (command, argv, shell) = match spec.program {
        Program::Shell { text, shell } => (text, Vec::new(), shell.unwrap_or_default()),
        Program::Argv(argv) => (String::new(), argv, String::new()),
    };
    v1::Task {
        task_id: task.id.to_string(),
        bot_id: task.owner.bot.to_string(),
        session_id: task.owner.session.to_string(),
        sandbox_id: task.sandbox.to_string(),
        command,
        argv,
        shell,
        workdir: spec.workdir.unwrap_or_default(),
        env: spec.env.into_iter().collect(),
        description: spec.description,
        timeout: Some(duration(spec.timeout)),
        labels: spec.labels.into_iter().collect(),
        request_id: spec.request_id.unwrap_or_default(),
        status: status.into(),
        outcome: outcome_of_state,
        late_outcome: task.late_outcome.as_ref().map(|late| outcome(late, MemoryKills::default())),
        output_file: task.output_file,
        output_bytes: count(task.output.bytes),
        output_incomplete: task.output.incomplete,
        output_preview: task.output.preview,
        stall: task.stall.map(stall),
        created_at: Some(timestamp(task.created_at)),
        started_at: started_at.map(timestamp),
        finished_at: finished_at.map(timestamp),
        stdin: spec.stdin == Stdin::Open,
        terminal: spec.terminal.map(process::terminal_size),
        user: spec.user.unwrap_or_default(),
        clean_env: spec.clean_env,
        limits: process::limits(spec.limits),
        nice: i32::from(spec.nice),
        output_limit_bytes: count(spec.output_limit),
        separate_stderr: spec.separate_stderr,
        resource_usage: task.usage.map(process::usage),
        output_gap: task.output.gap.map(process::gap),
        stop_requested: task.stop_requested.as_ref().map(outcome::stop_request),
        notify: Some(notify::policy(task.notify)),
        idle_since: task.idle_since.map(timestamp),
        traceparent: spec.traceparent.map(|traceparent| traceparent.to_string()).unwrap_or_default(),
        watches: watches::watches(task.watches),
        secret_env_names: spec.secret_env,
        queue_deadline: queue_deadline.map(duration),
        output_retained: task.retained.map(retained),
    }
}

/// Converts what is retained of an output.
fn retained(retained: Retained) -> v1::RetainedOutput {
    let gaps = retained.gaps.into_iter().map(process::gap).collect();
    v1::RetainedOutput { bytes: count(retained.bytes), gaps }
}

/// Converts a status.
pub(in crate::api) fn status(status: Status) -> TaskStatus {
    match status {
        Status::Queued => TaskStatus::Queued,
        Status::Starting => TaskStatus::Starting,
        Status::Running => TaskStatus::Running,
        Status::Stopping => TaskStatus::Stopping,
        Status::Succeeded => TaskStatus::Succeeded,
        Status::Failed => TaskStatus::Failed,
        Status::Stopped => TaskStatus::Stopped,
        Status::TimedOut => TaskStatus::TimedOut,
        Status::FailedToStart => TaskStatus::FailedToStart,
        Status::Lost => TaskStatus::Lost,
    }
}

/// The status that a caller asks for; none for the unspecified value.
pub(in crate::api) fn wanted_status(wanted: TaskStatus) -> Option<Status> {
    Status::ALL.into_iter().find(|known| status(*known) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_can_be_filtered_by() {
        for known in Status::ALL {
            assert_eq!(wanted_status(status(known)), Some(known));
        }
        assert_eq!(wanted_status(TaskStatus::Unspecified), None);
    }
}
