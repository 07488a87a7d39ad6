//! The specification of a task: what a caller asks to run.

use std::{collections::BTreeMap, time::Duration};

use super::TraceParent;

/// Default of the most bytes of output that are kept of a task.
pub const DEFAULT_OUTPUT_LIMIT: u64 = 100 * 1024 * 1024;

/// What to run, how, and for how long. Complete: defaults are filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSpec {
    /// The command.
    pub program: Program,
    /// Working directory, an absolute path in the sandbox. Default: the sandbox's own.
    pub workdir: Option<String>,
    /// Variables added to the sandbox's environment.
    pub env: BTreeMap<String, String>,
    /// What the command is for, in the caller's words; may be empty.
    pub description: String,
    /// How long the command may run, measured from its real start.
    pub timeout: Duration,
    /// Labels of the caller's own.
    pub labels: BTreeMap<String, String>,
    /// The caller's idempotency key, unique within the bot.
    pub request_id: Option<String>,
    /// The command's standard input if it has no terminal.
    pub stdin: Stdin,
    /// Size of the terminal that the command gets as its three standard streams; `None`: no terminal. A terminal takes input.
    pub terminal: Option<TerminalSize>,
    /// User to run as: name, uid, or either with `:` and a group's name or gid. Default: the sandbox's own.
    pub user: Option<String>,
    /// True if `env` replaces the sandbox's environment.
    pub clean_env: bool,
    /// Limits of each of its processes.
    pub limits: ResourceLimits,
    /// Added to its niceness, 0 to 19.
    pub nice: u8,
    /// The most bytes of output that are kept.
    pub output_limit: u64,
    /// True if standard output and standard error are recorded separately.
    pub separate_stderr: bool,
    /// The trace context of the call that started it.
    pub traceparent: Option<TraceParent>,
    /// Names of the variables whose values are secret, in order. The values are kept apart from the record.
    pub secret_env: Vec<String>,
    /// True if secrets were masked in these texts. What the caller sent is kept apart from the record until the launch.
    pub concealed: bool,
    /// What to do when the bot or the tenant has as many unfinished tasks as it may have.
    pub when_full: WhenFull,
}

/// What to do with a request while the bot or the tenant has as many unfinished tasks as it may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Refuse it.
    #[default]
    Reject,
    /// Accept it, and let the task wait until an earlier one has ended.
    Queue {
        /// How long the task may wait, measured from its acceptance.
        deadline: Duration,
    },
}

/// The source of a command's standard input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stdin {
    /// Empty: a read returns end of file at once, so that no command waits for ever.
    #[default]
    Closed,
    /// Open: callers write to it until one of them ends it.
    Open,
}

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Limits of each process of a command, see setrlimit(2). An unset limit is the sandbox's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Open files.
    pub open_files: Option<u64>,
    /// Processes of the user.
    pub processes: Option<u64>,
    /// Size of each file that a process writes, in bytes.
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

/// The command. It is passed as data and never pasted into a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// Text for a shell.
    Shell {
        /// The text.
        text: String,
        /// The shell; `None`: `bash` if the sandbox has it, else `sh`.
        shell: Option<String>,
    },
    /// A program and its arguments. Never empty.
    Argv(Vec<String>),
}

impl Program {
    /// The command as one text for people: the shell text, or the arguments joined by blanks.
    pub fn display(&self) -> String {
        match self {
            Self::Shell { text, .. } => text.clone(),
            Self::Argv(argv) => argv.join(" "),
        }
    }

    /// Size in bytes, as counted against the limit of 1 MiB.
    pub fn len(&self) -> usize {
        match self {
            Self::Shell { text, .. } => text.len(),
            Self::Argv(argv) => argv.iter().map(|argument| argument.len() + 1).sum(),
        }
    }

    /// True if the text or the program's name is empty.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Shell { text, .. } => text.trim().is_empty(),
            Self::Argv(argv) => argv.first().is_none_or(String::is_empty),
        }
    }
}

impl TaskSpec {
    /// A specification with defaults for everything but the program and the timeout.
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
            traceparent: None,
            secret_env: Vec::new(),
            concealed: false,
            when_full: WhenFull::Reject,
        }
    }

    /// How long the task may wait for room; `None`: it does not wait.
    pub fn queue_deadline(&self) -> Option<Duration> {
        match self.when_full {
            WhenFull::Reject => None,
            WhenFull::Queue { deadline } => Some(deadline),
        }
    }

    /// True if the command cannot be launched from this specification alone.
    pub fn has_secrets(&self) -> bool {
        self.concealed || !self.secret_env.is_empty()
    }

    /// True if the command takes input.
    pub fn takes_input(&self) -> bool {
        self.terminal.is_some() || self.stdin == Stdin::Open
    }

    /// API names of the set fields that only the resident bridge supports. Both bridges support `output_limit`.
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

    /// The task's title in lists and notifications: its description, or the first 80 characters of its command.
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
