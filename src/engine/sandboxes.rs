//! One sandbox for each bot: made once, found again, and never made twice at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{OwnedMutexGuard, mpsc};

use super::{EngineError, SandboxState, SandboxView};
use crate::{
    bridge::ExecBridge,
    runtime::{CreateSandbox, Found, LABEL_BOT, LABEL_TENANT, Runtime, RuntimeError},
    store::TaskStore,
    task::{BotId, Incarnation, SandboxId, SandboxRecord, SandboxSpec, Task, TenantId},
};

/// For how long a sandbox that was found running is taken to be running still.
const FRESH: Duration = Duration::from_secs(1);
/// The same while there is a connection into it, which its end would break. It may have been paused.
const FRESH_WHILE_CONNECTED: Duration = Duration::from_secs(30);

/// A sandbox in which a command can be launched.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) id: SandboxId,
    pub(super) runtime_id: String,
    pub(super) incarnation: Incarnation,
}

/// What is known of one bot's sandbox. Its lock serializes all that changes it.
#[derive(Default)]
struct Seen {
    place: Option<(Place, Instant)>,
}

type Key = (TenantId, BotId);

/// Keeps the sandboxes.
pub(super) struct SandboxKeeper {
    store: Arc<dyn TaskStore>,
    runtime: Arc<dyn Runtime>,
    bridge: Arc<dyn ExecBridge>,
    default: SandboxSpec,
    seen: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Seen>>>>,
    /// Sandboxes that were found running or were started.
    reached: mpsc::Sender<SandboxRecord>,
}

impl SandboxKeeper {
    pub(super) fn new(
        store: Arc<dyn TaskStore>,
        runtime: Arc<dyn Runtime>,
        bridge: Arc<dyn ExecBridge>,
        default: SandboxSpec,
        reached: mpsc::Sender<SandboxRecord>,
    ) -> Self {
        Self { store, runtime, bridge, default, seen: Mutex::default(), reached }
    }

    /// Says that a sandbox runs, for what waits to be removed in it. Where too many wait, the next sweep comes by.
    fn reach(&self, record: &SandboxRecord) {
        let _ = self.reached.try_send(record.clone());
    }

    fn fresh(&self, place: &Place) -> Duration {
        if self.bridge.is_connected(&place.runtime_id) { FRESH_WHILE_CONNECTED } else { FRESH }
    }

