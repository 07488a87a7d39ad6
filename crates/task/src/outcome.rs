//! How a command ended: one of six kinds, never reduced to one number.

use std::{fmt, time::Duration};

use super::human;

/// How a task ended. It never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command exited by itself.
    Exited {
        /// 0 to 255.
        code: u8,
    },
    /// A signal ended the command, and no stop sent it. A caller may have, with SignalTask.
    Signaled {
        /// The signal.
        signal: Signal,
    },
    /// The command ran longer than its timeout and was stopped.
    TimedOut {
        /// The timeout that was exceeded.
        after: Duration,
    },
    /// The task was stopped on purpose.
    Stopped {
        /// Who asked, and why.
        cause: StopCause,
        /// The last signal that Errand sent; `None` if the command had not been launched.
        signal: Option<Signal>,
    },
    /// The command never ran.
    FailedToStart {
        /// The reason.
        failure: StartFailure,
        /// The kernel's error number, if there is one.
        errno: Option<i32>,
        /// The reason as text for people.
        message: String,
    },
    /// How the command ended cannot be known.
    Lost {
        /// The reason.
        reason: LossReason,
        /// The reason as text for people.
        message: String,
    },
}

impl Outcome {
    /// The exit code that a shell would report; `None` for a lost task, for which any number would be false.
    ///
    /// 128 + signal, as in POSIX shells; 124 for a timeout, as `timeout(1)` does; 127 and 126 for a command that is not found or cannot be
    /// executed, as in POSIX shells.
    pub fn shell_exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited { code } => Some(i32::from(*code)),
            Self::Signaled { signal } => Some(128 + signal.number()),
            Self::TimedOut { .. } => Some(124),
            Self::Stopped { signal, .. } => Some(128 + signal.unwrap_or(Signal::TERM).number()),
            Self::FailedToStart { failure: StartFailure::NotFound, .. } => Some(127),
            Self::FailedToStart { .. } => Some(126),
            Self::Lost { .. } => None,
        }
    }

    /// True if a stop brought the end about whose caller needs no notification of it. Not if the command had ended by itself before.
    pub fn is_acknowledged(&self) -> bool {
        matches!(self, Self::Stopped { cause: StopCause::Request { acknowledge: true, .. }, .. })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited with code {code}"),
            Self::Signaled { signal } => write!(f, "ended by signal {signal}"),
            Self::TimedOut { after } => write!(f, "timed out after {}", human::span(*after)),
            Self::Stopped { cause: StopCause::Request { reason, .. }, .. } if !reason.is_empty() => {
                write!(f, "stopped on request ({reason})")
            }
            Self::Stopped { cause, .. } => write!(f, "stopped ({})", cause.by()),
            Self::FailedToStart { message, .. } => write!(f, "failed to start: {message}"),
            Self::Lost { message, .. } => write!(f, "lost: {message}"),
        }
    }
}

/// The end of a command as found in the sandbox, before the state machine decides whether Errand caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The command exited with this code.
    Exited(u8),
    /// A signal ended the command. It may have been sent by Errand.
    Signaled(Signal),
    /// The guest enforced the timeout and stopped the command.
    TimedOut {
        /// The timeout that was exceeded.
        after: Duration,
    },
    /// The command never ran.
    FailedToStart {
        /// The reason.
        failure: StartFailure,
        /// The kernel's error number, if there is one.
        errno: Option<i32>,
        /// The reason as text for people.
        message: String,
    },
    /// How the command ended cannot be known.
    Lost {
        /// The reason.
        reason: LossReason,
        /// The reason as text for people.
        message: String,
    },
}

impl Ending {
    /// A loss with the default text of its reason.
    pub fn lost(reason: LossReason) -> Self {
        Self::Lost { reason, message: reason.text().to_owned() }
    }
}

/// The origin of a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopCause {
    /// A caller's request, with the caller's reason; the reason may be empty.
    Request {
        /// The caller's reason.
        reason: String,
        /// Whether the caller needs no notification of the end that its stop brings about.
        acknowledge: bool,
    },
    /// The client of RunTask disconnected and had requested a stop in this case.
    Disconnect,
    /// The sandbox is being stopped.
    SandboxStopped,
    /// The sandbox is being deleted.
    SandboxDeleted,
    /// The server shuts down and is configured to stop its tasks.
    ServerShutdown,
    /// The task's timeout has passed. Leads to [`Outcome::TimedOut`].
    Timeout {
        /// The timeout that was exceeded.
        after: Duration,
    },
}

impl StopCause {
    /// Its name in the API.
    pub fn by(&self) -> &'static str {
        match self {
            Self::Request { .. } => "request",
            Self::Disconnect => "disconnect",
            Self::SandboxStopped => "sandbox_stopped",
            Self::SandboxDeleted => "sandbox_deleted",
            Self::ServerShutdown => "server_shutdown",
            Self::Timeout { .. } => "timeout",
        }
    }
}

/// Why a command did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// The shell or program was not found.
    NotFound,
    /// The program exists and cannot be executed.
    NotExecutable,
    /// The program exists, and the interpreter that its first line names does not.
    BadInterpreter,
    /// The working directory does not exist, or is not a directory.
    NoSuchDirectory,
    /// The sandbox's permissions do not allow it.
    NotPermitted,
    /// The sandbox's user does not exist.
    NoSuchUser,
    /// The task directory cannot be written.
    NoSpace,
    /// The sandbox stopped or vanished before the launch.
    SandboxGone,
    /// The launch was cut short before the command ran.
    LaunchInterrupted,
    /// The kernel could not make another process.
    ForkRefused,
    /// The arguments and the environment are larger than the kernel accepts.
    ArgumentsTooLarge,
    /// The container engine refused the launch.
    Refused,
    /// The task waited for room longer than its queue deadline.
    QueueDeadline,
}

