//! The table of settings: the single source of the name, the default, the help and the rule of each. The command line, the environment and
//! the file all use it.

use super::{
    Config, LogFormat, RuntimeKind,
    value::{self, Parsed},
};
use errand_engine::MaskReads;
use errand_task::Patterns;
use std::time::Duration;

/// One setting of the server.
#[derive(Debug)]
pub struct Setting {
    /// The flag's name without its dashes, such as `data-dir`.
    pub flag: &'static str,
    /// The placeholder for the value in the help, such as `DIR`.
    pub value_name: &'static str,
    /// The value used when no source gives one. `None`: the setting then has no value.
    pub default: Option<&'static str>,
    /// One line of help.
    pub help: &'static str,
    /// True for a flag that may be given without a value and then means `true`.
    pub switch: bool,
    /// Another program's environment variable, used when neither flag, environment nor file gives a value.
    pub fallback_env: Option<&'static str>,
    /// Parses a text into its field of the configuration, or returns the rule that the text breaks.
    pub(super) apply: fn(&mut Config, &str) -> Parsed<()>,
}

impl Setting {
    const fn new(
        flag: &'static str,
        value_name: &'static str,
        default: Option<&'static str>,
        help: &'static str,
        apply: fn(&mut Config, &str) -> Parsed<()>,
    ) -> Self {
        Self { flag, value_name, default, help, switch: false, fallback_env: None, apply }
    }

    const fn switch(mut self) -> Self {
        self.switch = true;
        self
    }

    const fn or_env(mut self, variable: &'static str) -> Self {
        self.fallback_env = Some(variable);
        self
    }

    /// The key in the settings file, such as `data_dir`.
    pub fn key(&self) -> String {
        self.flag.replace('-', "_")
    }

    /// The environment variable, such as `ERRAND_DATA_DIR`.
    pub fn env(&self) -> String {
        format!("ERRAND_{}", self.key().to_uppercase())
    }
}

/// A setting that assigns the parsed text to the field.
macro_rules! setting {
    ($flag:literal, $value_name:literal, $default:expr, $help:literal, $field:ident, $parse:expr) => {
        Setting::new($flag, $value_name, $default, $help, |config, text| {
            let parse: fn(&str) -> Parsed<_> = $parse;
            config.$field = parse(text)?;
            Ok(())
        })
    };
}

