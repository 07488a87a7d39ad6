//! The arguments of every command. The doc comments are the help texts.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::{
    files::place::{Place, Remote},
    notify_args::{NotifyArgs, NotifyTaskArgs},
    process_args::ProcessArgs,
    reading::Reading,
    secret_env::{self, SecretSource},
    serve_args::ServeArgs,
    text,
    wait::Until,
    watch::{Pattern, WatchArgs},
};

const HEADING: &str = "Options of every command";

/// Run long commands of agents in their sandboxes, and report how each one ended.
#[derive(Debug, Parser)]
#[command(name = "errand", version)]
pub struct Cli {
    /// The options that every command takes.
    #[command(flatten)]
    pub globals: Globals,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The options for the connection to the server and for the output. They have their own heading in the help, apart from the arguments of
/// the command.
#[derive(Debug, Args)]
pub struct Globals {
    /// Address of the server.
    #[arg(long, global = true, help_heading = HEADING, env = "ERRAND_SERVER", value_name = "URL", default_value = "http://127.0.0.1:7543")]
    pub server: String,
    /// Token that authenticates to the server.
    #[arg(long, global = true, help_heading = HEADING, env = "ERRAND_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Print one JSON object per line, with the field names of the protocol; errors too.
    #[arg(long, global = true, help_heading = HEADING)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    Serve(ServeArgs),
    /// Run a command in a bot's sandbox and show its output.
    Run(Box<RunArgs>),
    /// Attach the keyboard and the terminal to a running task.
    Attach(AttachArgs),
    /// List tasks: the unfinished ones, or all. Or follow what happens to them.
    Ps(PsArgs),
    /// Show what a task printed.
    Logs(LogsArgs),
    /// Wait until tasks have finished or meet another condition, and exit with the exit code of a command that ended.
    Wait(WaitArgs),
    /// Send a signal to a running task.
    Signal(SignalArgs),
    /// Change what a session is told about an unfinished task.
    Notify(NotifyTaskArgs),
    /// Replace the patterns that a running task's output is watched for: the session is notified of matches.
    Watch(WatchArgs),
    /// Stop tasks and all their processes.
    Stop(StopArgs),
    /// Show notifications.
    Events(EventsArgs),
    /// Make, list and remove sandboxes.
    Sandbox(SandboxArgs),
    /// Copy, list and remove files of a running sandbox.
    Files(FilesArgs),
    /// Check whether the server is serving: exit code 0 if it is, else 1.
    Health,
    /// Show what this machine offers to a server with these settings, what is missing, and how to fix it: exit code 0 if a runtime works.
    Doctor(ServeArgs),
}

/// The bot and the session that a new task belongs to.
#[derive(Debug, Args)]
pub struct Owner {
    /// Bot that the task belongs to.
    #[arg(long, value_name = "BOT", default_value = "default")]
    pub bot: String,
    /// Session that is notified about the task.
    #[arg(long, value_name = "SESSION", default_value = "default")]
    pub session: String,
}

/// One bot, and either one of its sessions or all of them.
#[derive(Debug, Args)]
pub struct Scope {
    /// Name of the bot.
    #[arg(long, value_name = "BOT", default_value = "default")]
    pub bot: String,
    /// Only this session [default: all of the bot].
    #[arg(long, value_name = "SESSION", default_value = "", hide_default_value = true)]
    pub session: String,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Print the task's id and exit; the command runs in the background.
    #[arg(short, long)]
    pub detach: bool,
    /// The owner of the task.
    #[command(flatten)]
    pub owner: Owner,
    /// How long the command may run [default: the server's].
    #[arg(long, value_name = "DURATION", value_parser = text::parse_positive_duration)]
    pub timeout: Option<Duration>,
    /// Working directory in the sandbox.
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    pub workdir: String,
    /// Environment variable for the command; repeatable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = text::parse_pair)]
    pub env: Vec<(String, String)>,
    /// Secret environment variable, taken from this program's own environment or from a file; never shown by the server; repeatable.
    #[arg(long, value_name = "NAME|NAME=@FILE", value_parser = secret_env::parse)]
    pub secret_env: Vec<SecretSource>,
    /// Description of what the command is for.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub description: String,
    /// Shell to run it with [default: bash where the sandbox has it, else sh].
    #[arg(long, value_name = "SHELL", default_value = "", hide_default_value = true)]
    pub shell: String,
    /// Label for the task; repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = text::parse_pair)]
    pub label: Vec<(String, String)>,
    /// Idempotency key: using the same key again returns the same task and runs nothing.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub request_id: String,
    /// If the bot or the tenant has as many unfinished tasks as it may have: wait in the queue instead of failing.
    #[arg(long)]
    pub queue: bool,
    /// With --queue: how long to wait at most, 1s to 24h [default: 1h].
    #[arg(long, value_name = "DURATION", value_parser = text::parse_positive_duration, requires = "queue")]
    pub queue_deadline: Option<Duration>,
    /// Container image, if the bot has no sandbox yet.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Notify the session when the output matches: TEXT, regex:PATTERN, or either after `once:` for its first match only; repeatable, at most
    /// 8.
    #[arg(long, value_name = "PATTERN")]
    pub watch: Vec<Pattern>,
    /// Exit with code 0 after this long and leave the command running. At most 600s [default: stay until the command ends].
    #[arg(long, value_name = "DURATION", value_parser = text::parse_positive_duration, conflicts_with = "detach")]
    pub background_after: Option<Duration>,
    /// Stop the task if this program ends before the task does.
    #[arg(long, conflicts_with = "detach")]
    pub stop_on_disconnect: bool,
    /// What the session is told about the task.
    #[command(flatten)]
    pub policy: NotifyArgs,
    /// Trace context for the task and its notifications, in the form of the W3C header `traceparent`.
    #[arg(long, value_name = "TRACEPARENT", default_value = "", hide_default_value = true)]
    pub traceparent: String,
    /// The settings of the command's process.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Run the program itself, without a shell.
    #[arg(long, conflicts_with = "shell")]
    pub no_shell: bool,
    /// The command. A single argument is passed to the shell as it is; several arguments are the words of one command.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Show the output from this byte on [default: only new output].
    #[arg(long, value_name = "BYTE", value_parser = clap::value_parser!(i64).range(0..))]
    pub from: Option<i64>,
    /// Only watch: forward no input.
    #[arg(long)]
    pub no_stdin: bool,
    /// Id of the task.
    pub task: String,
}

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Show finished tasks too.
    #[arg(short, long)]
    pub all: bool,
    /// Only tasks of this bot [default: every bot].
    #[arg(long, value_name = "BOT", default_value = "", hide_default_value = true)]
    pub bot: String,
    /// Only tasks of this session [default: every session].
    #[arg(long, value_name = "SESSION", default_value = "", hide_default_value = true)]
    pub session: String,
    /// Show the unfinished tasks, then what happens: one line for each event, until interrupted.
    #[arg(short, long, conflicts_with_all = ["all", "limit"])]
    pub follow: bool,
    /// With --follow: continue after this cursor of an earlier --json stream, instead of listing tasks first.
    #[arg(long, value_name = "CURSOR", requires = "follow", default_value = "", hide_default_value = true)]
    pub cursor: String,
    /// The most tasks to show, newest first [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Follow the output until the task is finished.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last so many bytes.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(0..), conflicts_with = "offset")]
    pub tail: Option<i64>,
    /// The end of the output was read: acknowledge the notification of the end, if the task is finished.
    #[arg(long, conflicts_with = "follow")]
    pub acknowledge: bool,
    /// Begin at this byte.
    #[arg(long, value_name = "BYTE", value_parser = clap::value_parser!(i64).range(0..), default_value = "0")]
    pub offset: i64,
    /// How the output is shown.
    #[command(flatten)]
    pub reading: Reading,
    /// Id of the task.
    pub task: String,
}

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Give up after this long, with exit code 124; the task keeps running [default: never].
    #[arg(long, value_name = "DURATION", value_parser = text::parse_positive_duration)]
    pub timeout: Option<Duration>,
    /// What else ends the wait, with exit code 0: stalled, idle=5s, match=TEXT or regex=PATTERN in the output, listening=PORT in the
    /// sandbox; repeatable. The end of the task (finished) always does.
    #[arg(long, value_name = "CONDITION")]
    pub until: Vec<Until>,
    /// Acknowledge the notification of the end of each task that is shown as finished.
    #[arg(long)]
    pub acknowledge: bool,
    /// With several tasks: wait for the first of them.
    #[arg(long, conflicts_with = "all")]
    pub any: bool,
    /// With several tasks: wait for all of them [default].
    #[arg(long)]
    pub all: bool,
    /// Ids of the tasks, at most 64.
    #[arg(required = true, value_name = "TASK")]
    pub tasks: Vec<String>,
}

