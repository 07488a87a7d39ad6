//! What is known of the command's output as a whole, and what the record says of the command.

use super::{Machine, Moment};
use errand_task::{Gap, ProcessIdentity, TaskState};

/// Stands for a process whose identity was not recorded because the sandbox's disk was full.
pub(super) const UNRECORDED: ProcessIdentity = ProcessIdentity { pid: 0, start_ticks: 0 };

/// What is known of the output.
#[derive(Debug)]
pub(super) struct KnownOutput {
    /// The output that was read ends at this byte.
    pub(super) end: u64,
    /// Size of all output in bytes, where more is known to exist than was read.
    pub(super) log_bytes: u64,
    /// True once `log_bytes` is the size of the log at the command's end.
    pub(super) whole_log: bool,
}

impl KnownOutput {
    pub(super) fn up_to(end: u64) -> Self {
        Self { end, log_bytes: end, whole_log: false }
    }
}

impl Machine {
    /// True when the size of the output is known, and everything that was kept of it was read.
    pub(super) fn all_read(&self) -> bool {
        let KnownOutput { end, log_bytes, whole_log } = self.output;
        whole_log && self.task.output.gap.map_or(end, |gap| gap.past(end)) >= log_bytes
    }

    /// Takes over what the sandbox reports of the output as a whole.
    pub(super) fn output_is(&mut self, bytes: u64, incomplete: bool, gap: Option<Gap>) {
        self.output.log_bytes = self.output.log_bytes.max(bytes);
        self.task.output.incomplete |= incomplete;
        self.task.output.gap = gap.or(self.task.output.gap);
    }

    /// Only a running command can be stopped; an earlier order waits.
    pub(super) fn may_stop(&self) -> bool {
        match self.task.state {
            TaskState::Running { .. } | TaskState::Stopping { .. } => true,
            TaskState::AwaitingRoom | TaskState::Queued | TaskState::Starting { .. } | TaskState::Finished { .. } => {
                false
            }
        }
    }

    /// A launch that reported nothing must be fenced, so that it cannot happen after the sandbox was examined.
    pub(super) fn must_fence(&self) -> bool {
        matches!(self.task.state, TaskState::Starting { .. })
    }

    /// Whether the task is being stopped, or a launch was begun that reported nothing.
    pub(super) fn has_to_end(&self) -> bool {
        self.must_fence() || self.stopping.is_some()
    }

    /// The process to signal, if its identity is known.
    pub(super) fn process(&self) -> Option<ProcessIdentity> {
        self.task.state.process().filter(|process| *process != UNRECORDED)
    }

    /// Whether the command's timeout is up, by the server's clock.
    pub(super) fn time_is_up(&self, now: Moment) -> bool {
        self.timeout_at(now).is_some_and(|at| at <= now.at)
    }
}
