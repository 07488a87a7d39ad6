//! One sandbox per bot: made once, found again later, and never made twice concurrently.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use futures_util::{StreamExt as _, stream};
use tokio::sync::{OwnedMutexGuard, mpsc};

use super::{
    Allowances, EngineError, SandboxState, SandboxView,
    making::{Making, Room},
    sandbox::Sandbox,
};
use errand_bridge::Bridges;
use errand_runtime::{
    Asked, CreateSandbox, Found, LABEL_ADOPT_BOT, LABEL_ADOPT_TENANT, LABEL_BOT, LABEL_TENANT, Runtime, RuntimeError,
    Runtimes, SandboxRef, is_of_this_process,
};
use errand_store::TaskStore;
use errand_task::{BotId, Incarnation, SandboxId, SandboxRecord, SandboxSpec, Task, TenantId};

/// How long a sandbox that was found running is assumed to run still.
const FRESH: Duration = Duration::from_secs(1);
/// The same while the server has a connection into the sandbox, which would break if the sandbox ended. Not longer, because the sandbox may
/// have been paused.
const FRESH_WHILE_CONNECTED: Duration = Duration::from_secs(30);

/// How long a call waits for another call about the same bot's sandbox.
const BUSY_LIMIT: Duration = Duration::from_secs(30);
/// How many sandboxes of a list are inspected concurrently.
const LOOKS: usize = 16;
/// How many bots are remembered before those without a sandbox are forgotten.
const REMEMBERED: usize = 1024;

/// A sandbox in which a command can be launched.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) id: SandboxId,
    pub(super) incarnation: Incarnation,
    pub(super) sandbox: Sandbox,
}

/// What is known of one bot's sandbox. Its lock serializes all changes to that sandbox.
#[derive(Default)]
struct Seen {
    place: Option<(Place, Instant)>,
}

type Key = (TenantId, BotId);
type Cell = Arc<tokio::sync::Mutex<Seen>>;

/// What is known of the sandboxes of all bots.
struct SeenAll {
    cells: HashMap<Key, Cell>,
    /// The number of cells at which those without a sandbox are removed.
    limit: usize,
}

impl SeenAll {
    fn cell(&mut self, key: Key) -> Cell {
        if self.cells.len() >= self.limit {
            // Callers choose bot names freely: a cell that only holds a name must not stay.
            self.cells.retain(|_, cell| {
                Arc::strong_count(cell) > 1 || cell.try_lock().is_ok_and(|seen| seen.place.is_some())
            });
            self.limit = REMEMBERED.max(2 * self.cells.len());
        }
        Arc::clone(self.cells.entry(key).or_default())
    }
}

/// Makes, starts, finds and removes the bots' sandboxes.
pub(super) struct SandboxKeeper {
    store: Arc<dyn TaskStore>,
    runtimes: Runtimes,
    bridges: Bridges,
    default: SandboxSpec,
    allowances: Allowances,
    making: Making,
    seen: Mutex<SeenAll>,
    /// Sandboxes that were found running or were started.
    reached: mpsc::Sender<SandboxRecord>,
}

impl SandboxKeeper {
    pub(super) fn new(
        store: Arc<dyn TaskStore>,
        runtimes: Runtimes,
        bridges: Bridges,
        (default, allowances): (SandboxSpec, Allowances),
        reached: mpsc::Sender<SandboxRecord>,
    ) -> Self {
        let seen = Mutex::new(SeenAll { cells: HashMap::new(), limit: REMEMBERED });
        Self { store, runtimes, bridges, default, allowances, making: Making::new(), seen, reached }
    }

    /// Announces a running sandbox, so that pending removals in it are done. If the queue is full, the next sweep does them.
    fn reach(&self, record: &SandboxRecord) {
        let _ = self.reached.try_send(record.clone());
    }

    fn fresh(&self, place: &Place) -> Duration {
        if place.sandbox.bridge.is_connected() { FRESH_WHILE_CONNECTED } else { FRESH }
    }

    /// Waits until no other call changes the bot's sandbox. The wait is bounded, because making a sandbox can take long.
    async fn lock(&self, tenant: &TenantId, bot: &BotId) -> Result<OwnedMutexGuard<Seen>, EngineError> {
        let cell = self.seen.lock().unwrap_or_else(PoisonError::into_inner).cell((tenant.clone(), bot.clone()));
        let locked = tokio::time::timeout(BUSY_LIMIT, cell.lock_owned()).await;
        locked.map_err(|_| EngineError::SandboxBusy(bot.clone()))
    }

