//! The bridge that installs nothing: it runs POSIX shell scripts through the runtime's exec and detaches them from it.
//!
//! The scripts are in `scripts/`. `launch.sh` claims the task directory, starts `supervise.sh` detached and follows the log for as long as
//! the stream lives. `supervise.sh` runs the command, keeps its output up to the limit and writes the exit file through fd 3.

mod attachment;
mod files;
mod log;
mod ports;
mod probe;
mod records;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    Attachment, BridgeState, Finding, Input, InputError, InputTaken, LaunchSettings, LogReader, Piece, ReadError,
    SandboxBridge, ScannedLog,
};
use attachment::ScriptAttachment;
use errand_reading::Scan;
use errand_runtime::{Collected, Exec, NotStarted, Runtime, RuntimeError, SandboxRef};
use errand_task::{
    ArmedWatch, Gap, Nonce, ProcessIdentity, Program, Signal, SignalTarget, TaskId, TaskSpec, TerminalSize,
};

const LOG: &str = include_str!("scripts/log.sh");
const KEEP: &str = include_str!("scripts/keep.sh");
const MEMORY: &str = include_str!("scripts/memory.sh");
const FOLLOW: &str = include_str!("scripts/follow.sh");
const PROCESS: &str = include_str!("scripts/process.sh");
const PACK: &str = include_str!("scripts/pack.sh");
const UNPACK: &str = include_str!("scripts/unpack.sh");
const LAUNCH: &str = include_str!("scripts/launch.sh");
const SUPERVISE: &str = include_str!("scripts/supervise.sh");
const COMMAND: &str = include_str!("scripts/command.sh");
const ATTACH: &str = include_str!("scripts/attach.sh");
const PROBE: &str = include_str!("scripts/probe.sh");
const SIGNAL: &str = include_str!("scripts/signal.sh");
const PORTS: &str = include_str!("scripts/ports.sh");
const READ: &str = include_str!("scripts/read.sh");
const REMOVE: &str = include_str!("scripts/remove.sh");

/// A longer command text is written to a file: the kernel accepts no argument over 128 KiB (MAX_ARG_STRLEN).
const TEXT_LIMIT: usize = 96 * 1024;
/// The longest argument or variable of a command, in bytes: the kernel's limit, minus the name under which `pack.sh` passes the value on.
/// The value is checked here, because the detached shell has no way to report an error.
const ARGUMENT_LIMIT: usize = 128 * 1024 - 32;
/// The most bytes that a script prints beside a log.
const SAID_LIMIT: usize = 1024 * 1024;
/// The most bytes of a script's message in an error.
const WORDS: usize = 1024;
/// How long a script may take to answer. No script needs more than a few moments; one that takes longer is stuck.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long a script that only answers may run before it is killed in the sandbox. Longer than the server waits for it.
const SCRIPT_LIMIT: Duration = Duration::from_secs(60);
/// Runs the program in its arguments for at most the number of seconds in its first argument.
const LIMITED: &str = r#"if command -v timeout >/dev/null; then exec timeout -s KILL "$0" "$@"; else exec "$@"; fi"#;
/// The most tasks that one process queries or removes. Keeps its arguments and its answer small.
const BATCH: usize = 256;

/// Runs commands in one sandbox with only what every sandbox has: `sh`, `tee` and similar tools.
pub struct DirectBridge {
    runtime: Arc<dyn Runtime>,
    /// The runtime's id of the sandbox.
    id: Arc<str>,
    root: Arc<str>,
}

impl DirectBridge {
    /// A bridge to a sandbox of this runtime, with task directories below `root`, an absolute path inside the sandbox.
    pub fn new(runtime: Arc<dyn Runtime>, sandbox: &SandboxRef, root: impl Into<Arc<str>>) -> Self {
        Self { runtime, id: Arc::clone(&sandbox.id), root: root.into() }
    }

    /// Starts scripts, joined into one, with arguments and without a time limit.
    async fn run(&self, scripts: &[&str], arguments: Vec<String>) -> Result<Exec, RuntimeError> {
        let arguments = std::iter::once(self.root.to_string()).chain(arguments);
        self.runtime.exec(&self.id, &script(scripts, arguments)).await
    }

