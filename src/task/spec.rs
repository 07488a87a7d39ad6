//! What a caller asks to be run.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// What to run, how, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The command.
    pub program: Program,
    /// Absolute path in the sandbox; none: the sandbox's own.
    pub workdir: Option<String>,
    /// Set for the command beside the sandbox's own environment.
    pub env: BTreeMap<String, String>,
    /// What the command is for, or empty.
    pub description: String,
    /// How long the command may run, from its real start.
    pub timeout: Duration,
    /// The caller's marks.
    pub labels: BTreeMap<String, String>,
    /// The caller's idempotency key, unique within the bot.
    pub request_id: Option<String>,
}

/// A command: data, never pasted into a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// Text for a shell.
    Shell {
        /// The text.
        text: String,
        /// The shell; none: `bash` where the sandbox has it, else `sh`.
        shell: Option<String>,
    },
    /// A program and its arguments. Never empty.
    Argv(Vec<String>),
}

impl Program {
    /// One line for people: the text, or the arguments joined by blanks.
    pub fn display(&self) -> String {
        match self {
            Self::Shell { text, .. } => text.clone(),
            Self::Argv(argv) => argv.join(" "),
        }
    }

    /// Size in bytes, as it counts against the limit.
    pub fn len(&self) -> usize {
        match self {
            Self::Shell { text, .. } => text.len(),
            Self::Argv(argv) => argv.iter().map(|argument| argument.len() + 1).sum(),
        }
    }

    /// True when there is nothing to run.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Shell { text, .. } => text.trim().is_empty(),
            Self::Argv(argv) => argv.first().is_none_or(String::is_empty),
        }
    }
}

impl TaskSpec {
    /// What lists and notices call the task: its description, or the first 80 characters of its command.
    pub fn title(&self) -> String {
        if self.description.is_empty() {
            self.program.display().chars().take(80).collect()
        } else {
            self.description.clone()
        }
    }
}
