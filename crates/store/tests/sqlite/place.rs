//! A directory with a database, and a clock that the test moves.

use std::{path::PathBuf, sync::Arc, time::Duration};

use errand_store::{
    SqliteStore, TaskStore,
    conformance::{
        clock::TestClock,
        fixtures::{NO_CAPS, owner, task},
    },
};
use tempfile::TempDir;

pub(crate) struct SqlitePlace {
    directory: TempDir,
    pub(crate) clock: Arc<TestClock>,
}

impl SqlitePlace {
    pub(crate) fn new() -> Self {
        Self { directory: TempDir::new().unwrap(), clock: Arc::new(TestClock::new()) }
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path().join("errand.sqlite")
    }

    pub(crate) async fn store(&self) -> SqliteStore {
        SqliteStore::open_with_clock(&self.file(), Arc::clone(&self.clock) as _).await.unwrap()
    }

    /// Runs SQL past the store.
    pub(crate) fn execute(&self, sql: &str) -> Result<(), rusqlite::Error> {
        rusqlite::Connection::open(self.file())?.execute_batch(sql)
    }

    /// Makes `count` changes while the writer is held up with another one, so that it finds them all at once. Returns what came of them, and
    /// how many commits there were for them.
    pub(crate) async fn in_one_group<T>(
        &self,
        store: &SqliteStore,
        count: usize,
        changes: impl Future<Output = T>,
    ) -> (T, u64) {
        let before = store.commits();
        let lock = rusqlite::Connection::open(self.file()).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        let whose = owner("another", "bot", "s");
        let mut first = Box::pin(store.create_task(task(&whose), NO_CAPS));
        assert!(futures_util::poll!(&mut first).is_pending());
        waiting(store, 0).await;
        let mut changes = Box::pin(changes);
        assert!(futures_util::poll!(&mut changes).is_pending());
        waiting(store, count).await;
        lock.execute_batch("ROLLBACK").unwrap();
        first.await.unwrap();
        let made = changes.await;
        (made, store.commits() - before - 1)
    }
}

/// Waits until so many changes wait.
async fn waiting(store: &SqliteStore, count: usize) {
    let all_there = async {
        while store.waiting() != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(4), all_there).await.expect("they wait");
}

impl errand_store::conformance::Place for SqlitePlace {
    async fn empty() -> Self {
        Self::new()
    }

    async fn open(&self) -> Arc<dyn TaskStore> {
        Arc::new(self.store().await)
    }

    fn pass(&self, time: Duration) {
        self.clock.pass(time);
    }

    fn spoil(&self, what: &str, id: &str, record: &str) {
        let key = if what == "notification" { "sequence" } else { "id" };
        let connection = rusqlite::Connection::open(self.file()).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        // The JSON index of sandboxes would refuse a record that is not JSON, so the tests do not write one there.
        let sql = format!("UPDATE {what}{} SET record = ? WHERE {key} = ?", if what == "sandbox" { "es" } else { "s" });
        assert_eq!(connection.execute(&sql, (record, id)).unwrap(), 1);
    }
}