/// Arguments of `signal`.
#[derive(Debug, Args)]
pub struct SignalArgs {
    /// Only to the command's first process [default: to its process group].
    #[arg(long)]
    pub leader: bool,
    /// Id of the task.
    pub task: String,
    /// Name of the signal, such as INT, HUP, USR1 or WINCH.
    pub signal: String,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Time between SIGTERM and SIGKILL, at most 60s; 0s sends SIGKILL at once [default: the server's].
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    pub grace: Option<Duration>,
    /// Reason for the stop, kept with the outcome.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Do not wake the session with the end that this stop brings about.
    #[arg(long)]
    pub acknowledge: bool,
    /// Stop all unfinished tasks of the bot, or of one of its sessions.
    #[arg(long)]
    pub all: bool,
    /// With --all: name of the bot [default: default].
    #[arg(long, value_name = "BOT", requires = "all", conflicts_with = "tasks")]
    pub bot: Option<String>,
    /// With --all: only this session [default: all of the bot].
    #[arg(long, value_name = "SESSION", requires = "all", conflicts_with = "tasks")]
    pub session: Option<String>,
    /// Ids of the tasks.
    #[arg(value_name = "TASK", required_unless_present = "all", conflicts_with = "all")]
    pub tasks: Vec<String>,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct EventsArgs {
    /// Acknowledge notifications instead of showing them.
    #[command(subcommand)]
    pub action: Option<EventsAction>,
    /// Show pending notifications, then new ones as they happen. Acknowledges nothing.
    #[arg(short, long)]
    pub follow: bool,
    /// The bot and session whose notifications are shown.
    #[command(flatten)]
    pub scope: Scope,
    /// Only notifications after this sequence.
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(i64).range(0..), default_value = "0")]
    pub after: i64,
    /// Show acknowledged notifications too.
    #[arg(long, conflicts_with = "follow")]
    pub all: bool,
}

