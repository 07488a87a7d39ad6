//! The composition root: builds the server from its settings, runs it, and shuts it down in order.

mod choice;
pub mod diagnostics;

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::{JoinError, JoinHandle},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::{Api, ApiError, Readiness, RequestLimits, Tokens, TokensError},
    config::Config,
    telemetry,
};
use errand_bridge::Bridges;
use errand_engine::notify::Notifier;
use errand_engine::{
    Allowance, Allowances, Engine, EngineError, IdlePolicy, LaunchLimits, MaskPolicies, Settings, WatchSettings,
};
use errand_runtime::Runtimes;
use errand_secrets::{KeyFileError, Vault};
use errand_store::{Caps, SqliteStore, StoreError, TaskStore};
use errand_task::{SandboxBounds, SandboxSpec};

use choice::Chosen;
pub use choice::Obstacle;

/// How many sandboxes of one tenant can launch at their own limit before the tenant's limit is reached.
const SANDBOXES_LAUNCHING: usize = 4;
/// The most bytes of one tenant's tasks in the queue, which the server holds in memory.
const QUEUED_BYTES: u64 = 256 << 20;
/// How long running tasks may take to end when the server stops them.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// How long the whole shutdown may take. Less than the 10 s after which container engines kill a container.
const EXIT_LIMIT: Duration = Duration::from_millis(9500);
/// How much of this is reserved for each later step.
const RESERVE: Duration = Duration::from_millis(400);
/// How long connections may take to close once their streams have ended.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// The most memory of a sandbox unless the settings say otherwise, in bytes.
const MAX_MEMORY: u64 = 16 << 30;
/// The most CPU of a sandbox unless the settings say otherwise, in cores.
const MAX_CPUS: f64 = 16.0;
/// The most processes in a sandbox unless the settings say otherwise.
const MAX_PIDS: u64 = 32_768;