/// Every setting, in the order of the help.
pub static SETTINGS: &[Setting] = &[
    setting!("listen", "ADDR", Some("127.0.0.1:7543"), "Address to listen on", listen, value::socket_addr),
    setting!(
        "data-dir",
        "DIR",
        Some("./errand-data"),
        "Directory of the database and of embedded sandboxes",
        data_dir,
        value::path
    ),
    setting!(
        "runtime",
        "NAME",
        Some("auto"),
        "Where sandboxes live: docker, embedded, or auto: docker if it answers, else embedded",
        runtime,
        |text| {
            let names =
                [("auto", RuntimeKind::Auto), ("docker", RuntimeKind::Docker), ("embedded", RuntimeKind::Embedded)];
            value::one_of(text, &names)
        }
    ),
    setting!(
        "docker-host",
        "URL",
        None,
        "Address of the Docker engine [default: its usual socket]",
        docker_host,
        |text| { value::engine_address(text).map(Some) }
    )
    .or_env("DOCKER_HOST"),
    setting!("tokens-file", "FILE", None, "File with the tokens that clients must send", tokens_file, |text| {
        value::path(text).map(Some)
    }),
    setting!(
        "image",
        "IMAGE",
        None,
        "Image of a new sandbox [default: docker: debian:bookworm-slim, embedded: host]",
        image,
        |text| { value::word(text, "the name of an image").map(Some) }
    ),
    setting!("memory-bytes", "SIZE", Some("2GiB"), "Memory limit of a new sandbox", memory_bytes, value::memory),
    setting!("cpus", "CORES", Some("2"), "CPU limit of a new sandbox", cpus, value::cores),
    setting!("pids-limit", "N", Some("2048"), "The most processes in a new sandbox", pids_limit, |text| {
        value::whole(text, 8..=4_194_304)
    }),
    setting!(
        "network-mode",
        "NETWORK",
        None,
        "Network of a new sandbox [default: bridge if possible, else none]",
        network_mode,
        |text| { value::network(text).map(Some) }
    ),
    setting!(
        "max-memory-bytes",
        "SIZE",
        None,
        "The most memory that a request may ask for [default: 16GiB, or --memory-bytes if that is more]",
        max_memory_bytes,
        |text| { value::memory(text).map(Some) }
    ),
    setting!(
        "max-cpus",
        "CORES",
        None,
        "The most CPU that a request may ask for [default: 16, or --cpus if that is more]",
        max_cpus,
        |text| { value::cores(text).map(Some) }
    ),
    setting!(
        "max-pids-limit",
        "N",
        None,
        "The most processes that a request may ask for [default: 32768, or --pids-limit if that is more]",
        max_pids_limit,
        |text| { value::whole(text, 8..=4_194_304).map(Some) }
    ),
    setting!("disk-bytes", "SIZE", Some("10GiB"), "Disk size of an embedded sandbox", disk_bytes, value::disk),
    setting!(
        "max-sandboxes-per-tenant",
        "N",
        Some("2048"),
        "The most sandboxes of a tenant",
        max_sandboxes_per_tenant,
        |text| value::whole(text, 1..=100_000)
    ),
    setting!(
        "allow-images",
        "PATTERNS",
        Some("*"),
        "Images that a request may ask for, separated by commas",
        allow_images,
        value::patterns
    ),
    setting!(
        "allow-networks",
        "PATTERNS",
        Some("bridge,none"),
        "Networks that a request may ask for, separated by commas",
        allow_networks,
        value::patterns
    ),
    setting!(
        "allow-adopt",
        "BOOL",
        Some("false"),
        "Without a tokens file: let callers adopt any running container",
        allow_adopt,
        value::switch
    )
    .switch(),
    setting!(
        "allow-addresses",
        "RANGES",
        None,
        "Private addresses that sandboxes on the network bridge may reach, such as 10.1.0.0/16 [default: none]",
        allow_addresses,
        value::ranges
    ),
    setting!(
        "task-root",
        "PATH",
        Some("/tmp/errand"),
        "Directory of the task logs in the sandbox",
        task_root,
        value::sandbox_path
    ),
    setting!(
        "stop-tasks-on-exit",
        "BOOL",
        Some("false"),
        "Stop all running tasks when the server ends",
        stop_tasks_on_exit,
        value::switch
    )
    .switch(),
    setting!(
        "max-running-per-bot",
        "N",
        Some("64"),
        "The most unfinished tasks of a bot, not counting those in the queue",
        max_running_per_bot,
        |text| { value::whole(text, 1..=1_000_000) }
    ),
    setting!(
        "max-running-per-tenant",
        "N",
        Some("1024"),
        "The most unfinished tasks of a tenant, not counting those in the queue",
        max_running_per_tenant,
        |text| value::whole(text, 1..=1_000_000)
    ),
    setting!(
        "max-queued-per-bot",
        "N",
        Some("1000"),
        "The most tasks of a bot in the queue",
        max_queued_per_bot,
        |text| { value::whole(text, 0..=1_000_000) }
    ),
    setting!(
        "max-queued-per-tenant",
        "N",
        Some("10000"),
        "The most tasks of a tenant in the queue",
        max_queued_per_tenant,
        |text| value::whole(text, 0..=1_000_000)
    ),
    setting!(
        "max-stored-tasks-per-tenant",
        "N",
        Some("1000000"),
        "The most stored tasks of a tenant, including finished ones",
        max_stored_tasks_per_tenant,
        |text| value::whole(text, 1..=1_000_000_000)
    ),
    setting!(
        "max-stored-bytes-per-tenant",
        "SIZE",
        Some("10GiB"),
        "The most bytes of stored tasks, notifications and retained outputs of a tenant",
        max_stored_bytes_per_tenant,
        |text| value::memory(text).map(i64::unsigned_abs)
    ),
    setting!(
        "max-requests-per-second",
        "N",
        Some("20000"),
        "The most requests of a tenant per second",
        max_requests_per_second,
        |text| value::whole(text, 1..=10_000_000)
    ),
    setting!(
        "max-calls-per-tenant",
        "N",
        Some("20000"),
        "The most calls of a tenant at the same time, including streams and waits",
        max_calls_per_tenant,
        |text| value::whole(text, 1..=1_000_000)
    ),
    setting!(
        "max-subscriptions-per-bot",
        "N",
        Some("2048"),
        "The most subscriptions of a bot at the same time",
        max_subscriptions_per_bot,
        |text| value::whole(text, 1..=1_000_000)
    ),
    setting!("max-connections", "N", Some("8192"), "The most connections at the same time", max_connections, |text| {
        value::whole(text, 1..=1_000_000)
    }),
    setting!(
        "max-connections-per-tenant",
        "N",
        Some("4096"),
        "The most connections of a tenant at the same time",
        max_connections_per_tenant,
        |text| value::whole(text, 1..=1_000_000)
    ),
    setting!(
        "default-timeout",
        "DURATION",
        Some("30m"),
        "How long a command may run if its request sets no timeout",
        default_timeout,
        value::some_duration
    ),
    setting!(
        "max-timeout",
        "DURATION",
        Some("24h"),
        "The longest timeout that a request may ask for",
        max_timeout,
        value::some_duration
    ),
    setting!(
        "stall-after",
        "DURATION",
        Some("45s"),
        "Silence after which a command can count as stalled",
        stall_after,
        value::some_duration
    ),
    setting!(
        "stall-check-interval",
        "DURATION",
        Some("5s"),
        "How often running tasks are checked for a stall",
        stall_check_interval,
        value::some_duration
    ),
    setting!(
        "watch-interval",
        "DURATION",
        Some("15s"),
        "The shortest time between two notifications about matches of one task",
        watch_interval,
        value::some_duration
    ),
    setting!(
        "watch-budget",
        "N",
        Some("15"),
        "The most notifications about watches of a session within --watch-budget-period",
        watch_budget,
        |text| value::whole(text, 1..=1000)
    ),
    setting!(
        "watch-budget-period",
        "DURATION",
        Some("10s"),
        "The time in which these notifications are counted",
        watch_budget_period,
        value::some_duration
    ),
    setting!(
        "watch-pause",
        "DURATION",
        Some("30s"),
        "How long a session gets no further ones after that",
        watch_pause,
        value::some_duration
    ),
    setting!("stop-grace", "DURATION", Some("2s"), "Time between SIGTERM and SIGKILL", stop_grace, |text| {
        value::duration(text, value::SHORTEST..=Duration::from_mins(1))
    }),
    setting!(
        "sandbox-idle-stop",
        "DURATION",
        Some("0s"),
        "How long a sandbox must not be used to be stopped; 0s: never",
        sandbox_idle_stop,
        |text| value::duration(text, Duration::ZERO..=Duration::from_hours(365 * 24))
    ),
    setting!(
        "idle-task-age",
        "DURATION",
        Some("24h"),
        "Age from which on an unfinished task does not keep its sandbox running",
        idle_task_age,
        value::some_duration
    ),
    setting!(
        "retention",
        "DURATION",
        Some("24h"),
        "How long a finished task is kept after its end and its acknowledgement",
        retention,
        value::some_duration
    ),
    setting!(
        "notification-retention",
        "DURATION",
        Some("7d"),
        "How long a finished task is kept whose end nobody acknowledges",
        notification_retention,
        value::some_duration
    ),
    setting!(
        "retained-output",
        "SIZE",
        Some("1MiB"),
        "The most output of a finished task that outlives its sandbox, at most 16MiB; 0: none",
        retained_output,
        value::retained
    ),
    setting!(
        "launch-concurrency",
        "N",
        Some("32"),
        "Commands launched at the same time in one sandbox, and a quarter of those of a tenant",
        launch_concurrency,
        |text| { value::whole(text, 1..=1024) }
    ),
    setting!(
        "lease-duration",
        "DURATION",
        Some("60s"),
        "How long drained notifications are withheld from other callers",
        lease_duration,
        |text| value::duration(text, Duration::from_secs(1)..=Duration::from_hours(1))
    ),
    setting!(
        "mask-patterns",
        "REGEXES",
        Some("default"),
        "Secrets to mask in texts about tasks, one regular expression a line; default: well-known tokens, none: none",
        mask_patterns,
        value::mask_patterns
    ),
    setting!(
        "mask-reads",
        "WHAT",
        Some("values"),
        "What is masked in output that callers read: off, values (of secret_env), all (patterns too)",
        mask_reads,
        |text| value::one_of(text, &MaskReads::CHOICES)
    ),
    setting!(
        "key-file",
        "FILE",
        None,
        "File of the keys that encrypt secrets; made if there is none [default: secrets.key in the data directory]",
        key_file,
        |text| value::path(text).map(Some)
    ),
    setting!(
        "log-format",
        "FORMAT",
        Some("text"),
        "Log lines for people or programs: text, json",
        log_format,
        |text| { value::one_of(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)]) }
    ),
    setting!(
        "log-level",
        "FILTER",
        Some("info"),
        "Filter of the log lines, such as errand=debug,info",
        log_level,
        value::log_filter
    ),
];

