//! The whole of what is known about one task.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    Event, Nonce, Outcome, OutputSummary, Owner, ResourceUsage, SandboxId, Stall, Status, TaskId, TaskSpec, TaskState,
    Transition, transition,
};

/// One task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Whose it is.
    pub owner: Owner,
    /// Where it runs.
    pub sandbox: SandboxId,
    /// What was asked for.
    pub spec: Arc<TaskSpec>,
    /// Marks its one launch.
    pub nonce: Nonce,
    /// Where it stands.
    pub state: TaskState,
    /// The first result that came after it had ended otherwise.
    pub late_outcome: Option<Outcome>,
    /// Path of its log in the sandbox.
    pub output_file: String,
    /// What it has printed, as of the last change of this record.
    pub output: OutputSummary,
    /// Set while the command is silent and seems to wait for input.
    pub stall: Option<Stall>,
    /// What the command used, once it is over and where the bridge tells.
    #[serde(default)]
    pub usage: Option<ResourceUsage>,
    /// When it was accepted.
    pub created_at: SystemTime,
    /// Counts the stored changes; the store refuses a change that was made from an older one.
    pub revision: i64,
}

impl Task {
    /// Its state in one word.
    pub fn status(&self) -> Status {
        self.state.status()
    }

    /// From the command's start until `now`, or until its end when it is over; zero when it never started.
    pub fn duration(&self, now: SystemTime) -> Duration {
        let end = self.state.finished_at().unwrap_or(now);
        self.state.started_at().and_then(|start| end.duration_since(start).ok()).unwrap_or_default()
    }

    /// Applies an event. True when the record changed and has to be stored.
    pub fn apply(&mut self, event: Event) -> bool {
        match transition(&self.state, event) {
            Transition::To(state) => {
                if state.status().is_terminal() {
                    self.stall = None;
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