impl StartFailure {
    /// All failures, for tables and tests.
    pub const ALL: [Self; 13] = [
        Self::NotFound,
        Self::NotExecutable,
        Self::BadInterpreter,
        Self::NoSuchDirectory,
        Self::NotPermitted,
        Self::NoSuchUser,
        Self::NoSpace,
        Self::SandboxGone,
        Self::LaunchInterrupted,
        Self::ForkRefused,
        Self::ArgumentsTooLarge,
        Self::Refused,
        Self::QueueDeadline,
    ];

    /// Its name in the exit file.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::NotExecutable => "not_executable",
            Self::BadInterpreter => "bad_interpreter",
            Self::NoSuchDirectory => "no_such_directory",
            Self::NotPermitted => "not_permitted",
            Self::NoSuchUser => "no_such_user",
            Self::NoSpace => "no_space",
            Self::SandboxGone => "sandbox_gone",
            Self::LaunchInterrupted => "launch_interrupted",
            Self::ForkRefused => "fork_refused",
            Self::ArgumentsTooLarge => "arguments_too_large",
            Self::Refused => "refused",
            Self::QueueDeadline => "queue_deadline",
        }
    }

    /// The failure with this name in the exit file.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|failure| failure.word() == word)
    }
}

/// Why the outcome of a task cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossReason {
    /// The sandbox was restarted.
    SandboxRestarted,
    /// The sandbox was removed.
    SandboxRemoved,
    /// The sandbox is stopped.
    SandboxStopped,
    /// The task directory was removed.
    LogDirectoryGone,
    /// The exit file cannot be parsed, or belongs to another launch.
    ExitFileUnreadable,
    /// The command and the process that records its end are both gone.
    SupervisorKilled,
    /// The launch was cut short: the server ended, or the launch was never confirmed.
    LaunchInterrupted,
    /// The sandbox runs but does not answer.
    SandboxUnresponsive,
    /// The sandbox was killed after it had run out of memory.
    SandboxOutOfMemory,
}

impl LossReason {
    /// The default text for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::SandboxRestarted => "the sandbox was restarted while the command ran",
            Self::SandboxRemoved => "the sandbox was removed while the command ran",
            Self::SandboxStopped => "the sandbox was stopped while the command ran",
            Self::LogDirectoryGone => "the task directory with the log and the exit file was removed",
            Self::ExitFileUnreadable => "the exit file cannot be parsed, or belongs to another launch",
            Self::SupervisorKilled => "the process that records the command's end was killed",
            Self::LaunchInterrupted => "the launch was cut short; whether the command ran is not known",
            Self::SandboxUnresponsive => "the sandbox runs but does not report how the command ended",
            Self::SandboxOutOfMemory => "the sandbox ran out of memory and was killed while the command ran",
        }
    }
}

/// A signal number of the sandbox's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i32);

/// Signal names of Linux, from signal(7): valid on every architecture but MIPS and Alpha. The index is the number minus 1.
const SIGNAL_NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

impl Signal {
    /// The request to end.
    pub const TERM: Self = Self(15);
    /// The signal that a process cannot handle.
    pub const KILL: Self = Self(9);

    /// The signal with this number; `None` outside 1 to 64.
    pub fn new(number: i32) -> Option<Self> {
        (1..=64).contains(&number).then_some(Self(number))
    }

    /// The signal with this name, in any case, with or without `SIG`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let index = SIGNAL_NAMES.iter().position(|known| *known == name)?;
        Self::new(i32::try_from(index).ok()? + 1)
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Its name, such as `SIGKILL`; `SIG34` for a signal without a name.
    pub fn name(self) -> String {
        match usize::try_from(self.0 - 1).ok().and_then(|index| SIGNAL_NAMES.get(index)) {
            Some(name) => format!("SIG{name}"),
            None => format!("SIG{}", self.0),
        }
    }
}

/// Which processes of a task a caller's signal goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalTarget {
    /// The process group of the command's first process.
    Group,
    /// The command's first process.
    Leader,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn signals_have_names() {
        assert_eq!(Signal::KILL.name(), "SIGKILL");
        assert_eq!(Signal::TERM.name(), "SIGTERM");
        assert_eq!(Signal::new(31).unwrap().name(), "SIGSYS");
        assert_eq!(Signal::new(34).unwrap().name(), "SIG34");
        assert_eq!(Signal::new(0), None);
        for number in 1..=31 {
            let signal = Signal::new(number).unwrap();
            assert_eq!(Signal::named(&signal.name()), Some(signal));
            assert_eq!(Signal::named(&signal.name()[3..].to_lowercase()), Some(signal));
        }
        for wrong in ["", "SIG", "SIG34", "2", "INTT", "SIGSIGINT", "ınt"] {
            assert_eq!(Signal::named(wrong), None, "{wrong}");
        }
        assert_eq!(Signal::new(65), None);
    }

    #[test]
    fn lost_task_has_no_exit_code() {
        let lost = Outcome::Lost { reason: LossReason::SandboxRemoved, message: String::new() };
        assert_eq!(lost.shell_exit_code(), None);
        assert_eq!(Outcome::Exited { code: 137 }.shell_exit_code(), Some(137));
        assert_eq!(Outcome::Signaled { signal: Signal::KILL }.shell_exit_code(), Some(137));
        assert_eq!(Outcome::TimedOut { after: Duration::from_secs(1) }.shell_exit_code(), Some(124));
    }

    #[test]
    fn start_failures_round_trip_through_their_word() {
        for failure in StartFailure::ALL {
            assert_eq!(StartFailure::from_word(failure.word()), Some(failure));
        }
    }
}
