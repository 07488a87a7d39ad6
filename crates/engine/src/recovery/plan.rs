//! Decides how to continue each unfinished task, by what its sandbox answers. Pure; recovery and the replacement of a supervisor use it.

use crate::supervisor::Entry;
use errand_bridge::Finding;
use errand_runtime::{Found, RuntimeError};
use errand_task::{LossReason, Task, TaskState};

/// Tasks, and where the supervision of each begins.
pub(crate) type Entries = Vec<(Task, Entry)>;

/// The unfinished tasks of one sandbox.
pub(crate) struct Sorted {
    /// Those about which the sandbox need not be asked.
    pub(crate) clear: Entries,
    /// Those about which it must be asked.
    pub(crate) unclear: Vec<Task>,
}

/// How to continue once the runtime was asked about a sandbox.
pub(crate) enum Plan {
    /// The runtime does not answer, so nothing is known of any task: ask again.
    AskAgain(RuntimeError),
    /// Supervise the tasks.
    Supervise(Entries),
    /// Ask the sandbox about its tasks. A launch that reported nothing must be fenced, so that it cannot happen after the answer.
    Probe { found: Box<Found>, fenced: Vec<Task>, unfenced: Vec<Task> },
}

/// Sorts the unfinished tasks of one sandbox. `exists`: the sandbox has a record.
pub(crate) fn sort(tasks: Vec<Task>, exists: bool) -> Sorted {
    let (waiting, tasks): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| task.state == TaskState::AwaitingRoom);
    // A queued task was certainly never launched: it continues as if it had just been accepted.
    let (queued, launched): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| task.state == TaskState::Queued);
    let mut clear = entries(waiting, || Entry::Queue);
    clear.extend(entries(queued, || Entry::Launch));
    if exists {
        return Sorted { clear, unclear: launched };
    }
    clear.extend(entries(launched, || Entry::Lost(LossReason::SandboxRemoved)));
    Sorted { clear, unclear: Vec::new() }
}

/// Where the supervision of a task begins whose supervisor broke down. `exists`: the task's sandbox has a record.
pub(crate) fn resume(task: &Task, exists: bool) -> Entry {
    match task.state {
        TaskState::AwaitingRoom => Entry::Queue,
        _ if !exists => Entry::Lost(LossReason::SandboxRemoved),
        TaskState::Queued => Entry::Launch,
        TaskState::Starting { .. }
        | TaskState::Running { .. }
        | TaskState::Stopping { .. }
        | TaskState::Finished { .. } => Entry::Look,
    }
}

/// Decides by the runtime's answer about a sandbox.
pub(crate) fn inspected(answer: Result<Found, RuntimeError>, tasks: Vec<Task>) -> Plan {
    match answer {
        Err(RuntimeError::NoSuchSandbox { .. }) => {
            Plan::Supervise(entries(tasks, || Entry::Lost(LossReason::SandboxRemoved)))
        }
        Err(error) => Plan::AskAgain(error),
        Ok(found) if found.running && !found.paused => {
            let (fenced, unfenced) =
                tasks.into_iter().partition(|task| matches!(task.state, TaskState::Starting { .. }));
            Plan::Probe { found: Box::new(found), fenced, unfenced }
        }
        // A stopped sandbox may be starting or stopping; a paused one must be checked until it runs again. The supervisors find out.
        Ok(_) => Plan::Supervise(entries(tasks, || Entry::Look)),
    }
}

/// Decides by a running sandbox's answer about its tasks; none when it gave none.
///
/// A sandbox may run without answering, for example because it is at its process limit. Its tasks are supervised all the same, so that they
/// can be stopped.
pub(crate) fn probed(found: &Found, tasks: Vec<Task>, findings: Option<Vec<Finding>>) -> Entries {
    match findings {
        Some(findings) if findings.len() == tasks.len() => {
            let judge = |finding| Entry::Judge(Box::new(found.clone()), Box::new(finding));
            tasks.into_iter().zip(findings).map(|(task, finding)| (task, judge(finding))).collect()
        }
        Some(_) | None => entries(tasks, || Entry::Look),
    }
}

/// The byte from which on a task's output is kept in memory, which holds `window` bytes.
pub(crate) fn output_start(entry: &Entry, window: u64) -> u64 {
    match entry {
        Entry::Judge(_, finding) => finding.output_bytes.saturating_sub(window),
        Entry::Queue | Entry::Launch | Entry::Look | Entry::Lost(_) => 0,
    }
}

fn entries(tasks: Vec<Task>, entry: impl Fn() -> Entry) -> Entries {
    tasks.into_iter().map(|task| (task, entry())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::machine::tests::samples::{finding, found, task};
    use errand_task::TaskId;

    #[test]
    fn each_task_is_judged_by_its_own_finding() {
        let tasks = (0..3).map(|_| Task { id: TaskId::new(), ..task() }).collect::<Vec<_>>();
        let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
        let findings = (0..3).map(|bytes| Finding { output_bytes: bytes, ..finding() }).collect();
        for (index, (task, entry)) in probed(&found(), tasks, Some(findings)).into_iter().enumerate() {
            assert_eq!(task.id, ids[index]);
            assert!(matches!(entry, Entry::Judge(_, finding) if finding.output_bytes == index as u64));
        }
    }

    #[test]
    fn short_answers_judge_no_task() {
        for findings in [None, Some(vec![finding()])] {
            let entries = probed(&found(), vec![task(), task()], findings);
            assert!(entries.len() == 2 && entries.iter().all(|(_, entry)| matches!(entry, Entry::Look)), "{entries:?}");
        }
    }
}