    /// The specification of a sandbox when the request gives none.
    fn usual(&self, tenant: &TenantId) -> SandboxSpec {
        self.allowances.of(tenant).sandbox.fit(&self.default)
    }

    /// Returns a running sandbox for a new task of this bot. `spec` says how to make it if there is none.
    pub(super) async fn for_task(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        spec: Option<SandboxSpec>,
    ) -> Result<Place, EngineError> {
        let mut seen = self.lock(tenant, bot).await?;
        if let Some((place, at)) = &seen.place
            && at.elapsed() < self.fresh(place)
        {
            return Ok(place.clone());
        }
        seen.place = None;
        let (record, found) = match self.store.sandbox(tenant, bot).await? {
            Some(record) => self.bring_up(record).await?,
            None => self.make(tenant, bot, spec.unwrap_or_else(|| self.usual(tenant)), None).await?,
        };
        self.reach(&record);
        let place = self.place(&record, found.incarnation)?;
        seen.place = Some((place.clone(), Instant::now()));
        Ok(place)
    }

    /// Returns the running sandbox of a task that was already accepted. None when the bot now has another sandbox, or none.
    pub(super) async fn for_launch(&self, task: &Task) -> Result<Option<Place>, EngineError> {
        if self.store.sandbox(&task.owner.tenant, &task.owner.bot).await?.is_none_or(|record| record.id != task.sandbox)
        {
            return Ok(None);
        }
        let place = match self.for_task(&task.owner.tenant, &task.owner.bot, None).await {
            // The task was already accepted, so its launch waits instead of failing.
            Err(error @ (EngineError::SandboxBusy(_) | EngineError::TooManyAtOnce { .. })) => {
                return Err(RuntimeError::Unavailable { detail: error.to_string() }.into());
            }
            place => place?,
        };
        Ok((place.id == task.sandbox).then_some(place))
    }

    /// The runtime of a stored sandbox. No other runtime would find the sandbox, and that must not look like the sandbox's end.
    ///
    /// # Errors
    /// [`EngineError::OtherRuntime`] when the server does not offer that runtime.
    pub(super) fn runtime_of(&self, record: &SandboxRecord) -> Result<&Arc<dyn Runtime>, EngineError> {
        self.runtimes.named(&record.runtime).map_err(|_| other_runtime(record))
    }

    /// The handle of a stored sandbox.
    ///
    /// # Errors
    /// [`EngineError::OtherRuntime`] when the server does not offer the sandbox's runtime.
    pub(super) fn handle(&self, record: &SandboxRecord) -> Result<Sandbox, EngineError> {
        Sandbox::new(&self.runtimes, &self.bridges, SandboxRef::of(record)).map_err(|_| other_runtime(record))
    }

    /// The handle of a sandbox that has no record any more. No runtime knows a sandbox by this name, so every call fails with
    /// [`RuntimeError::NoSuchSandbox`].
    pub(super) fn without_record(&self, id: SandboxId) -> Result<Sandbox, EngineError> {
        let name = SandboxRef::new(self.runtimes.default().name(), &id.to_string());
        let sandbox = Sandbox::new(&self.runtimes, &self.bridges, name).map_err(|_| EngineError::SandboxNotRunning)?;
        self.bridges.forget(&sandbox.name);
        Ok(sandbox)
    }

    fn place(&self, record: &SandboxRecord, incarnation: Incarnation) -> Result<Place, EngineError> {
        let name = SandboxRef::of(record).seen_in(incarnation.clone());
        let sandbox = Sandbox::new(&self.runtimes, &self.bridges, name).map_err(|_| other_runtime(record))?;
        Ok(Place { id: record.id, incarnation, sandbox })
    }

    /// The sandbox of a task.
    pub(super) async fn of_task(&self, task: &Task) -> Result<Sandbox, EngineError> {
        match self.store.sandbox(&task.owner.tenant, &task.owner.bot).await? {
            Some(record) if record.id == task.sandbox => self.handle(&record),
            Some(_) | None => Err(EngineError::SandboxNotRunning),
        }
    }