    async fn lock(&self, tenant: &TenantId, bot: &BotId) -> OwnedMutexGuard<Seen> {
        let cell = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(seen.entry((tenant.clone(), bot.clone())).or_default())
        };
        cell.lock_owned().await
    }

    /// A running sandbox for a task of this bot. `spec` says how to make it if there is none.
    pub(super) async fn for_task(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        spec: Option<SandboxSpec>,
    ) -> Result<Place, EngineError> {
        let mut seen = self.lock(tenant, bot).await;
        if let Some((place, at)) = &seen.place
            && at.elapsed() < self.fresh(place)
        {
            return Ok(place.clone());
        }
        seen.place = None;
        let (record, found) = match self.store.sandbox(tenant, bot).await? {
            Some(record) => self.bring_up(record).await?,
            None => self.make(tenant, bot, spec.unwrap_or_else(|| self.default.clone())).await?,
        };
        self.reach(&record);
        let place = Place { id: record.id, runtime_id: record.runtime_id, incarnation: found.incarnation };
        seen.place = Some((place.clone(), Instant::now()));
        Ok(place)
    }

    /// The running sandbox of a task that was accepted before. None when the bot's sandbox is another one now, or none.
    pub(super) async fn for_launch(&self, task: &Task) -> Result<Option<Place>, EngineError> {
        if self.store.sandbox(&task.owner.tenant, &task.owner.bot).await?.is_none_or(|record| record.id != task.sandbox)
        {
            return Ok(None);
        }
        let place = self.for_task(&task.owner.tenant, &task.owner.bot, None).await?;
        Ok((place.id == task.sandbox).then_some(place))
    }

    /// That a sandbox is one of this server's runtime. Another runtime's id would lead nowhere in this one, which is no sign of its end.
    pub(super) fn check(&self, record: &SandboxRecord) -> Result<(), EngineError> {
        if record.runtime == self.runtime.name() {
            return Ok(());
        }
        Err(EngineError::OtherRuntime { name: record.runtime_name.clone(), runtime: record.runtime.clone() })
    }

    /// The runtime's id of a task's sandbox.
    pub(super) async fn runtime_id(&self, task: &Task) -> Result<String, EngineError> {
        match self.store.sandbox(&task.owner.tenant, &task.owner.bot).await? {
            Some(record) if record.id == task.sandbox => {
                self.check(&record)?;
                Ok(record.runtime_id)
            }
            Some(_) | None => Err(EngineError::SandboxNotRunning),
        }
    }

    pub(super) async fn ensure(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        spec: Option<SandboxSpec>,
    ) -> Result<SandboxView, EngineError> {
        let mut seen = self.lock(tenant, bot).await;
        seen.place = None;
        let (record, found) = match self.store.sandbox(tenant, bot).await? {
            Some(record) => {
                let fields = spec.map(|spec| differing(&record.spec, &spec)).unwrap_or_default();
                if !fields.is_empty() {
                    return Err(EngineError::OtherSpec { fields });
                }
                self.bring_up(record).await?
            }
            None => self.make(tenant, bot, spec.unwrap_or_else(|| self.default.clone())).await?,
        };
        self.reach(&record);
        Ok(SandboxView { state: SandboxState::of(&found), record })
    }

    /// Finds the sandbox running, starts it, or makes it again when the runtime has lost it.
    async fn bring_up(&self, record: SandboxRecord) -> Result<(SandboxRecord, Found), EngineError> {
        self.check(&record)?;
        match self.runtime.inspect(&record.runtime_id).await {
            Ok(found) if found.running => Ok((self.complete(record, &found).await?, found)),
            Ok(_) | Err(RuntimeError::NoSuchSandbox { .. }) if record.adopted => {
                Err(EngineError::AdoptedNotRunning { name: record.runtime_name })
            }
            Ok(found) => {
                let found = self.runtime.start(&found.runtime_id).await?;
                Ok((self.complete(record, &found).await?, found))
            }
            // Its making was begun, and nobody knows what came of it: the name is taken again, whatever was left under it.
            Err(RuntimeError::NoSuchSandbox { .. }) if record.runtime_id == record.runtime_name => {
                self.create(record).await
            }
            Err(RuntimeError::NoSuchSandbox { .. }) => {
                tracing::info!(sandbox = %record.id, bot = %record.bot, "the sandbox is gone; making a new one");
                self.bridge.forget(&record.runtime_id);
                self.store.remove_sandbox(&record.tenant, &record.bot).await?;
                self.make(&record.tenant, &record.bot, record.spec).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The intent is stored before anything is made, under a name made of the id: whatever a crash leaves is found again.
    async fn make(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        spec: SandboxSpec,
    ) -> Result<(SandboxRecord, Found), EngineError> {
        let id = SandboxId::new();
        let name = format!("errand-{id}");
        let record = SandboxRecord {
            id,
            tenant: tenant.clone(),
            bot: bot.clone(),
            spec,
            runtime: self.runtime.name().to_owned(),
            runtime_id: name.clone(),
            runtime_name: name,
            adopted: false,
            created_at: SystemTime::now(),
        };
        self.store.put_sandbox(record.clone()).await?;
        self.create(record).await
    }

    async fn create(&self, record: SandboxRecord) -> Result<(SandboxRecord, Found), EngineError> {
        let request = CreateSandbox {
            name: record.runtime_name.clone(),
            id: record.id,
            tenant: record.tenant.clone(),
            bot: record.bot.clone(),
            spec: record.spec.clone(),
        };
        match self.runtime.create(&request).await {
            Ok(found) => {
                tracing::info!(sandbox = %record.id, bot = %record.bot, container = %found, "made a sandbox");
                Ok((self.complete(record, &found).await?, found))
            }
            Err(error) => {
                // Without an answer it may still come into being: the record is kept, so that it is found under its name.
                if !matches!(error, RuntimeError::Unavailable { .. }) {
                    self.store.remove_sandbox(&record.tenant, &record.bot).await?;
                }
                Err(error.into())
            }
        }
    }

    /// Fills in what only the runtime knew.
    async fn complete(&self, mut record: SandboxRecord, found: &Found) -> Result<SandboxRecord, EngineError> {
        if record.runtime_id != found.runtime_id {
            record.runtime_id.clone_from(&found.runtime_id);
            record.runtime_name.clone_from(&found.name);
            self.store.put_sandbox(record.clone()).await?;
        }
        Ok(record)
    }

    pub(super) async fn adopt(
        &self,
        tenant: &TenantId,
        bot: &BotId,
        container: &str,
    ) -> Result<SandboxView, EngineError> {
        let mut seen = self.lock(tenant, bot).await;
        seen.place = None;
        let found = self.runtime.inspect(container).await?;
        if let Some(record) = self.store.sandbox(tenant, bot).await? {
            return if record.runtime_id == found.runtime_id {
                Ok(SandboxView { record, state: SandboxState::of(&found) })
            } else {
                Err(EngineError::OtherSandbox { name: record.runtime_name })
            };
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
            spec: found.spec.clone(),
            runtime: self.runtime.name().to_owned(),
            runtime_id: found.runtime_id.clone(),
            runtime_name: found.name.clone(),
            adopted: true,
            created_at: SystemTime::now(),
        };
        match self.store.put_sandbox(record.clone()).await {
            Err(crate::store::StoreError::Conflict) => Err(EngineError::NotYours),
            result => {
                result?;
                Ok(SandboxView { record, state: SandboxState::of(&found) })
            }
        }
    }

    async fn record(&self, tenant: &TenantId, bot: &BotId) -> Result<SandboxRecord, EngineError> {
        self.store.sandbox(tenant, bot).await?.ok_or_else(|| EngineError::NoSandbox(bot.clone()))
    }

    /// The runtime's id of a bot's sandbox, whether it runs or not.
    pub(super) async fn of_bot(&self, tenant: &TenantId, bot: &BotId) -> Result<String, EngineError> {
        let record = self.record(tenant, bot).await?;
        self.check(&record)?;
        Ok(record.runtime_id)
    }

    async fn look(&self, record: SandboxRecord) -> SandboxView {
        if self.check(&record).is_err() {
            return SandboxView { record, state: SandboxState::Unknown };
        }
        let state = match self.runtime.inspect(&record.runtime_id).await {
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
        Ok(futures_util::future::join_all(records.into_iter().map(|record| self.look(record))).await)
    }

    pub(super) async fn stop(&self, tenant: &TenantId, bot: &BotId) -> Result<SandboxView, EngineError> {
        let mut seen = self.lock(tenant, bot).await;
        seen.place = None;
        let record = self.record(tenant, bot).await?;
        self.check(&record)?;
        if !record.adopted {
            match self.runtime.stop(&record.runtime_id).await {
                Ok(()) | Err(RuntimeError::NoSuchSandbox { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.look(record).await)
    }

    pub(super) async fn delete(&self, tenant: &TenantId, bot: &BotId) -> Result<SandboxId, EngineError> {
        let mut seen = self.lock(tenant, bot).await;
        seen.place = None;
        let record = self.record(tenant, bot).await?;
        self.check(&record)?;
        if !record.adopted {
            self.runtime.remove(&record.runtime_id).await?;
        }
        self.bridge.forget(&record.runtime_id);
        self.store.remove_sandbox(tenant, bot).await?;
        Ok(record.id)
    }
}

/// Names of the fields in which two specifications differ.
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