    /// Runs a script to completion and returns everything that it prints. A script that takes too long is killed in the sandbox.
    async fn ask(&self, scripts: &[&str], arguments: Vec<String>) -> Result<Collected, RuntimeError> {
        let arguments = std::iter::once(self.root.to_string()).chain(arguments);
        let argv = limited(SCRIPT_LIMIT, script(scripts, arguments));
        in_time(async { self.runtime.exec(&self.id, &argv).await?.collect(SAID_LIMIT).await }).await
    }

    /// Signals those processes of a task that `target` names in `signal.sh`.
    async fn signal_some(
        &self,
        task: TaskId,
        process: Option<ProcessIdentity>,
        signal: Option<Signal>,
        target: &str,
    ) -> Result<u32, RuntimeError> {
        let (pid, since) = process.map_or(("none".to_owned(), "0".to_owned()), |process| {
            (process.pid.to_string(), process.start_ticks.to_string())
        });
        let number = signal.map_or(0, Signal::number).to_string();
        let arguments = vec![task.to_string(), pid, since, number, target.to_owned()];
        let said = self.ask(&[PROCESS, SIGNAL], arguments).await?;
        let said = String::from_utf8_lossy(&said.stdout);
        said.trim().strip_prefix("members ").and_then(|count| count.parse().ok()).ok_or_else(|| RuntimeError::Refused {
            detail: format!("the processes of the task could not be listed: {:?}", words(said.as_bytes())),
        })
    }

    fn command_file(&self, task: TaskId) -> String {
        format!("{}/{task}.command", self.root)
    }
}

/// The arguments that run scripts, joined into one.
fn script(scripts: &[&str], arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut argv = vec!["sh".to_owned(), "-c".to_owned(), scripts.join("\n"), "errand".to_owned()];
    argv.extend(arguments);
    argv
}

/// Wraps a program so that it is killed in the sandbox after `limit`. The limit is enforced there because the server or the stream may be
/// gone by then. In a sandbox without `timeout`, the program runs without a limit.
fn limited(limit: Duration, argv: Vec<String>) -> Vec<String> {
    let mut limited = vec!["sh".to_owned(), "-c".to_owned(), LIMITED.to_owned(), limit.as_secs().to_string()];
    limited.extend(argv);
    limited
}

/// Stops waiting for an answer that does not come: the sandbox may be at its process limit, or something in it may be stuck.
async fn in_time<T, E: From<RuntimeError>>(answer: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    tokio::time::timeout(ANSWER_LIMIT, answer).await.unwrap_or_else(|_| {
        Err(RuntimeError::Unavailable { detail: format!("the sandbox gave no answer within {ANSWER_LIMIT:?}") }.into())
    })
}

/// The gap that a script reports in `size` bytes of output; none if the script reports none, or an impossible one.
fn gap(lacks: &str, resumes: &str, size: u64) -> Option<Gap> {
    let (start, end) = (lacks.parse().ok()?, resumes.parse().ok()?);
    (start < end && end <= size).then_some(Gap { start, end })
}

/// The beginning of a script's message.
fn words(said: &[u8]) -> String {
    String::from_utf8_lossy(&said[..said.len().min(WORDS)]).into_owned()
}

/// A detached shell leaves no process in the sandbox that could pass input on.
fn no_input() -> InputError {
    InputError::Unsupported { why: "the direct bridge gives commands no input and no terminal".to_owned() }
}

/// The arguments of `supervise.sh`, starting with the mode.
fn program_arguments(spec: &TaskSpec, command_file: &str) -> Vec<String> {
    let (mode, shell, text, argv): (_, _, _, &[String]) = match &spec.program {
        Program::Argv(argv) => ("argv", "", String::new(), argv),
        Program::Shell { text, shell } => {
            let shell = shell.as_deref().unwrap_or_default();
            if text.len() > TEXT_LIMIT {
                ("file", shell, command_file.to_owned(), &[])
            } else if text.starts_with(['-', '+']) {
                // Without the blank, a shell would take a text that begins with `-` or `+` for an option.
                ("text", shell, format!(" {text}"), &[])
            } else {
                ("text", shell, text.clone(), &[])
            }
        }
    };
    let workdir = spec.workdir.as_deref().unwrap_or_default();
    let entry = |(name, value): (&String, &String)| format!("{name}={value}");
    let (secret, other): (Vec<_>, Vec<_>) = spec.env.iter().partition(|(name, _)| spec.secret_env.contains(name));
    let counts = [secret.len(), other.len()].map(|count| count.to_string());
    let mut arguments = [mode, workdir, shell, text.as_str(), &counts[0], &counts[1]].map(str::to_owned).to_vec();
    arguments.extend(secret.into_iter().chain(other).map(entry));
    arguments.extend_from_slice(argv);
    arguments
}