    /// Returns the bot's sandbox, running: makes it, starts it or finds it.
    pub(super) async fn ensure(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        spec: Option<SandboxSpec>,
    ) -> Result<(SandboxView, Place), EngineError> {
        let mut seen = self.lock(tenant, bot).await?;
        seen.place = None;
        let (record, found) = match self.store.sandbox(tenant, bot).await? {
            Some(mut record) => {
                let idle_stop_after = spec.as_ref().and_then(|spec| spec.idle_stop_after);
                let fields = spec.map(|spec| differing(&record.spec, &spec)).unwrap_or_default();
                if !fields.is_empty() {
                    return Err(EngineError::OtherSpec { fields });
                }
                // The idle time is the server's business, not the sandbox's: it can change.
                if let Some(idle_stop_after) = idle_stop_after
                    && record.spec.idle_stop_after != Some(idle_stop_after)
                {
                    record.spec.idle_stop_after = Some(idle_stop_after);
                    self.store.put_sandbox(record.clone()).await?;
                }
                self.bring_up(record).await?
            }
            None => self.make(tenant, bot, spec.unwrap_or_else(|| self.usual(tenant)), None).await?,
        };
        self.reach(&record);
        let state = SandboxState::of(&found);
        let place = self.place(&record, found.incarnation)?;
        Ok((SandboxView { record, state }, place))
    }

