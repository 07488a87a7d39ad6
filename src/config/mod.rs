//! The server's settings: what they are, where they come from, and how errors in them are reported.
//!
//! Owns the typed [`Config`], the table of [`SETTINGS`] and the rule of precedence: flag, then environment, then file, then default. It
//! reads neither the process environment nor the command line: the caller passes both in. The engine, the runtime and the store define what
//! the settings mean to them.

mod load;
mod problem;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod value;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use errand_engine::MaskReads;
use errand_task::Patterns;

pub use problem::{ConfigErrors, Problem};
pub use settings::{SETTINGS, Setting};
pub use source::{Flags, Origin, SettingsFile};
pub(crate) use value::memory;

/// The validated settings of one server.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Address that the gRPC server listens on. Default 127.0.0.1:7543. An address other than loopback requires a `tokens_file`.
    pub listen: SocketAddr,
    /// Directory of the database. Default `./errand-data`.
    pub data_dir: PathBuf,
    /// The runtime of sandboxes. Default auto.
    pub runtime: RuntimeKind,
    /// Address of the Docker engine. Default: `DOCKER_HOST`; if that is unset too, `None`: the engine's default socket.
    pub docker_host: Option<String>,
    /// File of the tokens that clients must present. Default `None`: no token is required.
    pub tokens_file: Option<PathBuf>,
    /// Image of a new sandbox. Default `None`: the runtime's default, which is `debian:bookworm-slim` with Docker and `host` without.
    pub image: Option<String>,
    /// Memory limit of a new sandbox, in bytes. Default 2 GiB.
    pub memory_bytes: i64,
    /// CPU limit of a new sandbox, in cores. Default 2.
    pub cpus: f64,
    /// The most concurrent processes in a new sandbox. Default 2048.
    pub pids_limit: i64,
    /// Network of a new sandbox: `bridge`, `none`, or the name of a network of the container engine. Default `None`: `bridge` if it can be
    /// made.
    pub network_mode: Option<String>,
    /// The most memory that a request may ask for, in bytes. Default `None`: 16 GiB, or `memory_bytes` where that is more.
    pub max_memory_bytes: Option<i64>,
    /// The most CPU that a request may ask for, in cores. Default `None`: 16, or `cpus` where that is more.
    pub max_cpus: Option<f64>,
    /// The most processes that a request may ask for. Default `None`: 32768, or `pids_limit` where that is more.
    pub max_pids_limit: Option<i64>,
    /// The most that an embedded sandbox can hold on its disk, in bytes. Default 10 GiB, at least 64 MiB.
    pub disk_bytes: u64,
    /// The most sandboxes of one tenant. Default 2048.
    pub max_sandboxes_per_tenant: u32,
    /// Images that a request may ask for, in addition to `image`. Default all.
    pub allow_images: Patterns,
    /// Networks that a request may ask for, in addition to `network_mode`. Default `bridge` and `none`; `host` and `container:…` never.
    pub allow_networks: Patterns,
    /// Whether callers without a token may adopt any running container. Default false. Setting it together with a tokens file is an error,
    /// because the file sets this for each token.
    pub allow_adopt: bool,
    /// Ranges of private addresses, such as `10.1.0.0/16`, that sandboxes on the network `bridge` may reach. Default: none of them.
    pub allow_addresses: Vec<String>,
    /// Directory inside the sandbox that holds the task directories: an absolute path without a trailing slash. Default
    /// `/tmp/errand`.
    pub task_root: String,
    /// Whether the server stops all running tasks when it shuts down. Default false: they keep running.
    pub stop_tasks_on_exit: bool,
    /// The most unfinished tasks of one bot, not counting those in the queue. Default 64.
    pub max_running_per_bot: u32,
    /// The most unfinished tasks of one tenant, not counting those in the queue. Default 1024.
    pub max_running_per_tenant: u32,
    /// The most tasks of one bot in the queue. Default 1000.
    pub max_queued_per_bot: u32,
    /// The most tasks of one tenant in the queue. Default 10 000.
    pub max_queued_per_tenant: u32,
    /// The most stored tasks of a tenant, including finished ones. Default 1 000 000.
    pub max_stored_tasks_per_tenant: u64,
    /// The most bytes of stored tasks, notifications and retained outputs of a tenant. Default 10 GiB.
    pub max_stored_bytes_per_tenant: u64,
    /// How long a command may run when its request does not say. Default 30 min; never more than `max_timeout`.
    pub default_timeout: Duration,
    /// The longest timeout that a request may ask for. Default 24 h.
    pub max_timeout: Duration,
    /// How long a command must be silent before it can count as stalled. Default 45 s.
    pub stall_after: Duration,
    /// How often running tasks are checked for a stall. Default 5 s.
    pub stall_check_interval: Duration,
    /// The shortest time between two notifications about matches of one task. Default 15 s.
    pub watch_interval: Duration,
    /// The most notifications about watches that a session gets within `watch_budget_period`. Default 15.
    pub watch_budget: u32,
    /// The time in which they are counted. Default 10 s.
    pub watch_budget_period: Duration,
    /// How long a session gets no further ones after that. Default 30 s.
    pub watch_pause: Duration,
    /// Time between SIGTERM and SIGKILL when the request does not say. Default 2 s, at most 60 s.
    pub stop_grace: Duration,
    /// How long a sandbox must not be used to be stopped; the next task starts it again. Default 0: never.
    pub sandbox_idle_stop: Duration,
    /// The age from which on an unfinished task does not keep its sandbox from being stopped. Default 24 h.
    pub idle_task_age: Duration,
    /// How long a finished task is kept, counted from its end and its acknowledgement. Default 24 h.
    pub retention: Duration,
    /// How long a finished task is kept whose end no subscriber acknowledges. Default 7 days.
    pub notification_retention: Duration,
    /// The most bytes of a finished task's output that outlive its sandbox. Default 1 MiB, at most 16 MiB; 0: none.
    pub retained_output: usize,
    /// The most requests of one tenant per second; twice as many may come at once. Default 20000.
    pub max_requests_per_second: u32,
    /// The most concurrent calls of one tenant, including streams and waits. Default 20000.
    pub max_calls_per_tenant: u32,
    /// The most concurrent subscriptions of one bot. Default 2048.
    pub max_subscriptions_per_bot: u32,
    /// The most concurrent connections. Default 8192.
    pub max_connections: u32,
    /// The most concurrent connections of one tenant. Default 4096.
    pub max_connections_per_tenant: u32,
    /// How many commands are launched at the same time. Default 8.
    pub launch_concurrency: usize,
    /// How long drained notifications are withheld from other subscribers when the request does not say. Default 60 s, 1 s to 1 h.
    pub lease_duration: Duration,
    /// Patterns of secrets that are masked in texts about tasks. Default: those of well-known tokens.
    pub mask_patterns: Vec<String>,
    /// What is masked in output that callers read. Default: the values of `secret_env`.
    pub mask_reads: MaskReads,
    /// File of the keys that encrypt secrets. Default `None`: `secrets.key` in the data directory. It is made if there is none.
    pub key_file: Option<PathBuf>,
    /// Format of the server's own log lines. Default text.
    pub log_format: LogFormat,
    /// Which of the server's own log lines are written: a filter such as `info` or `errand=debug,info`. Default `info`.
    pub log_level: String,
}

/// The runtime of sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// Docker if its engine answers, else this machine itself. If the store has sandboxes, always the runtime that they belong to.
    Auto,
    /// Containers of a Docker engine.
    Docker,
    /// Sandboxes that the server makes itself.
    Embedded,
}

/// Format of the server's own log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}