/// Why the server did not start, or ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The tokens file is invalid. Displayed as one line for each problem.
    #[error("{0}")]
    Tokens(TokensError),
    /// The log filter is invalid.
    #[error("invalid log filter {filter:?}")]
    LogLevel {
        /// The configured filter.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The data directory cannot be created.
    #[error("cannot create the data directory {}", path.display())]
    DataDir {
        /// The configured path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(StoreError),
    /// The keys that encrypt secrets cannot be read.
    #[error(transparent)]
    KeyFile(KeyFileError),
    /// No permitted runtime works on this machine.
    #[error("sandboxes cannot be made on this machine\n{}", lines(obstacles))]
    NoRuntime {
        /// The obstacle of each runtime that was tried.
        obstacles: Vec<Obstacle>,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The handlers of the signals that end the server cannot be installed.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// Tasks cannot be reconciled.
    #[error("cannot reconcile the tasks")]
    Recover(#[source] EngineError),
    /// The API failed.
    #[error(transparent)]
    Api(ApiError),
    /// The API panicked.
    #[error("the API panicked")]
    Broken(#[source] JoinError),
}

fn lines(obstacles: &[Obstacle]) -> String {
    obstacles.iter().map(Obstacle::to_string).collect::<Vec<_>>().join("\n")
}

impl ServeError {
    /// True when the error is in the settings.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Tokens(_) | Self::LogLevel { .. } | Self::KeyFile(_) => true,
            Self::DataDir { .. }
            | Self::Store(_)
            | Self::NoRuntime { .. }
            | Self::Listen { .. }
            | Self::Signals(_)
            | Self::Recover(_)
            | Self::Api(_)
            | Self::Broken(_) => false,
        }
    }

    /// The error with its sources, in one line.
    pub fn with_sources(&self) -> String {
        errand_task::error_chain(self)
    }
}

/// Runs the server until a signal ends it.
///
/// # Errors
/// When the server cannot start, or ends without being told to.
pub async fn serve(config: Config) -> Result<(), ServeError> {
    telemetry::init(config.log_format, &config.log_level)
        .map_err(|source| ServeError::LogLevel { filter: config.log_level.clone(), source })?;
    let tokens = config.tokens_file.as_deref().map(Tokens::read).transpose().map_err(ServeError::Tokens)?;
    raise_file_limit();
    // Installed first, so that no signal is lost during start-up.
    let mut ending = Ending::listen(tokens.is_some()).map_err(ServeError::Signals)?;
    let store = open_store(&config).await?;
    let served = serve_with(&config, tokens, Arc::clone(&store), &mut ending).await;
    if served.is_err() {
        store.close().await;
    }
    served
}

async fn serve_with(
    config: &Config,
    tokens: Option<Tokens>,
    store: Arc<dyn TaskStore>,
    ending: &mut Ending,
) -> Result<(), ServeError> {
    let key_file = config.key_file.clone().unwrap_or_else(|| config.data_dir.join("secrets.key"));
    let vault = Vault::open(&key_file).map_err(ServeError::KeyFile)?;
    let chosen = choice::choose(config, store.as_ref()).await?;
    let name = chosen.runtime.name();
    let runtimes = Runtimes::one(Arc::clone(&chosen.runtime));
    let bridges = Bridges::new(runtimes.clone(), &config.task_root);
    let engine = Engine::new(settings(config, &chosen, vault), Arc::clone(&store), runtimes, bridges);
    let listener = listen(config.listen, name).await?;
    let hangup = ending.hangup.take();
    let server = Running::start(config, tokens, engine, store, listener, hangup).await;
    server.until_told(ending, config.stop_tasks_on_exit).await
}

/// The signals that end the server.
struct Ending {
    terminate: Signal,
    interrupt: Signal,
    /// SIGHUP, if it means that the tokens file is reloaded. Otherwise SIGHUP ends the server, as usual.
    hangup: Option<Signal>,
}

impl Ending {
    fn listen(has_tokens: bool) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: has_tokens.then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for the next signal and returns its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Raises the limit of open files: each running task holds a connection to the container engine, so the usual 1024 are too few.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}

async fn open_store(config: &Config) -> Result<Arc<dyn TaskStore>, ServeError> {
    fs::create_dir_all(&config.data_dir)
        .map_err(|source| ServeError::DataDir { path: config.data_dir.clone(), source })?;
    let store = SqliteStore::open(&config.data_dir.join("errand.db")).await.map_err(ServeError::Store)?;
    Ok(Arc::new(store))
}

/// Binds the address and logs it with the runtime. A caller that chose port 0 waits for this log line.
async fn listen(address: SocketAddr, runtime: &str) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let mut stdout = io::stdout().lock();
    let said = writeln!(stdout, "errand {} ({runtime}) listening on {bound}", env!("CARGO_PKG_VERSION"))
        .and_then(|()| stdout.flush());
    if let Err(error) = said {
        tracing::warn!(%error, "standard output cannot be written");
    }
    Ok(listener)
}

/// The specification of a sandbox when a request does not give one.
fn default_sandbox(config: &Config, chosen: &Chosen) -> SandboxSpec {
    SandboxSpec {
        image: config.image.clone().unwrap_or_else(|| chosen.image.to_owned()),
        // The configuration refuses negative numbers.
        memory_bytes: config.memory_bytes.unsigned_abs(),
        cpus: config.cpus,
        pids_limit: config.pids_limit.unsigned_abs(),
        network_mode: config.network_mode.clone().unwrap_or_else(|| chosen.network_mode.to_owned()),
        writable_root: false,
        user: None,
        env: Default::default(),
        idle_stop_after: None,
    }
}

/// The allowance of a tenant without exceptions. It always admits the defaults.
fn usual_allowance(config: &Config, default: &SandboxSpec) -> Allowance {
    let memory = config.max_memory_bytes.map_or(MAX_MEMORY.max(default.memory_bytes), i64::unsigned_abs);
    Allowance {
        sandbox: SandboxBounds {
            memory_bytes: memory,
            cpus: config.max_cpus.unwrap_or_else(|| MAX_CPUS.max(default.cpus)),
            pids_limit: config.max_pids_limit.map_or(MAX_PIDS.max(default.pids_limit), i64::unsigned_abs),
            images: config.allow_images.clone().and(&default.image),
            networks: config.allow_networks.clone().and(&default.network_mode),
        },
        sandboxes: config.max_sandboxes_per_tenant,
    }
}

/// The engine's part of the configuration.
fn settings(config: &Config, chosen: &Chosen, vault: Vault) -> Settings {
    let sandbox = default_sandbox(config, chosen);
    Settings {
        allowances: Allowances::new(usual_allowance(config, &sandbox)),
        sandbox,
        caps: Caps {
            per_bot: config.max_running_per_bot,
            per_tenant: config.max_running_per_tenant,
            queued_per_bot: config.max_queued_per_bot,
            queued_per_tenant: config.max_queued_per_tenant,
            queued_bytes: QUEUED_BYTES,
            stored_tasks: config.max_stored_tasks_per_tenant,
            stored_bytes: config.max_stored_bytes_per_tenant,
        },
        default_timeout: config.default_timeout,
        max_timeout: config.max_timeout,
        stall_after: config.stall_after,
        stall_check_interval: config.stall_check_interval,
        stop_grace: config.stop_grace,
        idle: IdlePolicy {
            stop_after: (!config.sandbox_idle_stop.is_zero()).then_some(config.sandbox_idle_stop),
            task_age: config.idle_task_age,
        },
        retention: config.retention,
        notification_retention: config.notification_retention,
        retained_output: config.retained_output,
        launches: LaunchLimits {
            per_sandbox: config.launch_concurrency,
            per_tenant: SANDBOXES_LAUNCHING * config.launch_concurrency,
        },
        watches: WatchSettings {
            interval: config.watch_interval,
            budget: config.watch_budget,
            budget_period: config.watch_budget_period,
            pause: config.watch_pause,
        },
        masks: MaskPolicies::new(mask_patterns(config), config.mask_reads),
        vault,
    }
}

/// The configuration has compiled these patterns before.
fn mask_patterns(config: &Config) -> errand_masks::Patterns {
    errand_masks::Patterns::new(config.mask_patterns.iter().map(String::as_str)).unwrap_or_default()
}

/// A server that accepts connections.
struct Running {
    engine: Engine,
    store: Arc<dyn TaskStore>,
    readiness: Readiness,
    tracker: TaskTracker,
    /// Cancelled when the server accepts no more connections.
    drain: CancellationToken,
    /// Cancelled when streams and subscriptions must end.
    shutdown: CancellationToken,
    api: JoinHandle<Result<(), ApiError>>,
}

impl Running {
    async fn start(
        config: &Config,
        tokens: Option<Tokens>,
        engine: Engine,
        store: Arc<dyn TaskStore>,
        listener: TcpListener,
        hangup: Option<Signal>,
    ) -> Self {
        let (readiness, tracker) = (Readiness::new().await, TaskTracker::new());
        let (drain, shutdown) = (CancellationToken::new(), CancellationToken::new());
        if let (Some(tokens), Some(file), Some(hangup)) = (&tokens, &config.tokens_file, hangup) {
            let allowances = engine.settings().allowances.clone();
            let masks = engine.settings().masks.clone();
            let changed = move |tokens: &Tokens| {
                allowances.replace(&tokens.tenant_rules());
                masks.replace(&tokens.mask_rules());
            };
            changed(tokens);
            tracker.spawn(tokens.clone().follow(file.clone(), hangup, shutdown.clone(), changed));
        }
        let api = Api {
            engine: engine.clone(),
            notifier: Notifier::new(Arc::clone(&store), shutdown.clone()),
            store: Arc::clone(&store),
            tokens,
            allow_adopt: config.allow_adopt,
            limits: RequestLimits {
                requests_per_second: config.max_requests_per_second,
                calls: config.max_calls_per_tenant,
                subscriptions_per_bot: config.max_subscriptions_per_bot,
                connections: config.max_connections_per_tenant,
            },
            max_connections: config.max_connections,
            readiness: readiness.clone(),
            lease_duration: config.lease_duration,
            tracker: tracker.clone(),
            shutdown: shutdown.clone(),
        };
        let api = tokio::spawn(api.serve(listener, drain.clone()));
        Self { engine, store, readiness, tracker, drain, shutdown, api }
    }

    /// Reconciles and serves until a signal arrives or a part fails, then shuts down.
    async fn until_told(mut self, ending: &mut Ending, stop_tasks: bool) -> Result<(), ServeError> {
        let engine = self.engine.clone();
        let readiness = self.readiness.clone();
        let serving = async {
            engine.recover().await.map_err(ServeError::Recover)?;
            readiness.serving().await;
            tracing::info!("ready");
            std::future::pending::<Result<(), ServeError>>().await
        };
        let result = tokio::select! {
            signal = ending.next() => {
                tracing::info!(signal, "shutting down");
                Ok(())
            }
            failed = serving => failed,
            ended = &mut self.api => match ended {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(ServeError::Api(error)),
                Err(error) => Err(ServeError::Broken(error)),
            },
        };
        self.end(stop_tasks && result.is_ok()).await;
        result
    }

    /// Shuts everything down, each part before the parts that it depends on.
    async fn end(self, stop_tasks: bool) {
        let deadline = Instant::now() + EXIT_LIMIT;
        self.readiness.ending().await;
        self.drain.cancel();
        if stop_tasks {
            self.engine.stop_everything(STOP_LIMIT).await;
        }
        self.shutdown.cancel();
        self.tracker.close();
        let left = async {
            self.engine.leave().await;
            self.tracker.wait().await;
        };
        in_time("supervision", deadline - 2 * RESERVE, left).await;
        if !self.api.is_finished() {
            let goodbye = deadline.min(Instant::now() + GOODBYE_LIMIT + RESERVE) - RESERVE;
            in_time("connections", goodbye, self.api).await;
        }
        in_time("the store", deadline, self.store.close()).await;
    }
}

/// Waits for one part to end, for a bounded time. Cutting a part short here endangers neither commands nor records.
async fn in_time<T>(part: &str, deadline: Instant, end: impl Future<Output = T>) {
    if timeout_at(deadline, end).await.is_err() {
        tracing::warn!(part, "did not end in time and is cut short");
    }
}
