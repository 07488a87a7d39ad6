//! Converts what came of waits, and what happens to tasks.

use super::{count, task as whole, task::status};
use errand_engine::{OutputMatch, TaskEvent, WaitResult};
use errand_proto::v1;
use errand_task::Task;

/// Converts why a wait ended.
pub(in crate::api) fn wait_result(result: WaitResult) -> (v1::WaitResult, Option<v1::OutputMatch>) {
    match result {
        WaitResult::Finished => (v1::WaitResult::Finished, None),
        WaitResult::Stalled => (v1::WaitResult::Stalled, None),
        WaitResult::Idle => (v1::WaitResult::Idle, None),
        WaitResult::Timeout => (v1::WaitResult::Timeout, None),
        WaitResult::Listening => (v1::WaitResult::Listening, None),
        WaitResult::Matched(OutputMatch { offset, end, line, line_cut }) => {
            let found = v1::OutputMatch { offset: count(offset), end_offset: count(end), line, line_cut };
            (v1::WaitResult::Matched, Some(found))
        }
    }
}

/// Converts an event of a task. Growth of output carries no record: it is frequent, and a command may have 1 MiB.
pub(in crate::api) fn change(event: TaskEvent, task: Task) -> v1::TaskChange {
    let event = match event {
        TaskEvent::Accepted => v1::TaskEvent::Accepted,
        TaskEvent::Started => v1::TaskEvent::Started,
        TaskEvent::OutputGrew => v1::TaskEvent::OutputGrew,
        TaskEvent::Stalled => v1::TaskEvent::Stalled,
        TaskEvent::Resumed => v1::TaskEvent::Resumed,
        TaskEvent::Ended => v1::TaskEvent::Ended,
        TaskEvent::LateOutcome => v1::TaskEvent::LateOutcome,
    };
    v1::TaskChange {
        event: event.into(),
        task_id: task.id.to_string(),
        bot_id: task.owner.bot.to_string(),
        session_id: task.owner.session.to_string(),
        status: status(task.status()).into(),
        output_bytes: count(task.output.bytes),
        output_preview: task.output.preview.clone(),
        task: (event != v1::TaskEvent::OutputGrew).then(|| whole(task)),
    }
}