/// Arguments as `launch.sh` reads them from its standard input.
fn lines(arguments: &[String]) -> String {
    arguments.iter().map(|argument| format!("{}\n{argument}\n", argument.matches('\n').count())).collect()
}

#[async_trait]
impl SandboxBridge for DirectBridge {
    async fn prepare(&self) -> Result<BridgeState, RuntimeError> {
        Ok(BridgeState::direct(String::new()))
    }

    fn state(&self) -> Option<BridgeState> {
        Some(BridgeState::direct(String::new()))
    }

    fn is_connected(&self) -> bool {
        false
    }

    fn enforces_timeout(&self) -> bool {
        false
    }

    fn output_file(&self, task: TaskId) -> String {
        crate::output_file(&self.root, task)
    }

    async fn launch(
        &self,
        task: TaskId,
        nonce: Nonce,
        spec: &TaskSpec,
        _settings: LaunchSettings,
        _watches: &[ArmedWatch],
    ) -> Result<Attachment, RuntimeError> {
        let command_file = self.command_file(task);
        if let Program::Shell { text, .. } = &spec.program
            && text.len() > TEXT_LIMIT
        {
            self.runtime.put_file(&self.id, &command_file, text.as_bytes(), 0o600).await?;
        }
        let mut arguments = vec![
            task.to_string(),
            nonce.to_string(),
            [PACK, PROCESS, UNPACK, KEEP, MEMORY, SUPERVISE].join("\n"),
            [UNPACK, COMMAND].join("\n"),
        ];
        let mut of_supervisor = vec![spec.output_limit.to_string()];
        of_supervisor.extend(program_arguments(spec, &command_file));
        // Everybody in the sandbox and at the engine can see a command line.
        let unread = if spec.has_secrets() { std::mem::take(&mut of_supervisor) } else { Vec::new() };
        arguments.push(unread.len().to_string());
        arguments.extend(of_supervisor);
        if let Some(long) = arguments.iter().chain(&unread).find(|argument| argument.len() > ARGUMENT_LIMIT) {
            let detail = format!("an argument or a variable has {} bytes, over {ARGUMENT_LIMIT}", long.len());
            return Err(RuntimeError::NotStarted { reason: NotStarted::TooLarge, detail });
        }
        let mut exec = self.run(&[PACK, LOG, FOLLOW, LAUNCH], arguments).await?;
        if !unread.is_empty() {
            let written = in_time(exec.write(lines(&unread).as_bytes())).await;
            written.map_err(|error: RuntimeError| RuntimeError::Uncertain { detail: error.to_string() })?;
        }
        Ok(Attachment::new(ScriptAttachment::new(exec, 0)))
    }

    async fn attach(
        &self,
        task: TaskId,
        _nonce: Nonce,
        from: u64,
        _watches: &[ArmedWatch],
    ) -> Result<Attachment, RuntimeError> {
        let exec = self.run(&[PROCESS, LOG, FOLLOW, ATTACH], vec![task.to_string(), from.to_string()]).await?;
        Ok(Attachment::new(ScriptAttachment::new(exec, from)))
    }

    async fn probe(&self, tasks: &[(TaskId, Nonce)], fence: bool) -> Result<Vec<Finding>, RuntimeError> {
        let mut findings = Vec::with_capacity(tasks.len());
        for batch in tasks.chunks(BATCH) {
            let mut arguments = vec![if fence { "fence" } else { "look" }.to_owned()];
            arguments.extend(batch.iter().map(|(task, _)| task.to_string()));
            let said = self.ask(&[PROCESS, LOG, PROBE], arguments).await?;
            findings.extend(probe::parse(&said.stdout, batch).ok_or_else(|| RuntimeError::Refused {
                detail: format!(
                    "the sandbox's answer cannot be understood: {:?} {:?}",
                    words(&said.stdout),
                    words(&said.stderr)
                ),
            })?);
        }
        Ok(findings)
    }

