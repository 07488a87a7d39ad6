//! A runtime in memory, for tests: its sandboxes have a state and no processes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use crate::{CreateSandbox, Exec, FileAtRest, Found, GuestProgram, NotStarted, Runtime, RuntimeError};
use errand_task::Incarnation;

/// A runtime in memory. Its id of a sandbox is `NAME-` and the sandbox's name. No program can be started in its sandboxes.
#[derive(Debug)]
pub struct FakeRuntime {
    name: &'static str,
    guest: GuestProgram,
    sandboxes: Mutex<HashMap<String, Found>>,
    /// How many incarnations were begun.
    lives: Mutex<u32>,
}

impl FakeRuntime {
    /// A runtime without sandboxes.
    pub fn named(name: &'static str) -> Arc<Self> {
        let guest = GuestProgram::new(b"guest");
        Arc::new(Self { name, guest, sandboxes: Mutex::default(), lives: Mutex::default() })
    }

    /// The ids of all sandboxes, sorted.
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.sandboxes().keys().cloned().collect();
        ids.sort();
        ids
    }

    fn sandboxes(&self) -> MutexGuard<'_, HashMap<String, Found>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_life(&self) -> Incarnation {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        *lives += 1;
        Incarnation(format!("{}-{lives}", self.name))
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Found)) -> Result<Found, RuntimeError> {
        let mut sandboxes = self.sandboxes();
        let found = sandboxes.get_mut(id).ok_or_else(|| RuntimeError::NoSuchSandbox { id: id.to_owned() })?;
        change(found);
        Ok(found.clone())
    }

    fn running(&self, id: &str) -> Result<(), RuntimeError> {
        let found = self.change(id, |_| {})?;
        if found.running { Ok(()) } else { Err(RuntimeError::NotRunning { id: id.to_owned() }) }
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prefers_compressed_streams(&self) -> bool {
        false
    }

    fn guest(&self) -> &GuestProgram {
        &self.guest
    }

    fn guest_path(&self) -> String {
        "/guest".to_owned()
    }

    async fn ping(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn create(&self, request: &CreateSandbox) -> Result<Found, RuntimeError> {
        let found = Found {
            runtime_id: format!("{}-{}", self.name, request.name),
            name: request.name.clone(),
            running: true,
            paused: false,
            incarnation: self.new_life(),
            spec: request.spec.clone(),
            out_of_memory: false,
            labels: Default::default(),
        };
        self.sandboxes().insert(found.runtime_id.clone(), found.clone());
        Ok(found)
    }

    async fn inspect(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        self.change(runtime_id, |_| {})
    }

    async fn start(&self, runtime_id: &str) -> Result<Found, RuntimeError> {
        let life = self.new_life();
        self.change(runtime_id, |found| {
            if !found.running {
                (found.running, found.incarnation) = (true, life);
            }
        })
    }

    async fn stop(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        self.change(runtime_id, |found| found.running = false).map(drop)
    }

    async fn remove(&self, runtime_id: &str) -> Result<(), RuntimeError> {
        self.sandboxes().remove(runtime_id);
        Ok(())
    }

    async fn exec(&self, runtime_id: &str, argv: &[String]) -> Result<Exec, RuntimeError> {
        self.running(runtime_id)?;
        let detail = format!("{:?} is not in the sandbox", argv.first());
        Err(RuntimeError::NotStarted { reason: NotStarted::NotFound, detail })
    }

    async fn put_file(&self, runtime_id: &str, path: &str, _content: &[u8], _mode: u32) -> Result<(), RuntimeError> {
        self.running(runtime_id)?;
        Err(RuntimeError::NotWritten { path: path.to_owned(), detail: "the sandbox has no disk".to_owned() })
    }

    async fn read_at_rest(
        &self,
        _runtime_id: &str,
        _path: &str,
        _limit: usize,
    ) -> Result<Option<FileAtRest>, RuntimeError> {
        Ok(None)
    }
}