/// What to do with notifications, other than show them.
#[derive(Debug, Subcommand)]
pub enum EventsAction {
    /// Acknowledge notifications: they are not delivered again.
    Ack {
        /// The bot and session whose notifications are acknowledged.
        #[command(flatten)]
        scope: Scope,
        /// Sequences of the notifications.
        #[arg(required = true, value_name = "SEQUENCE", value_parser = clap::value_parser!(i64).range(1..))]
        sequences: Vec<i64>,
    },
}

/// Arguments of `sandbox`.
#[derive(Debug, Args)]
pub struct SandboxArgs {
    /// What to do with sandboxes.
    #[command(subcommand)]
    pub action: SandboxAction,
}

/// One bot.
#[derive(Debug, Args)]
pub struct BotArg {
    /// Name of the bot.
    #[arg(long, value_name = "BOT", default_value = "default")]
    pub bot: String,
}

/// What to do with sandboxes.
#[derive(Debug, Subcommand)]
pub enum SandboxAction {
    /// List the sandboxes.
    Ls,
    /// Stop a bot's tasks, then remove its sandbox with its files. An adopted container is not removed, only forgotten.
    Rm(BotArg),
    /// Make a bot's sandbox, start it again, or find it running.
    Ensure(Box<EnsureArgs>),
    /// Take a running container as a bot's sandbox: one with the label errand.adopt.tenant=TENANT, or any container if the server allows
    /// that.
    Adopt {
        /// The bot that gets the sandbox.
        #[command(flatten)]
        bot: BotArg,
        /// Name or id of the container.
        container: String,
    },
    /// Stop a bot's tasks, then its sandbox.
    Stop(BotArg),
    /// List the bots with unfinished tasks or open calls about files.
    Active {
        /// Tasks that were accepted longer ago do not count.
        #[arg(long, value_name = "DURATION", value_parser = text::parse_positive_duration)]
        max_age: Option<Duration>,
    },
}

