//! What a caller asks to be run.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// The most output that is kept of a task where its request does not say, in bytes.
pub const DEFAULT_OUTPUT_LIMIT: u64 = 100 * 1024 * 1024;

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
    /// What the command reads as its standard input, where it has no terminal.
    #[serde(default)]
    pub stdin: Stdin,
    /// Size of the terminal that the command gets as its three standard streams; none: it gets no terminal. Takes input.
    #[serde(default)]
    pub terminal: Option<TerminalSize>,
    /// Name, uid, or either with `:` and a group's name or gid; none: the sandbox's own.
    #[serde(default)]
    pub user: Option<String>,
    /// True when the command shall have `env` instead of the sandbox's environment, not beside it.
    #[serde(default)]
    pub clean_env: bool,
    /// Limits of each of its processes.
    #[serde(default)]
    pub limits: ResourceLimits,
    /// Added to its niceness, 0 to 19.
    #[serde(default)]
    pub nice: u8,
    /// The most bytes of output that are kept.
    #[serde(default = "default_output_limit")]
    pub output_limit: u64,
    /// True when standard output and standard error are told apart.
    #[serde(default)]
    pub separate_stderr: bool,
}

fn default_output_limit() -> u64 {
    DEFAULT_OUTPUT_LIMIT
}

/// What a command reads as its standard input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// Nothing: it is at its end from the beginning, so that nothing waits for ever.
    #[default]
    Closed,
    /// What callers write, until one of them ends it.
    Open,
}

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Limits of each process of a command, see setrlimit(2). What is not set is as the sandbox has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceLimits {
    /// Open files.
    pub open_files: Option<u64>,
    /// Processes of the user.
    pub processes: Option<u64>,
    /// Size of a file that is written, in bytes.
    pub file_bytes: Option<u64>,
    /// CPU time in seconds.
    pub cpu_seconds: Option<u64>,
    /// Address space in bytes.
    pub address_space_bytes: Option<u64>,
    /// Size of a core file in bytes.
    pub core_bytes: Option<u64>,
    /// Stack in bytes.
    pub stack_bytes: Option<u64>,
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
    /// A command with nothing set but what must be.
    pub fn new(program: Program, timeout: Duration) -> Self {
        Self {
            program,
            workdir: None,
            env: BTreeMap::new(),
            description: String::new(),
            timeout,
            labels: BTreeMap::new(),
            request_id: None,
            stdin: Stdin::Closed,
            terminal: None,
            user: None,
            clean_env: false,
            limits: ResourceLimits::default(),
            nice: 0,
            output_limit: DEFAULT_OUTPUT_LIMIT,
            separate_stderr: false,
        }
    }

    /// True when the command takes input.
    pub fn takes_input(&self) -> bool {
        self.terminal.is_some() || self.stdin == Stdin::Open
    }

    /// The fields, as the API names them, that only the resident bridge can keep. `output_limit` is not among them: both keep it.
    pub fn resident_only(&self) -> Vec<&'static str> {
        [
            ("stdin", self.stdin == Stdin::Open),
            ("terminal", self.terminal.is_some()),
            ("user", self.user.is_some()),
            ("clean_env", self.clean_env),
            ("limits", self.limits != ResourceLimits::default()),
            ("nice", self.nice != 0),
            ("separate_stderr", self.separate_stderr),
        ]
        .into_iter()
        .filter_map(|(name, used)| used.then_some(name))
        .collect()
    }

    /// What lists and notices call the task: its description, or the first 80 characters of its command.
    pub fn title(&self) -> String {
        if self.description.is_empty() {
            self.program.display().chars().take(80).collect()
        } else {
            self.description.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn spec_without_input_fields_takes_defaults() {
        let old = r#"{"program":{"argv":["ls"]},"workdir":null,"env":{},"description":"","timeout":{"secs":5,"nanos":0},
            "labels":{},"request_id":null}"#;
        let spec: TaskSpec = serde_json::from_str(old).unwrap();
        assert_eq!(spec, TaskSpec::new(Program::Argv(vec!["ls".to_owned()]), Duration::from_secs(5)));
        assert!(spec.resident_only().is_empty());
    }

    #[test]
    fn resident_only_fields_have_their_api_names() {
        let mut spec = TaskSpec::new(Program::Argv(vec!["ls".to_owned()]), Duration::from_secs(5));
        spec.output_limit = 1;
        assert!(spec.resident_only().is_empty());
        spec.stdin = Stdin::Open;
        spec.limits.core_bytes = Some(0);
        assert_eq!(spec.resident_only(), ["stdin", "limits"]);
        assert!(spec.takes_input());
    }
}