    /// Finds the sandbox running, starts it, or makes it again if the runtime has lost it.
    async fn bring_up(&self, record: SandboxRecord) -> Result<(SandboxRecord, Found), EngineError> {
        let runtime = self.runtime_of(&record)?;
        match runtime.inspect(&record.runtime_id).await {
            Ok(found) if found.running => Ok((self.complete(record, &found).await?, found)),
            Ok(_) | Err(RuntimeError::NoSuchSandbox { .. }) if record.adopted => {
                Err(EngineError::AdoptedNotRunning { name: record.runtime_name })
            }
            Ok(found) => {
                let _room = self.making.room(&record.tenant).await?;
                let found = runtime.start(&found.runtime_id).await?;
                Ok((self.complete(record, &found).await?, found))
            }
            // An earlier attempt to make it has an unknown result: use the same name again, and take over whatever exists under it.
            Err(RuntimeError::NoSuchSandbox { .. }) if record.runtime_id == record.runtime_name => {
                let room = self.making.room(&record.tenant).await?;
                self.create(record, room).await
            }
            Err(RuntimeError::NoSuchSandbox { .. }) => {
                tracing::info!(sandbox = %record.id, bot = %record.bot, "the sandbox is gone; making a new one");
                self.make(&record.tenant, &record.bot, record.spec.clone(), Some(&record)).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stores the intent before anything is made, under a name derived from the id, so that whatever a crash leaves behind is found again.
    /// `gone` is the record that the new one replaces.
    async fn make(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        spec: SandboxSpec,
        gone: Option<&SandboxRecord>,
    ) -> Result<(SandboxRecord, Found), EngineError> {
        let allowance = self.allowances.of(tenant);
        // Requests were validated before. A sandbox that is made again may exceed the tenant's current allowance.
        if let Some((field, rule)) = allowance.sandbox.broken_by(&spec).into_iter().next() {
            return Err(EngineError::OutOfBounds { field, rule });
        }
        let room = self.making.room(tenant).await?;
        if let Some(gone) = gone {
            self.bridges.forget(&SandboxRef::of(gone));
            self.store.remove_sandbox(tenant, bot).await?;
        }
        let id = SandboxId::new();
        let name = format!("errand-{id}");
        let record = SandboxRecord {
            id,
            tenant: tenant.clone(),
            bot: bot.clone(),
            spec,
            runtime: self.runtimes.default().name().to_owned(),
            runtime_id: name.clone(),
            runtime_name: name,
            adopted: false,
            created_at: SystemTime::now(),
        };
        self.add(record.clone()).await?;
        self.create(record, room).await
    }

    /// Stores a new sandbox, within the tenant's limit.
    async fn add(&self, record: SandboxRecord) -> Result<(), EngineError> {
        let limit = self.allowances.of(&record.tenant).sandboxes;
        let _alone = self.making.counting(&record.tenant).await;
        let has = self.store.sandboxes(Some(&record.tenant), None, limit).await?.len();
        if u32::try_from(has).is_ok_and(|has| has < limit) {
            self.store.put_sandbox(record).await.map_err(EngineError::from)
        } else {
            Err(EngineError::TooManySandboxes { limit })
        }
    }

    async fn create(&self, record: SandboxRecord, _room: Room) -> Result<(SandboxRecord, Found), EngineError> {
        let request = CreateSandbox {
            name: record.runtime_name.clone(),
            id: record.id,
            tenant: record.tenant.clone(),
            bot: record.bot.clone(),
            spec: record.spec.clone(),
            asked: Asked::of(&record.spec, &self.usual(&record.tenant)),
        };
        match self.runtime_of(&record)?.create(&request).await {
            Ok(found) => {
                tracing::info!(sandbox = %record.id, bot = %record.bot, container = %found, "made a sandbox");
                Ok((self.complete(record, &found).await?, found))
            }
            Err(error) => {
                // Without an answer from the runtime the sandbox may still come into being: keep the record, so that the sandbox is found
                // under its name.
                if !matches!(error, RuntimeError::Unavailable { .. }) {
                    self.store.remove_sandbox(&record.tenant, &record.bot).await?;
                }
                Err(error.into())
            }
        }
    }

    /// Completes the record with what only the runtime knew.
    async fn complete(&self, mut record: SandboxRecord, found: &Found) -> Result<SandboxRecord, EngineError> {
        if record.runtime_id != found.runtime_id {
            record.runtime_id.clone_from(&found.runtime_id);
            record.runtime_name.clone_from(&found.name);
            self.store.put_sandbox(record.clone()).await?;
        }
        Ok(record)
    }

    /// Takes a running container as the bot's sandbox. The container's labels must name its tenant; with `any`, a container without such
    /// labels is accepted too.
    pub(super) async fn adopt(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        container: &str,
        any: bool,
    ) -> Result<SandboxView, EngineError> {
        let mut seen = self.lock(tenant, bot).await?;
        seen.place = None;
        let refusal = || EngineError::NotAdoptable {
            container: container.to_owned(),
            label: LABEL_ADOPT_TENANT,
            tenant: tenant.clone(),
            bot_label: LABEL_ADOPT_BOT,
            bot: bot.clone(),
        };
        let found = match self.runtimes.default().inspect(container).await {
            Ok(found) => found,
            Err(RuntimeError::NoSuchSandbox { .. } | RuntimeError::Refused { .. }) => return Err(refusal()),
            Err(error) => return Err(error.into()),
        };
        let had = self.store.sandbox(tenant, bot).await?;
        if let Some(record) = had.as_ref().filter(|record| record.runtime_id == found.runtime_id) {
            return Ok(SandboxView { record: record.clone(), state: SandboxState::of(&found) });
        }
        if !(any || is_meant_for(&found, tenant, bot)) || is_of_this_process(&found.runtime_id) {
            return Err(refusal());
        }
        if let Some(record) = had {
            return Err(EngineError::OtherSandbox { name: record.runtime_name });
        }
        if !found.running {
            return Err(RuntimeError::NotRunning { id: container.to_owned() }.into());
        }
        if found.labels.contains_key(LABEL_TENANT) || found.labels.contains_key(LABEL_BOT) {
            return Err(EngineError::NotYours);
        }
        let record = SandboxRecord {
            id: SandboxId::new(),
            tenant: tenant.clone(),
            bot: bot.clone(),
            // The container's environment may hold its makers' secrets, and the server has no need to know them.
            spec: SandboxSpec { env: Default::default(), ..found.spec.clone() },
            runtime: self.runtimes.default().name().to_owned(),
            runtime_id: found.runtime_id.clone(),
            runtime_name: found.name.clone(),
            adopted: true,
            created_at: SystemTime::now(),
        };
        match self.add(record.clone()).await {
            Err(EngineError::Store(errand_store::StoreError::Conflict)) => Err(EngineError::NotYours),
            result => {
                result?;
                Ok(SandboxView { record, state: SandboxState::of(&found) })
            }
        }
    }

    async fn record(&self, tenant: &TenantId, bot: &BotId) -> Result<SandboxRecord, EngineError> {
        self.store.sandbox(tenant, bot).await?.ok_or_else(|| EngineError::NoSandbox(bot.clone()))
    }

    /// A bot's sandbox, whether it runs or not.
    pub(super) async fn of_bot(&self, tenant: &TenantId, bot: &BotId) -> Result<Sandbox, EngineError> {
        self.handle(&self.record(tenant, bot).await?)
    }

    async fn look(&self, record: SandboxRecord) -> SandboxView {
        let Ok(runtime) = self.runtime_of(&record) else {
            return SandboxView { record, state: SandboxState::Unknown };
        };
        let state = match runtime.inspect(&record.runtime_id).await {
            Ok(found) => SandboxState::of(&found),
            Err(RuntimeError::NoSuchSandbox { .. }) => SandboxState::Gone,
            Err(error) => {
                tracing::debug!(sandbox = %record.id, %error, "a sandbox could not be looked at");
                SandboxState::Unknown
            }
        };
        SandboxView { record, state }
    }

    pub(super) async fn view(&self, tenant: &TenantId, bot: &BotId) -> Result<SandboxView, EngineError> {
        Ok(self.look(self.record(tenant, bot).await?).await)
    }

    pub(super) async fn list(
        &self,
        tenant: &TenantId,
        after: Option<SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxView>, EngineError> {
        let records = self.store.sandboxes(Some(tenant), after, limit).await?;
        Ok(stream::iter(records.into_iter().map(|record| self.look(record))).buffered(LOOKS).collect().await)
    }

    pub(super) async fn stop(&self, tenant: &TenantId, bot: &BotId) -> Result<SandboxView, EngineError> {
        let mut seen = self.lock(tenant, bot).await?;
        seen.place = None;
        let record = self.record(tenant, bot).await?;
        let runtime = self.runtime_of(&record)?;
        if !record.adopted {
            let _room = self.making.room(tenant).await?;
            match runtime.stop(&record.runtime_id).await {
                Ok(()) | Err(RuntimeError::NoSuchSandbox { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.look(record).await)
    }

    /// Stops a sandbox if `is_unused` holds while no other call changes it. False when it is used, or does not run.
    pub(super) async fn stop_unused(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        is_unused: impl Fn() -> bool,
    ) -> Result<bool, EngineError> {
        let mut seen = self.lock(tenant, bot).await?;
        if !is_unused() {
            return Ok(false);
        }
        seen.place = None;
        let record = self.record(tenant, bot).await?;
        let runtime = self.runtime_of(&record)?;
        match runtime.inspect(&record.runtime_id).await {
            Ok(found) if found.running && !record.adopted => {
                let _room = self.making.room(tenant).await?;
                runtime.stop(&record.runtime_id).await?;
                Ok(true)
            }
            // It counts as stopped until it is used again.
            Ok(_) | Err(RuntimeError::NoSuchSandbox { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn delete(&self, tenant: &TenantId, bot: &BotId) -> Result<SandboxId, EngineError> {
        let mut seen = self.lock(tenant, bot).await?;
        seen.place = None;
        let record = self.record(tenant, bot).await?;
        let runtime = self.runtime_of(&record)?;
        if !record.adopted {
            let _room = self.making.room(tenant).await?;
            runtime.remove(&record.runtime_id).await?;
        }
        self.bridges.forget(&SandboxRef::of(&record));
        self.store.remove_sandbox(tenant, bot).await?;
        Ok(record.id)
    }
}

fn other_runtime(record: &SandboxRecord) -> EngineError {
    EngineError::OtherRuntime { name: record.runtime_name.clone(), runtime: record.runtime.clone() }
}

/// Whether a container's labels say that this bot may adopt it.
fn is_meant_for(found: &Found, tenant: &TenantId, bot: &BotId) -> bool {
    let is = |label: &str, name: &str| found.labels.get(label).map(|value| value == name);
    is(LABEL_ADOPT_TENANT, tenant.as_str()) == Some(true) && is(LABEL_ADOPT_BOT, bot.as_str()) != Some(false)
}

/// The names of the fields in which two specifications differ.
fn differing(has: &SandboxSpec, asked: &SandboxSpec) -> Vec<&'static str> {
    [
        ("image", has.image != asked.image),
        ("memory_bytes", has.memory_bytes != asked.memory_bytes),
        ("cpus", (has.cpus - asked.cpus).abs() > 1e-6),
        ("pids_limit", has.pids_limit != asked.pids_limit),
        ("network_mode", has.network_mode != asked.network_mode),
        ("writable_root", has.writable_root != asked.writable_root),
        ("user", has.user != asked.user),
        ("env", has.env != asked.env),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}
