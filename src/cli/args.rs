//! The arguments of every command. The comments are the help that people read.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::{
    files::place::{Place, Remote},
    process_args::ProcessArgs,
    serve_args::ServeArgs,
    text,
};

const HEADING: &str = "Options of every command";

/// Runs long commands of agents in their sandboxes, and tells how each one ended.
#[derive(Debug, Parser)]
#[command(name = "errand", version)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which server, and what for. Under a heading of their own, so that they do not mix with the arguments of the command.
#[derive(Debug, Args)]
pub struct Globals {
    /// Address of the server.
    #[arg(long, global = true, help_heading = HEADING, env = "ERRAND_SERVER", value_name = "URL", default_value = "http://127.0.0.1:7543")]
    pub server: String,
    /// Token to show to the server.
    #[arg(long, global = true, help_heading = HEADING, env = "ERRAND_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Print one JSON object a line, with the names of the protocol; errors too.
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
    /// Join a running task at the keyboard.
    Attach(AttachArgs),
    /// List tasks: the unfinished ones, or all.
    Ps(PsArgs),
    /// Show what a task printed.
    Logs(LogsArgs),
    /// Wait until a task is finished, and exit as its command did.
    Wait(WaitArgs),
    /// Stop tasks with all their processes.
    Stop(StopArgs),
    /// Show notifications.
    Events(EventsArgs),
    /// Make, list and remove sandboxes.
    Sandbox(SandboxArgs),
    /// Copy, list and remove files of a running sandbox.
    Files(FilesArgs),
    /// Ask whether the server is serving: exit code 0 if so, else 1.
    Health,
    /// Say what this machine offers to a server with these settings, what is missing, and what to do: exit code 0 if a runtime works.
    Doctor(ServeArgs),
}

/// The bot and the session that a new task belongs to.
#[derive(Debug, Args)]
pub struct Owner {
    /// Bot that the task belongs to.
    #[arg(long, value_name = "BOT", default_value = "default")]
    pub bot: String,
    /// Session that is told what happens to the task.
    #[arg(long, value_name = "SESSION", default_value = "default")]
    pub session: String,
}

/// One bot, and one of its sessions or all.
#[derive(Debug, Args)]
pub struct Scope {
    /// Bot in question.
    #[arg(long, value_name = "BOT", default_value = "default")]
    pub bot: String,
    /// Only this session [default: all of the bot].
    #[arg(long, value_name = "SESSION", default_value = "", hide_default_value = true)]
    pub session: String,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Print the task's id and leave; the command runs in the background.
    #[arg(short, long)]
    pub detach: bool,
    /// Whose task it is.
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
    /// What the command is for.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub description: String,
    /// Shell to run it with [default: bash where the sandbox has it, else sh].
    #[arg(long, value_name = "SHELL", default_value = "", hide_default_value = true)]
    pub shell: String,
    /// Mark of your own; repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = text::parse_pair)]
    pub label: Vec<(String, String)>,
    /// Idempotency key: the same key again returns the same task and runs nothing.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub request_id: String,
    /// Container image, where the bot has no sandbox yet.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Stay this long; then leave with exit code 0 while the command runs on. At most 600s [default: stay to the end].
    #[arg(long, value_name = "DURATION", value_parser = text::parse_positive_duration, conflicts_with = "detach")]
    pub background_after: Option<Duration>,
    /// Stop the task when this program goes before the end.
    #[arg(long, conflicts_with = "detach")]
    pub stop_on_disconnect: bool,
    /// What kind of process it becomes.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// Run the program itself, without a shell.
    #[arg(long, conflicts_with = "shell")]
    pub no_shell: bool,
    /// The command. One argument is shell text as it is; several are the words of one command.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Show the output from this byte on [default: what is printed from now on].
    #[arg(long, value_name = "BYTE", value_parser = clap::value_parser!(i64).range(0..))]
    pub from: Option<i64>,
    /// Only watch: forward nothing.
    #[arg(long)]
    pub no_stdin: bool,
    /// Id of the task.
    pub task: String,
}

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Finished tasks too.
    #[arg(short, long)]
    pub all: bool,
    /// Only this bot's [default: every bot's].
    #[arg(long, value_name = "BOT", default_value = "", hide_default_value = true)]
    pub bot: String,
    /// Only this session's [default: every session's].
    #[arg(long, value_name = "SESSION", default_value = "", hide_default_value = true)]
    pub session: String,
    /// The most to show, newest first [default: all].
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
    /// Begin at this byte.
    #[arg(long, value_name = "BYTE", value_parser = clap::value_parser!(i64).range(0..), default_value = "0")]
    pub offset: i64,
    /// Id of the task.
    pub task: String,
}

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Give up after this long, with exit code 124; the task goes on [default: never].
    #[arg(long, value_name = "DURATION", value_parser = text::parse_positive_duration)]
    pub timeout: Option<Duration>,
    /// Id of the task.
    pub task: String,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Time between SIGTERM and SIGKILL, at most 60s; 0s: SIGKILL at once [default: the server's].
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    pub grace: Option<Duration>,
    /// Why, kept with the outcome.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Stop all unfinished tasks of the bot, or of one of its sessions.
    #[arg(long)]
    pub all: bool,
    /// With --all: bot in question [default: default].
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
    /// Acknowledge instead of showing.
    #[command(subcommand)]
    pub action: Option<EventsAction>,
    /// Show what is pending, then what happens from now on. Acknowledges nothing.
    #[arg(short, long)]
    pub follow: bool,
    /// Whose notifications.
    #[command(flatten)]
    pub scope: Scope,
    /// Only notifications after this sequence.
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(i64).range(0..), default_value = "0")]
    pub after: i64,
    /// Those that were acknowledged too.
    #[arg(long, conflicts_with = "follow")]
    pub all: bool,
}

