//! Connections that only read: a few, each used by one reader at a time, on threads that may wait for the disk.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::configure;
use crate::store::StoreError;

/// Readers at a time. More would wait for the same disk.
const READERS: usize = 4;

/// The connections that read.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    /// How many may read. Closed with the store.
    permits: Arc<Semaphore>,
    /// Made at first use, and kept.
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), permits: Arc::new(Semaphore::new(READERS)), idle: Arc::default() }
    }

    /// Reads. One that is not waited for any more reads to its end, and nobody hears of it.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (permits, idle, path) = (Arc::clone(&self.permits), Arc::clone(&self.idle), self.path.clone());
        // In a task of its own: a caller that is not polled for a while, such as a stream whose client takes nothing, must not keep the
        // place that it was given.
        let reading = tokio::spawn(async move {
            let permit = permits.acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let reading = tokio::task::spawn_blocking(move || {
                let known = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let connection = known.map_or_else(|| open(&path), Ok)?;
                let answer = question(&connection);
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                drop(permit);
                answer
            });
            reading.await.map_err(|error| StoreError::Database(Arc::new(error)))?
        });
        reading.await.map_err(|error| StoreError::Database(Arc::new(error)))?
    }

    /// Waits for those who read, and closes every connection.
    pub(super) async fn close(&self) {
        // Refused only when it is closed already.
        let all = self.permits.acquire_many(READERS as u32).await;
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        drop(all);
    }
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    configure(&connection)?;
    Ok(connection)
}
