//! The handle of one sandbox: its name, its runtime and its bridge.

use std::sync::Arc;

use errand_bridge::{Bridges, SandboxBridge};
use errand_runtime::{FileAtRest, Found, Runtime, RuntimeError, Runtimes, SandboxRef, UnknownRuntime};

/// A sandbox as the engine uses it. A task gets it once. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sandbox {
    pub(super) name: SandboxRef,
    pub(super) bridge: Arc<dyn SandboxBridge>,
    runtime: Arc<dyn Runtime>,
}

impl Sandbox {
    /// Finds the runtime and the bridge of a sandbox.
    ///
    /// # Errors
    /// [`UnknownRuntime`] when the server does not offer the sandbox's runtime.
    pub(super) fn new(runtimes: &Runtimes, bridges: &Bridges, name: SandboxRef) -> Result<Self, UnknownRuntime> {
        let runtime = Arc::clone(runtimes.named(&name.runtime)?);
        Ok(Self { bridge: bridges.bridge(&name)?, name, runtime })
    }

    /// As [`Runtime::inspect`].
    pub(super) async fn inspect(&self) -> Result<Found, RuntimeError> {
        self.runtime.inspect(&self.name.id).await
    }

    /// As [`Runtime::memory_kills`].
    pub(super) fn memory_kills(&self) -> Option<u64> {
        self.runtime.memory_kills(&self.name.id)
    }

    /// As [`Runtime::read_at_rest`].
    pub(super) async fn read_at_rest(&self, path: &str, limit: usize) -> Result<Option<FileAtRest>, RuntimeError> {
        self.runtime.read_at_rest(&self.name.id, path, limit).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::time::Duration;

    use super::*;
    use crate::{Allowance, Allowances, Engine, EngineError, LaunchLimits, SandboxState, Settings};
    use errand_runtime::{CreateSandbox, fake::FakeRuntime};
    use errand_store::{
        SqliteStore, TaskStore,
        conformance::fixtures::{self, NO_CAPS, bot, owner, tenant},
    };
    use errand_task::{Event, Patterns, SandboxBounds, SandboxRecord, Status};

    fn settings() -> Settings {
        let bounds = SandboxBounds {
            memory_bytes: 1 << 40,
            cpus: 100.0,
            pids_limit: 1000,
            images: Patterns::all(),
            networks: Patterns::all(),
        };
        let second = Duration::from_secs(1);
        Settings {
            sandbox: fixtures::sandbox("t", "any").spec,
            allowances: Allowances::new(Allowance { sandbox: bounds, sandboxes: 10 }),
            caps: NO_CAPS,
            default_timeout: second,
            max_timeout: second,
            stall_after: second,
            stall_check_interval: second,
            stop_grace: second,
            idle: crate::IdlePolicy { stop_after: None, task_age: Duration::from_secs(3600) },
            retention: second,
            notification_retention: second,
            retained_output: 0,
            launches: LaunchLimits { per_sandbox: 1, per_tenant: 1 },
            watches: Default::default(),
            masks: crate::MaskPolicies::new(Default::default(), Default::default()),
            vault: errand_secrets::Vault::ephemeral().unwrap(),
        }
    }

    fn engine(store: &Arc<dyn TaskStore>, runtimes: &Runtimes) -> Engine {
        let bridges = Bridges::new(runtimes.clone(), "/tmp/errand");
        Engine::new(settings(), Arc::clone(store), runtimes.clone(), bridges)
    }

    /// A stored sandbox of the bot `old`, which this runtime has made.
    async fn made(store: &Arc<dyn TaskStore>, runtime: &FakeRuntime) -> SandboxRecord {
        let mut record = fixtures::sandbox("t", "old");
        let request = CreateSandbox {
            name: record.runtime_name.clone(),
            id: record.id,
            tenant: record.tenant.clone(),
            bot: record.bot.clone(),
            spec: record.spec.clone(),
            asked: Default::default(),
        };
        record.runtime = runtime.name().to_owned();
        record.runtime_id = runtime.create(&request).await.unwrap().runtime_id;
        store.put_sandbox(record.clone()).await.unwrap();
        record
    }

    #[tokio::test]
    async fn each_sandbox_is_served_by_its_own_runtime() {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn TaskStore> = Arc::new(SqliteStore::open(&directory.path().join("db")).await.unwrap());
        let (first, second) = (FakeRuntime::named("first"), FakeRuntime::named("second"));
        let old = made(&store, &second).await;
        let runtimes = Runtimes::new(first.clone(), [second.clone() as Arc<dyn Runtime>]);
        let engine = engine(&store, &runtimes);

        let new = engine.ensure_sandbox(tenant("t"), bot("new"), None).await.unwrap();
        assert_eq!((new.record.runtime.as_str(), new.state), ("first", SandboxState::Running));
        assert_eq!((first.ids(), second.ids()), (vec![new.record.runtime_id], vec![old.runtime_id.clone()]));

        let stopped = engine.stop_sandbox(tenant("t"), bot("old")).await.unwrap();
        assert_eq!((stopped.record, stopped.state), (old.clone(), SandboxState::Stopped));
        let again = engine.ensure_sandbox(tenant("t"), bot("old"), None).await.unwrap();
        assert_eq!((again.record.id, again.state), (old.id, SandboxState::Running));
        engine.delete_sandbox(tenant("t"), bot("old")).await.unwrap();
        assert_eq!((first.ids().len(), second.ids()), (1, vec![]));
    }

    #[tokio::test]
    async fn tasks_of_an_unknown_runtime_are_not_lost() {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn TaskStore> = Arc::new(SqliteStore::open(&directory.path().join("db")).await.unwrap());
        let old = made(&store, &FakeRuntime::named("second")).await;
        let mut task = fixtures::task(&owner("t", "old", "session"));
        task.sandbox = old.id;
        task.apply(Event::LaunchBegan { incarnation: errand_task::Incarnation("life".to_owned()) });
        let task = fixtures::create(&*store, task).await;

        let engine = engine(&store, &Runtimes::one(FakeRuntime::named("first")));
        let refused = |error: EngineError| {
            assert!(matches!(&error, EngineError::OtherRuntime { runtime, .. } if runtime == "second"), "{error}");
            assert!(error.to_string().contains("start the server with --runtime second"), "{error}");
        };
        refused(engine.recover().await.unwrap_err());
        refused(engine.ensure_sandbox(tenant("t"), bot("old"), None).await.unwrap_err());
        assert_eq!(engine.sandbox(&tenant("t"), &bot("old")).await.unwrap().state, SandboxState::Unknown);
        engine.leave().await;
        let stored = store.task(&task.owner.tenant, task.id).await.unwrap().unwrap();
        assert_eq!(stored.status(), Status::Starting);
    }
}