impl Default for Config {
    /// Every setting at the default of the table.
    fn default() -> Self {
        // These values are replaced at once by the table's defaults. Only `None` remains.
        let mut config = Self {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: Default::default(),
            runtime: RuntimeKind::Auto,
            docker_host: None,
            tokens_file: None,
            image: None,
            memory_bytes: 0,
            cpus: 0.0,
            pids_limit: 0,
            network_mode: None,
            max_memory_bytes: None,
            max_cpus: None,
            max_pids_limit: None,
            disk_bytes: 0,
            max_sandboxes_per_tenant: 0,
            allow_images: Patterns::all(),
            allow_networks: Patterns::all(),
            allow_adopt: false,
            allow_addresses: Vec::new(),
            task_root: String::new(),
            stop_tasks_on_exit: false,
            max_running_per_bot: 0,
            max_running_per_tenant: 0,
            max_queued_per_bot: 0,
            max_queued_per_tenant: 0,
            max_stored_tasks_per_tenant: 0,
            max_stored_bytes_per_tenant: 0,
            max_requests_per_second: 0,
            max_calls_per_tenant: 0,
            max_subscriptions_per_bot: 0,
            max_connections: 0,
            max_connections_per_tenant: 0,
            default_timeout: Duration::ZERO,
            max_timeout: Duration::ZERO,
            stall_after: Duration::ZERO,
            stall_check_interval: Duration::ZERO,
            watch_interval: Duration::ZERO,
            watch_budget: 0,
            watch_budget_period: Duration::ZERO,
            watch_pause: Duration::ZERO,
            stop_grace: Duration::ZERO,
            sandbox_idle_stop: Duration::ZERO,
            idle_task_age: Duration::ZERO,
            retention: Duration::ZERO,
            notification_retention: Duration::ZERO,
            retained_output: 0,
            launch_concurrency: 0,
            lease_duration: Duration::ZERO,
            mask_patterns: Vec::new(),
            mask_reads: MaskReads::Off,
            key_file: None,
            log_format: LogFormat::Text,
            log_level: String::new(),
        };
        for setting in SETTINGS {
            if let Some(text) = setting.default {
                (setting.apply)(&mut config, text).expect("a default keeps its own rule");
            }
        }
        config
    }
}