    async fn signal(
        &self,
        task: TaskId,
        process: Option<ProcessIdentity>,
        signal: Option<Signal>,
    ) -> Result<u32, RuntimeError> {
        self.signal_some(task, process, signal, "all").await
    }

    async fn send_signal(
        &self,
        task: TaskId,
        leader: ProcessIdentity,
        signal: Signal,
        target: SignalTarget,
    ) -> Result<u32, RuntimeError> {
        let target = match target {
            SignalTarget::Group => "group",
            SignalTarget::Leader => "leader",
        };
        self.signal_some(task, Some(leader), Some(signal), target).await
    }

    async fn listening(&self, known: Option<&BTreeSet<u16>>) -> Result<BTreeSet<u16>, RuntimeError> {
        let said = self.ask(&[PORTS], ports::arguments(known)).await?;
        ports::parse(&said.stdout).ok_or_else(|| RuntimeError::Refused {
            detail: format!("the sockets of the sandbox could not be read: {:?}", words(&said.stderr)),
        })
    }

    async fn write_input(&self, _task: TaskId, _input: Input) -> Result<InputTaken, InputError> {
        Err(no_input())
    }

    async fn resize_terminal(&self, _task: TaskId, _size: TerminalSize) -> Result<(), InputError> {
        Err(no_input())
    }

    async fn read(&self, task: TaskId, piece: Piece) -> Result<LogReader, ReadError> {
        let (mode, start, limit) = match piece {
            Piece::From { offset, limit } => ("from", offset, limit),
            Piece::Tail { limit } => ("tail", 0, limit),
        };
        let arguments = vec![task.to_string(), mode.to_owned(), start.to_string(), limit.to_string()];
        in_time(async { log::open(self.run(&[LOG, READ], arguments).await?, limit).await }).await
    }

    async fn scan(&self, _task: TaskId, _scan: &Scan) -> Result<Option<ScannedLog>, ReadError> {
        // The tools of a sandbox know neither the patterns nor what a terminal shows.
        Ok(None)
    }

    async fn remove(&self, tasks: &[TaskId]) -> Result<(), RuntimeError> {
        for batch in tasks.chunks(BATCH) {
            self.ask(&[REMOVE], batch.iter().map(TaskId::to_string).collect()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spec(program: Program) -> TaskSpec {
        TaskSpec {
            workdir: Some("/w".to_owned()),
            env: [("A".to_owned(), "1".to_owned())].into(),
            ..TaskSpec::new(program, Duration::from_secs(1))
        }
    }

    #[test]
    fn shell_text_is_passed_as_one_argument() {
        let text = "echo ') # \"".to_owned();
        let arguments = program_arguments(&spec(Program::Shell { text: text.clone(), shell: None }), "/f");
        assert_eq!(arguments, ["text", "/w", "", &text, "0", "1", "A=1"]);
    }

    #[test]
    fn shell_text_is_never_taken_as_option() {
        let arguments = program_arguments(&spec(Program::Shell { text: "-x".to_owned(), shell: None }), "/f");
        assert_eq!(arguments[3], " -x");
    }

    #[test]
    fn long_shell_text_is_passed_by_file() {
        let text = "x".repeat(TEXT_LIMIT + 1);
        let arguments = program_arguments(&spec(Program::Shell { text, shell: Some("ksh".to_owned()) }), "/f");
        assert_eq!(arguments, ["file", "/w", "ksh", "/f", "0", "1", "A=1"]);
    }

    #[test]
    fn arguments_come_after_the_environment() {
        let arguments = program_arguments(&spec(Program::Argv(vec!["ls".to_owned(), "-l".to_owned()])), "/f");
        assert_eq!(arguments, ["argv", "/w", "", "", "0", "1", "A=1", "ls", "-l"]);
    }
    #[test]
    fn secrets_come_first_and_line_by_line() {
        let mut spec = spec(Program::Argv(vec!["ls".to_owned()]));
        spec.env.insert("KEY".to_owned(), "a\nb\n".to_owned());
        spec.secret_env = vec!["KEY".to_owned()];
        let arguments = program_arguments(&spec, "/f");
        assert_eq!(arguments, ["argv", "/w", "", "", "1", "1", "KEY=a\nb\n", "A=1", "ls"]);
        assert_eq!(lines(&arguments[5..8]), "0\n1\n2\nKEY=a\nb\n\n0\nA=1\n");
    }
}