/// Arguments of `sandbox ensure`. What is not given takes the server's default.
#[derive(Debug, Args)]
pub struct EnsureArgs {
    /// The bot that gets the sandbox.
    #[command(flatten)]
    pub bot: BotArg,
    /// Container image.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Memory limit, such as 512MiB.
    #[arg(long, value_name = "SIZE", value_parser = text::parse_memory)]
    pub memory: Option<i64>,
    /// CPU limit in cores, such as 1.5.
    #[arg(long, value_name = "CORES")]
    pub cpus: Option<f64>,
    /// The most processes at the same time.
    #[arg(long, value_name = "N")]
    pub pids: Option<i64>,
    /// Network: bridge, none, or the name of a network.
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,
    /// Make the root file system writable.
    #[arg(long)]
    pub writable_root: bool,
    /// User to run as: name, uid, or uid:gid.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Environment variable of every command; repeatable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = text::parse_pair)]
    pub env: Vec<(String, String)>,
    /// Stop the sandbox when it was not used for so long; 0s: never. The next task starts it again.
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    pub idle_stop: Option<Duration>,
}

/// Arguments of `files`.
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// What to do with files.
    #[command(subcommand)]
    pub action: FilesAction,
}

/// What to do with files. A file in a sandbox is BOT:/PATH; without a bot, `:/PATH`, it is a file of the bot `default`.
#[derive(Debug, Subcommand)]
pub enum FilesAction {
    /// Copy a file or a directory into a sandbox or out of it, completely or not at all.
    Cp(CopyArgs),
    /// List a directory.
    Ls {
        /// The directory.
        #[arg(value_name = "BOT:/PATH")]
        directory: Remote,
    },
    /// Describe files.
    Stat {
        /// Describe the target of a symbolic link.
        #[arg(short = 'L', long)]
        follow: bool,
        /// The files.
        #[arg(required = true, value_name = "BOT:/PATH")]
        files: Vec<Remote>,
    },
    /// Make directories.
    Mkdir {
        /// Make missing parent directories too, and accept a directory that exists.
        #[arg(short, long)]
        parents: bool,
        /// Permissions, such as 700 [default: 777 without the umask's bits].
        #[arg(long, value_name = "OCTAL", value_parser = text::parse_mode)]
        mode: Option<u32>,
        /// The directories.
        #[arg(required = true, value_name = "BOT:/PATH")]
        directories: Vec<Remote>,
    },
    /// Rename a file or a directory, or move it within its file system, atomically.
    Mv {
        /// Fail if the new path exists already.
        #[arg(short, long)]
        no_clobber: bool,
        /// The file.
        #[arg(value_name = "BOT:/PATH")]
        from: Remote,
        /// Its new path in the same sandbox: BOT:/PATH, or /PATH.
        #[arg(value_name = "NEW")]
        to: Place,
    },
    /// Print what changes in a directory, until interrupted.
    Watch {
        /// Also in the directories below it.
        #[arg(short, long)]
        recursive: bool,
        /// The directory.
        #[arg(value_name = "BOT:/PATH")]
        directory: Remote,
    },
    /// Remove files. Symbolic links themselves are removed and never followed.
    Rm {
        /// Remove directories too, with everything in them.
        #[arg(short, long)]
        recursive: bool,
        /// The files.
        #[arg(required = true, value_name = "BOT:/PATH")]
        files: Vec<Remote>,
    },
}

/// Arguments of `files cp`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// Permissions of the copy in the sandbox, such as 755 [default: those of the file that it replaces, else 644].
    #[arg(long, value_name = "OCTAL", value_parser = text::parse_mode)]
    pub mode: Option<u32>,
    /// Create missing parent directories of the copy in the sandbox.
    #[arg(short, long)]
    pub parents: bool,
    /// Fail if the target exists already.
    #[arg(short, long, conflicts_with = "recursive")]
    pub no_clobber: bool,
    /// Copy a directory with everything in it. The target must not exist, except with --merge. `-` is a tar archive.
    #[arg(short, long, conflicts_with = "mode")]
    pub recursive: bool,
    /// With --recursive: copy into a directory that exists, and replace its files of the same names.
    #[arg(long, requires = "recursive")]
    pub merge: bool,
    /// BOT:/PATH, a local file, or `-` for standard input.
    #[arg(value_name = "FROM")]
    pub from: Place,
    /// BOT:/PATH, a local file or directory, or `-` for standard output.
    #[arg(value_name = "TO")]
    pub to: Place,
}
