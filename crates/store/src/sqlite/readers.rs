//! The connections that only read: a few, each used by one read at a time, on threads that may block.
//!
//! Look-ups by a key and scans have connections of their own, so that no look-up waits behind a scan. A tenant has a share of each kind, and
//! its reads wait for each other first. When the caller of a read is gone, the read is interrupted.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::{configure, shares::Shares};
use crate::StoreError;
use errand_task::TenantId;

/// Concurrent look-ups, and how many of them one tenant may have. More would wait for the same disk.
const LOOKUPS: (usize, usize) = (4, 3);
/// Concurrent scans, and how many of them one tenant may have.
const SCANS: (usize, usize) = (2, 1);
/// How long a scan may wait for a connection.
const SCAN_WAIT: Duration = Duration::from_secs(10);
/// How many scans of one tenant may wait.
const SCANS_WAITING: usize = 256;
/// How long a read may take. Reads are bounded in the rows they examine; this bound is for a slow disk.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// After how many of its instructions SQLite asks whether to continue.
const INSTRUCTIONS: i32 = 1000;

/// How a read finds what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// By an index that leads to hardly any other row.
    Lookup,
    /// By examining rows most of which may not match.
    Scan,
}

/// The connections that read.
#[derive(Debug)]
pub(super) struct Readers {
    lookups: Pool,
    scans: Pool,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self { lookups: Pool::new(path, LOOKUPS, None), scans: Pool::new(path, SCANS, Some(SCAN_WAIT)) }
    }

    /// Reads on behalf of a tenant, or of the server itself. If the caller is dropped, the read ends early and its result is discarded.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when a scan would wait, or a read takes, too long.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        access: Access,
        tenant: Option<&TenantId>,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match access {
            Access::Lookup => self.lookups.read(tenant, question).await,
            Access::Scan => self.scans.read(tenant, question).await,
        }
    }

    /// Waits for the reads under way, and closes every connection.
    pub(super) async fn close(&self) {
        tokio::join!(self.lookups.close(), self.scans.close());
    }
}

/// Connections for one kind of reads.
#[derive(Debug)]
struct Pool {
    path: PathBuf,
    size: u32,
    /// How many may read. Closed with the store.
    permits: Arc<Semaphore>,
    shares: Shares,
    /// How many reads of a tenant may wait, and how long; none: no bound.
    waiting: Option<(Shares, Duration)>,
    /// Opened at first use, and kept.
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Pool {
    fn new(path: &Path, (size, share): (usize, usize), wait: Option<Duration>) -> Self {
        Self {
            path: path.to_owned(),
            size: u32::try_from(size).unwrap_or(u32::MAX),
            permits: Arc::new(Semaphore::new(size)),
            shares: Shares::new(share),
            waiting: wait.map(|wait| (Shares::new(SCANS_WAITING), wait)),
            idle: Arc::default(),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        tenant: Option<&TenantId>,
        question: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let place = match (&self.waiting, tenant) {
            (Some((places, _)), Some(tenant)) => {
                Some(places.of(tenant).try_acquire_owned().map_err(|_| StoreError::Busy)?)
            }
            _ => None,
        };
        let limit = self.waiting.as_ref().map(|(_, limit)| *limit);
        let share = tenant.map(|tenant| self.shares.of(tenant));
        let (permits, idle, path) = (Arc::clone(&self.permits), Arc::clone(&self.idle), self.path.clone());
        let caller = Caller::default();
        let gone = Arc::clone(&caller.gone);
        // In a task of its own: a caller that is not polled, such as a stream whose client reads nothing, must not hold a connection.
        let reading = tokio::spawn(async move {
            let turn = in_time(limit, turn(share, permits)).await??;
            if gone.load(Ordering::Relaxed) {
                return Err(StoreError::Busy);
            }
            let reading = tokio::task::spawn_blocking(move || {
                let known = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let mut connection = known.map_or_else(|| open(&path), Ok)?;
                let deadline = Instant::now() + READ_LIMIT;
                let stop = move || gone.load(Ordering::Relaxed) || Instant::now() > deadline;
                connection.progress_handler(INSTRUCTIONS, Some(stop))?;
                let answer = question(&connection);
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                drop((turn, place));
                answer
            });
            reading.await.map_err(|error| StoreError::Database(Arc::new(error)))?
        });
        let answer = reading.await.map_err(|error| StoreError::Database(Arc::new(error)))?;
        drop(caller);
        answer
    }

    async fn close(&self) {
        // Refused only when it is closed already.
        let all = self.permits.acquire_many(self.size).await;
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        drop(all);
    }
}

/// The right to read now.
type Turn = (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit);

/// Waits in the tenant's share first, then for a connection: so each tenant has only a few waiters for connections.
async fn turn(share: Option<Arc<Semaphore>>, permits: Arc<Semaphore>) -> Result<Turn, StoreError> {
    let closed = |_: AcquireError| StoreError::Closed;
    let share = match share {
        Some(share) => Some(share.acquire_owned().await.map_err(closed)?),
        None => None,
    };
    Ok((share, permits.acquire_owned().await.map_err(closed)?))
}

async fn in_time<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Result<T, StoreError> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.map_err(|_| StoreError::Busy),
        None => Ok(work.await),
    }
}

/// Says, when dropped, that the caller waits no longer.
#[derive(Debug, Default)]
struct Caller {
    gone: Arc<AtomicBool>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    configure(&connection)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tempfile::TempDir;

    use super::*;

    const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

    fn readers() -> (TempDir, Readers) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        let readers = Readers::new(&path);
        (directory, readers)
    }

    fn count(sql: &'static str) -> impl FnOnce(&Connection) -> Result<i64, StoreError> + Send + 'static {
        move |connection| Ok(connection.query_row(sql, [], |row| row.get(0))?)
    }

    async fn soon<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), work).await.unwrap()
    }

    #[tokio::test]
    async fn a_read_without_a_caller_ends_early() {
        let (_directory, readers) = readers();
        let tenant = TenantId::local();
        for _ in 0..3 {
            let mut reading = Box::pin(readers.read(Access::Scan, Some(&tenant), count(ENDLESS)));
            assert!(futures_util::poll!(&mut reading).is_pending());
            while readers.scans.permits.available_permits() == SCANS.0 {
                tokio::task::yield_now().await;
            }
            drop(reading);
        }
        assert_eq!(soon(readers.read(Access::Scan, Some(&tenant), count("SELECT 7"))).await.unwrap(), 7);
        soon(readers.close()).await;
    }

    #[tokio::test]
    async fn scans_of_one_tenant_delay_no_other_read() {
        let (_directory, readers) = readers();
        let [greedy, quiet] = ["greedy", "quiet"].map(|name| TenantId::new(name).unwrap());
        let mut scans: Vec<_> =
            (0..SCANS_WAITING).map(|_| Box::pin(readers.read(Access::Scan, Some(&greedy), count(ENDLESS)))).collect();
        for scan in &mut scans {
            assert!(tokio::task::unconstrained(async { futures_util::poll!(scan) }).await.is_pending());
        }
        for access in [Access::Scan, Access::Lookup] {
            assert_eq!(soon(readers.read(access, Some(&quiet), count("SELECT 7"))).await.unwrap(), 7);
        }
        assert_eq!(soon(readers.read(Access::Lookup, Some(&greedy), count("SELECT 7"))).await.unwrap(), 7);
        let surplus = soon(readers.read(Access::Scan, Some(&greedy), count("SELECT 7"))).await;
        assert!(matches!(surplus, Err(StoreError::Busy)), "{surplus:?}");
        drop(scans);
        soon(readers.close()).await;
    }
}
