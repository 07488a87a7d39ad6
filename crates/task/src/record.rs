//! The record of a task.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Event, MemoryKills, Nonce, NotifyPolicy, Outcome, OutputSummary, Owner, ResourceUsage, Retained, SandboxId, Stall,
    Status, StopCause, TaskId, TaskSpec, TaskState, Transition, Watches, transition,
};

/// Everything that is known about one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Its owner.
    pub owner: Owner,
    /// The sandbox that it runs in.
    pub sandbox: SandboxId,
    /// What the caller requested.
    pub spec: Arc<TaskSpec>,
    /// Identifies its only launch.
    pub nonce: Nonce,
    /// Its state.
    pub state: TaskState,
    /// The first result that arrived after the task had ended with another outcome.
    pub late_outcome: Option<Outcome>,
    /// Path of its log in the sandbox.
    pub output_file: String,
    /// Its output as of the last change of this record.
    pub output: OutputSummary,
    /// Set while the command is silent and seems to wait for input.
    pub stall: Option<Stall>,
    /// Resources that the command used. Set once it has ended, if the bridge reports them.
    pub usage: Option<ResourceUsage>,
    /// A stop that came too late: the command had ended by itself before any signal reached it, and the outcome is the command's own.
    pub stop_requested: Option<StopCause>,
    /// Processes that the kernel killed because memory had run out while the command ran.
    pub memory_kills: MemoryKills,
    /// What its session is told. Callers may change it until the task has ended.
    pub notify: NotifyPolicy,
    /// How old the command was at the last heartbeat, or when heartbeats were asked for. The next one is due one interval later.
    pub heartbeat_from: Duration,
    /// Since when the command has been silent after output. Set once that was announced, until there is more output.
    pub idle_since: Option<SystemTime>,
    /// The watches of its output.
    pub watches: Watches,
    /// The output that outlives the sandbox. Stored beside the record: a change of the record leaves it as it is.
    pub retained: Option<Retained>,
    /// When it was accepted.
    pub created_at: SystemTime,
    /// Number of stored changes. The store refuses a change that is based on an older revision.
    pub revision: i64,
}

impl Task {
    /// Its status.
    pub fn status(&self) -> Status {
        self.state.status()
    }

    /// Time from the command's start until its end, or until `now` while it runs; zero if it never started.
    pub fn duration(&self, now: SystemTime) -> Duration {
        let end = self.state.finished_at().unwrap_or(now);
        self.state.started_at().and_then(|start| end.duration_since(start).ok()).unwrap_or_default()
    }

    /// Bytes of its large fields: a lower bound of its encoded size.
    pub fn weight(&self) -> usize {
        let pairs = self.spec.env.iter().chain(&self.spec.labels);
        self.spec.program.len()
            + self.spec.description.len()
            + pairs.map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }

    /// Applies an event. True if the record changed and must be stored. A start time that the sandbox reports is never taken as earlier
    /// than the task's acceptance.
    pub fn apply(&mut self, mut event: Event) -> bool {
        match &mut event {
            Event::Started { at, .. } | Event::Ended { started_at: Some(at), .. } => *at = self.created_at.max(*at),
            _ => {}
        }
        let late_stop = match (&self.state, &event) {
            (TaskState::Stopping { cause, .. }, Event::Ended { signalled: false, .. }) => Some(cause.clone()),
            _ => None,
        };
        match transition(&self.state, event) {
            Transition::To(state) => {
                self.stop_requested = late_stop;
                if state.status().is_terminal() {
                    (self.stall, self.idle_since) = (None, None);
                }
                self.state = state;
                true
            }
            Transition::Unchanged => false,
            Transition::Late(outcome) => {
                let news = self.late_outcome.is_none();
                self.late_outcome.get_or_insert(outcome);
                news
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{BotId, Ending, Incarnation, ProcessIdentity, Program, SessionId, TenantId};

    fn queued(created_at: SystemTime) -> Task {
        let program = Program::Argv(vec!["true".to_owned()]);
        Task {
            id: TaskId::new(),
            owner: Owner {
                tenant: TenantId::new("t").unwrap(),
                bot: BotId::new("b").unwrap(),
                session: SessionId::new("s").unwrap(),
            },
            sandbox: SandboxId::new(),
            spec: Arc::new(TaskSpec::new(program, Duration::from_secs(60))),
            nonce: Nonce::new(),
            state: TaskState::Queued,
            late_outcome: None,
            output_file: String::new(),
            output: OutputSummary::default(),
            stall: None,
            usage: None,
            stop_requested: None,
            memory_kills: MemoryKills::default(),
            notify: NotifyPolicy::default(),
            heartbeat_from: Duration::ZERO,
            idle_since: None,
            watches: Watches::default(),
            retained: None,
            created_at,
            revision: 0,
        }
    }

    #[test]
    fn start_time_is_never_before_acceptance() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let queued = queued(at(100));
        let process = ProcessIdentity { pid: 7, start_ticks: 8 };
        let before_1970 = UNIX_EPOCH - Duration::from_secs(1 << 40);
        for (told, wanted) in [(before_1970, at(100)), (at(99), at(100)), (at(101), at(101))] {
            let mut running = queued.clone();
            assert!(running.apply(Event::LaunchBegan { incarnation: Incarnation("i".to_owned()) }));
            let mut over = running.clone();
            assert!(running.apply(Event::Started { process, at: told }));
            assert_eq!(running.state.started_at(), Some(wanted));
            assert!(over.apply(Event::Ended {
                ending: Ending::Exited(0),
                started_at: Some(told),
                signalled: false,
                at: at(102)
            }));
            assert_eq!(over.state.started_at(), Some(wanted));
        }
    }
}
