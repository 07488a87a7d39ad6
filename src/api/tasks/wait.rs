//! WaitTask and WaitTasks.

use tonic::Status;

use crate::api::{Parts, convert, page, status, validate};
use errand_engine::{WaitResult, Waited};
use errand_proto::v1::{TaskWait, WaitTaskResponse, WaitTasksResponse};

/// Waits for one task.
pub(super) async fn one(parts: &Parts, request: validate::One) -> Result<WaitTaskResponse, Status> {
    let validate::One { task, wait, acknowledge } = request;
    let waited = parts.unless_ending(parts.engine.wait(&task, &wait)).await?;
    let Waited { task, result, searched_to } = waited.map_err(status::engine)?;
    let lease_id = match result {
        WaitResult::Finished => parts.acknowledge(&task.owner.tenant, task.id, acknowledge).await?,
        _ => String::new(),
    };
    let (result, output_match) = convert::wait_result(result);
    Ok(WaitTaskResponse {
        task: Some(convert::task(task)),
        result: result.into(),
        output_match,
        next_match_offset: convert::count(searched_to),
        lease_id,
    })
}

/// Waits for several tasks.
pub(super) async fn several(parts: &Parts, request: validate::Several) -> Result<WaitTasksResponse, Status> {
    let validate::Several { tasks, all, timeout, acknowledge } = request;
    let waiting = parts.engine.wait_for_several(&tasks, all, timeout);
    let waited = parts.unless_ending(waiting).await?.map_err(status::engine)?;
    let mut leases = Vec::with_capacity(waited.len());
    for Waited { task, result, .. } in &waited {
        leases.push(match result {
            WaitResult::Finished => parts.acknowledge(&task.owner.tenant, task.id, acknowledge).await?,
            _ => String::new(),
        });
    }
    let mut waits = filled(waited);
    for (wait, lease_id) in waits.iter_mut().zip(leases) {
        wait.lease_id = lease_id;
    }
    Ok(WaitTasksResponse { waits })
}

/// The answer about each task. The records come last, as many as fit: first of the tasks that met a condition.
fn filled(waited: Vec<Waited>) -> Vec<TaskWait> {
    let mut tasks = Vec::with_capacity(waited.len());
    let mut waits = Vec::with_capacity(waited.len());
    for Waited { task, result, searched_to } in waited {
        let (result, output_match) = convert::wait_result(result);
        let next_match_offset = convert::count(searched_to);
        let task_id = task.id.to_string();
        // Filled in now, so that its size counts.
        let lease_id = task_id.clone();
        waits.push(TaskWait { task_id, result: result.into(), task: None, output_match, next_match_offset, lease_id });
        tasks.push(Some(task));
    }
    let mut size: usize = waits.iter().map(page::entry_len).sum();
    let unmet = i32::from(errand_proto::v1::WaitResult::Timeout);
    let (met, others): (Vec<usize>, Vec<usize>) = (0..waits.len()).partition(|index| waits[*index].result != unmet);
    for index in met.into_iter().chain(others) {
        let task = tasks[index].take().map(convert::task);
        // The lengths of the messages around it may grow by a few bytes.
        size += task.as_ref().map_or(0, |task| page::entry_len(task) + 8);
        if size > page::ANSWER_LIMIT {
            break;
        }
        waits[index].task = task;
    }
    waits
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::{
        sync::Arc,
        time::{Duration, UNIX_EPOCH},
    };

    use prost::Message as _;

    use super::*;
    use errand_task::{Nonce, Owner, Program, SandboxId, Task, TaskId, TaskSpec, TaskState, TenantId};

    fn task(size: usize) -> Task {
        let program = Program::Shell { text: "x".repeat(size), shell: None };
        Task {
            id: TaskId::new(),
            owner: Owner { tenant: TenantId::local(), bot: "b".parse().unwrap(), session: "s".parse().unwrap() },
            sandbox: SandboxId::new(),
            spec: Arc::new(TaskSpec::new(program, Duration::from_secs(1))),
            nonce: Nonce::new(),
            state: TaskState::Queued,
            late_outcome: None,
            output_file: String::new(),
            output: Default::default(),
            stall: None,
            usage: None,
            stop_requested: None,
            memory_kills: Default::default(),
            notify: Default::default(),
            heartbeat_from: Duration::ZERO,
            idle_since: None,
            watches: Default::default(),
            retained: None,
            created_at: UNIX_EPOCH,
            revision: 0,
        }
    }

    #[test]
    fn answer_is_bounded_and_prefers_met_conditions() {
        let large = 1 << 20;
        let waits = [
            (large, WaitResult::Timeout),
            (large, WaitResult::Finished),
            (large, WaitResult::Timeout),
            (9, WaitResult::Idle),
        ];
        let waited = |(size, result)| Waited { task: task(size), result, searched_to: 0 };
        let filled = filled(waits.into_iter().map(waited).collect());
        let told: Vec<bool> = filled.iter().map(|wait| wait.task.is_some()).collect();
        assert_eq!(told, [true, true, false, true]);
        assert!(WaitTasksResponse { waits: filled }.encoded_len() <= errand_store::PAGE_BYTES);
    }
}
