//! Gives each sandbox its bridge.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{BridgeState, SandboxBridge, chosen::ChosenBridge};
use errand_runtime::{Runtimes, SandboxRef, UnknownRuntime};
use errand_task::Incarnation;

/// The bridges of all sandboxes. A sandbox has one bridge, which all of its tasks share, until the sandbox is forgotten or is seen in
/// another incarnation. Cheap to clone.
#[derive(Clone)]
pub struct Bridges {
    runtimes: Runtimes,
    root: Arc<str>,
    known: Arc<Known>,
}

/// The runtime's name and its id of a sandbox.
type Key = (Arc<str>, Arc<str>);

/// The bridges that exist.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<Key, Entry>>);

struct Entry {
    bridge: Arc<ChosenBridge>,
    /// The incarnation that the bridge serves, if that is known.
    incarnation: Option<Incarnation>,
}

impl Bridges {
    /// Bridges to sandboxes of these runtimes, with task directories below `root`, an absolute path inside every sandbox.
    pub fn new(runtimes: Runtimes, root: &str) -> Self {
        Self { runtimes, root: root.into(), known: Arc::default() }
    }

    /// The bridge of a sandbox. A sandbox that is seen in another incarnation gets a new bridge; the old one stays usable.
    ///
    /// # Errors
    /// [`UnknownRuntime`] when the server does not offer the sandbox's runtime.
    pub fn bridge(&self, sandbox: &SandboxRef) -> Result<Arc<dyn SandboxBridge>, UnknownRuntime> {
        let runtime = self.runtimes.named(&sandbox.runtime)?;
        let mut entries = self.known.entries();
        let entry = entries.entry(key(sandbox)).or_insert_with(|| {
            let known = Arc::downgrade(&self.known);
            let bridge = Arc::new(ChosenBridge::new(Arc::clone(runtime), sandbox, &self.root, known));
            Entry { bridge, incarnation: None }
        });
        if let Some(incarnation) = &sandbox.incarnation
            && entry.incarnation.as_ref() != Some(incarnation)
        {
            if entry.incarnation.is_some() {
                entry.bridge = Arc::new(entry.bridge.renewed(sandbox));
            }
            entry.incarnation = Some(incarnation.clone());
        }
        Ok(Arc::clone(&entry.bridge) as Arc<dyn SandboxBridge>)
    }

    /// Which kind of bridge a sandbox has, without asking the sandbox. None when this server has not used the sandbox yet.
    pub fn state(&self, sandbox: &SandboxRef) -> Option<BridgeState> {
        let bridge = Arc::clone(&self.known.entries().get(&key(sandbox))?.bridge);
        bridge.state()
    }

    /// Forgets a sandbox that no longer exists.
    pub fn forget(&self, sandbox: &SandboxRef) {
        self.known.entries().remove(&key(sandbox));
    }
}

impl Known {
    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a sandbox, unless it has another bridge than this one.
    pub(super) fn forget_bridge(&self, sandbox: &SandboxRef, bridge: &ChosenBridge) {
        let mut entries = self.entries();
        let key = key(sandbox);
        if entries.get(&key).is_some_and(|entry| std::ptr::eq(Arc::as_ptr(&entry.bridge), bridge)) {
            entries.remove(&key);
        }
    }
}

fn key(sandbox: &SandboxRef) -> Key {
    (Arc::clone(&sandbox.runtime), Arc::clone(&sandbox.id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;
    use errand_runtime::{Runtime, RuntimeError, fake::FakeRuntime};

    fn same(one: &Arc<dyn SandboxBridge>, other: &Arc<dyn SandboxBridge>) -> bool {
        Arc::ptr_eq(one, other)
    }

    fn bridges() -> Bridges {
        let second: Arc<dyn Runtime> = FakeRuntime::named("second");
        Bridges::new(Runtimes::new(FakeRuntime::named("first"), [second]), "/tmp/errand")
    }

    #[test]
    fn new_incarnation_gets_a_new_bridge() {
        let bridges = bridges();
        let sandbox = SandboxRef::new("first", "id");
        let seen_in = |life: &str| bridges.bridge(&sandbox.clone().seen_in(Incarnation(life.to_owned()))).unwrap();
        let unseen = || bridges.bridge(&sandbox).unwrap();
        let before = unseen();
        let first = seen_in("1");
        assert!(same(&before, &first) && same(&first, &seen_in("1")) && same(&first, &unseen()));
        let second = seen_in("2");
        assert!(!same(&first, &second) && same(&second, &unseen()));
    }

    #[test]
    fn sandboxes_of_two_runtimes_share_no_bridge() {
        let bridges = bridges();
        let of = |runtime| bridges.bridge(&SandboxRef::new(runtime, "id"));
        assert!(!same(&of("first").unwrap(), &of("second").unwrap()));
        assert_eq!(of("third").err(), Some(UnknownRuntime { name: "third".to_owned() }));
    }

    #[tokio::test]
    async fn vanished_sandbox_is_forgotten() {
        let bridges = bridges();
        let sandbox = SandboxRef::new("first", "no-such-sandbox");
        let bridge = bridges.bridge(&sandbox).unwrap();
        assert!(same(&bridge, &bridges.bridge(&sandbox).unwrap()));
        assert!(matches!(bridge.prepare().await, Err(RuntimeError::NoSuchSandbox { .. })));
        assert!(bridges.known.entries().is_empty());
        bridges.bridge(&sandbox).unwrap();
        bridges.forget(&sandbox);
        assert!(bridges.known.entries().is_empty());
    }
}