/// What to do with notifications other than to show them.
#[derive(Debug, Subcommand)]
pub enum EventsAction {
    /// Acknowledge notifications: they are not delivered again.
    Ack {
        /// Whose notifications.
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
    /// Bot in question.
    #[arg(long, value_name = "BOT", default_value = "default")]
    pub bot: String,
}

/// What to do with sandboxes.
#[derive(Debug, Subcommand)]
pub enum SandboxAction {
    /// List the sandboxes.
    Ls,
    /// Remove a bot's sandbox with its files, after stopping its tasks. An adopted container is only let go.
    Rm(BotArg),
    /// Make a bot's sandbox, or start it again, or find it running.
    Ensure(Box<EnsureArgs>),
    /// Take a running container as a bot's sandbox: one with the label errand.adopt.tenant=TENANT, or any where the server allows that.
    Adopt {
        /// Whose sandbox.
        #[command(flatten)]
        bot: BotArg,
        /// Name or id of the container.
        container: String,
    },
    /// Stop a bot's tasks, then its sandbox.
    Stop(BotArg),
}

/// Arguments of `sandbox ensure`. What is not given is the server's default.
#[derive(Debug, Args)]
pub struct EnsureArgs {
    /// Whose sandbox.
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
    /// The most processes at a time.
    #[arg(long, value_name = "N")]
    pub pids: Option<i64>,
    /// Network: bridge, none, or the name of one.
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
}

/// Arguments of `files`.
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// What to do with files.
    #[command(subcommand)]
    pub action: FilesAction,
}

/// What to do with files. A file of a sandbox is BOT:/PATH; without a bot, `:/PATH`, it is that of the bot `default`.
#[derive(Debug, Subcommand)]
pub enum FilesAction {
    /// Copy a file into a sandbox, or out of it: all of it or nothing.
    Cp(CopyArgs),
    /// List a directory.
    Ls {
        /// The directory.
        #[arg(value_name = "BOT:/PATH")]
        directory: Remote,
    },
    /// Describe files.
    Stat {
        /// Describe the file that a symbolic link leads to.
        #[arg(short = 'L', long)]
        follow: bool,
        /// The files.
        #[arg(required = true, value_name = "BOT:/PATH")]
        files: Vec<Remote>,
    },
    /// Remove files. Symbolic links are removed, never followed.
    Rm {
        /// Directories too, with all that is in them.
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
    /// Make the directories above the copy in the sandbox.
    #[arg(short, long)]
    pub parents: bool,
    /// Fail when anything is there already.
    #[arg(short, long)]
    pub no_clobber: bool,
    /// BOT:/PATH, a file here, or `-` for standard input.
    #[arg(value_name = "FROM")]
    pub from: Place,
    /// BOT:/PATH, a file or a directory here, or `-` for standard output.
    #[arg(value_name = "TO")]
    pub to: Place,
}
