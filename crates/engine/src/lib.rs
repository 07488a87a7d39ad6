//! The engine: starts, supervises, stops and recovers tasks, and provides the sandboxes that they need.
//!
//! [`Engine`] is what the API calls. Each unfinished task has one supervisor, and only that supervisor changes the task's record. Callers
//! reach the supervisor through the task's [`live::LiveTask`]. The engine knows neither the wire types nor SQL nor any container engine.

mod alerts;
mod allowances;
mod breakdown;
mod error;
mod feed;
mod files;
mod idle;
mod input;
mod late;
mod listening;
mod live;
mod making;
mod masking;
pub mod notify;
mod output;
mod permits;
mod queue;
mod reconciling;
mod recovery;
mod requests;
mod retained;
mod retention;
mod sandbox;
mod sandboxes;
mod scanning;
mod settings;
mod stream;
mod supervision;
mod supervisor;
mod verdict;
mod waiting;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use errand_bridge::Bridges;
use errand_runtime::{Runtimes, SandboxRef};
use errand_store::TaskStore;
use errand_task::{SandboxRecord, Task, TaskId, TaskState, TenantId};

pub use allowances::{Allowance, Allowances, TenantRules};
pub use errand_bridge::{
    Abandoned, BridgeState, FileChanges, FileContent, FileReader, FileSource, OutputPiece, PackedPiece, ScannedLog,
};
pub use errand_watching::check as check_watch;
pub use error::EngineError;
pub use feed::{TaskEvent, TaskWatch, WatchCursor, WatchItem, WatchQuery};
pub use files::FileRef;
pub use idle::{ActiveBot, IdlePolicy};
pub use input::{InputRequest, InputResult};
pub use masking::{MaskPolicies, MaskReads, MaskRules};
pub use permits::LaunchLimits;
pub use requests::{OutputSlice, ReadSelection, SandboxState, SandboxView, StartRequest, Started, TaskRef};
pub use settings::{Settings, WatchSettings};
pub use stream::{OutputStream, StreamItem};
pub use waiting::{OutputMatch, OutputPattern, PatternError, WaitRequest, WaitResult, Waited};

use alerts::Budgets;
use feed::Feed;
use idle::Activity;
use late::Lives;
use listening::Listeners;
use live::LiveTask;
use permits::{LaunchPermits, Pool};
use queue::Queue;
use reconciling::Reconciling;
use retention::Retention;
use sandboxes::SandboxKeeper;
use waiting::SearchPermits;

/// How many scans of logs a tenant has at the same time. Each holds about 1 MiB.
const SCANS: usize = 4;

/// Runs tasks. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What every part of the engine shares.
struct Inner {
    settings: Settings,
    store: Arc<dyn TaskStore>,
    bridges: Bridges,
    sandboxes: SandboxKeeper,
    retention: Retention,
    /// The unfinished tasks. A task is added before it is committed, and removed after its end is committed.
    live: Mutex<HashMap<TaskId, Arc<LiveTask>>>,
    launches: LaunchPermits,
    /// How sandboxes are used.
    activity: Arc<Activity>,
    /// The tasks that wait until their bot and tenant have room.
    queue: Queue,
    /// The bots whose tasks this server has not reconciled yet.
    reconciling: Reconciling,
    /// Which incarnations of sandboxes were examined for late results.
    lives: Lives,
    /// What happens to tasks, for screens.
    feed: Feed,
    /// The sandboxes that calls wait for a port of.
    listeners: Listeners,
    /// Who may search output on a thread of its own.
    searches: SearchPermits,
    /// Who may scan a log for lines.
    scans: Pool<TenantId>,
    /// How often sessions are told of matches.
    budgets: Arc<Budgets>,
    /// How many times a part of the engine panicked and was started again.
    breakdowns: AtomicU64,
    /// Every spawned tokio task: supervisors, requests that run to completion, retention.
    tracker: TaskTracker,
    /// Cancelled when supervisors must end and leave their commands running.
    leave: CancellationToken,
}

impl Inner {
    fn live(&self, id: TaskId) -> Option<Arc<LiveTask>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn enter(&self, id: TaskId, live: &Arc<LiveTask>) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(live));
    }

    fn remove_live(&self, id: TaskId) {
        let removed = self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(live) = removed {
            let (tenant, bot) = live.owner();
            self.activity.touch(&tenant, &bot);
        }
    }

    /// How long a task that waits for room has waited, by the time that has really passed; zero for any other.
    async fn waited(&self, task: &Task) -> Duration {
        if task.state != TaskState::AwaitingRoom {
            return Duration::ZERO;
        }
        match self.store.age(task.created_at).await {
            Ok(waited) => waited,
            Err(error) => {
                tracing::error!(%error, task = %task.id, "how long a task has waited is not known; it may wait again");
                Duration::ZERO
            }
        }
    }

    fn all_live(&self) -> Vec<Arc<LiveTask>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Engine {
    /// Builds an engine from these parts. Nothing runs before [`Engine::recover`] is called.
    pub fn new(settings: Settings, store: Arc<dyn TaskStore>, runtimes: Runtimes, bridges: Bridges) -> Self {
        let (retention, reached) = Retention::new();
        let sandboxes = SandboxKeeper::new(
            Arc::clone(&store),
            runtimes,
            bridges.clone(),
            (settings.sandbox.clone(), settings.allowances.clone()),
            reached,
        );
        let launches = LaunchPermits::new(settings.launches);
        let budgets = Arc::new(Budgets::new(settings.watches));
        Self {
            inner: Arc::new(Inner {
                settings,
                store,
                bridges,
                sandboxes,
                retention,
                live: Mutex::default(),
                launches,
                activity: Activity::new(),
                queue: Queue::default(),
                reconciling: Reconciling::default(),
                lives: Lives::default(),
                feed: Feed::default(),
                listeners: Listeners::default(),
                searches: SearchPermits::default(),
                scans: Pool::new(SCANS),
                budgets,
                breakdowns: AtomicU64::new(0),
                tracker: TaskTracker::new(),
                leave: CancellationToken::new(),
            }),
        }
    }

    /// The settings that requests are validated against.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Which kind of bridge a sandbox has. None when this server has not used the sandbox yet.
    pub fn bridge_state(&self, sandbox: &SandboxRecord) -> Option<BridgeState> {
        self.inner.bridges.state(&SandboxRef::of(sandbox))
    }

    /// Runs `work` to completion even when the caller is dropped: a request that is cut short would leave half-done changes.
    async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        match self.inner.tracker.spawn(work).await {
            Ok(result) => result,
            Err(error) => {
                let reason = error.try_into_panic().map_or_else(|error| error.to_string(), breakdown::panic_message);
                self.inner.broke_down("a request", &reason);
                Err(EngineError::Defect)
            }
        }
    }

    /// Ends supervision and leaves the commands running; the next server takes them over. New requests are refused.
    pub async fn leave(&self) {
        self.inner.leave.cancel();
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
    }

    /// Stops every unfinished task. Returns after at most `limit`.
    pub async fn stop_everything(&self, limit: Duration) {
        use errand_task::StopCause;
        let live = self.inner.all_live();
        tracing::info!(tasks = live.len(), "stopping all tasks");
        for task in &live {
            task.stop(StopCause::ServerShutdown, self.inner.settings.stop_grace);
        }
        let all = futures_util::future::join_all(live.iter().map(|task| task.finished()));
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(?limit, "some tasks have not ended in time; the next start goes on stopping them");
        }
    }
}
