//! The one writer: commits all waiting changes together, so that they share the cost of a flush to disk.
//!
//! Owns the only connection that writes, its thread, and the claim on the database file. Does not know what a change does. This file is the
//! handle that callers submit changes to; [`thread`] makes the commits, and [`change`] keeps a change together with its caller.

mod change;
mod thread;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(super) use change::Change;

use super::{ages::Ages, file::Claim, queue::Queue, shares::Shares};
use crate::{Scope, StoreError, wake_ups::WakeUps};
use change::{Job, Submitted};
use thread::Committer;

/// The most queued changes of one tenant. Further callers of the tenant wait for a place.
const QUEUE_LIMIT: usize = 1024;

/// The handle of the writer's thread.
#[derive(Debug)]
pub(super) struct Writer {
    /// Closed with the store. The thread ends when the queue is closed and empty.
    queue: Arc<Queue<Box<dyn Job>>>,
    shares: Shares,
    wake_ups: Arc<WakeUps>,
    commits: Arc<AtomicU64>,
    /// Cancelled when the thread has closed the file.
    ended: CancellationToken,
}

impl Writer {
    /// Starts the thread that writes. It ends with [`Writer::close`], or when the writer is dropped.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(super) fn start(connection: Connection, claim: Claim, ages: Arc<Ages>) -> io::Result<Self> {
        let writer = Self {
            queue: Arc::new(Queue::new()),
            shares: Shares::new(QUEUE_LIMIT),
            wake_ups: Arc::new(WakeUps::new()),
            commits: Arc::default(),
            ended: CancellationToken::new(),
        };
        let committer = Committer {
            connection,
            wake_ups: Arc::clone(&writer.wake_ups),
            ages,
            commits: Arc::clone(&writer.commits),
        };
        thread::spawn(committer, Arc::clone(&writer.queue), claim, writer.ended.clone().drop_guard())?;
        Ok(writer)
    }

    /// Makes a change and returns when it is on disk. Cancel safe: the change is made as a whole or not at all.
    pub(super) async fn submit<C: Change>(&self, change: C) -> Result<C::Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let tenant = change.tenant().cloned();
        let place = match &tenant {
            Some(tenant) => {
                let share = self.shares.of(tenant);
                match Arc::clone(&share).try_acquire_owned() {
                    Ok(place) => Some(place),
                    Err(_) => Some(share.acquire_owned().await.map_err(|_| StoreError::Closed)?),
                }
            }
            None => None,
        };
        if !self.queue.push(tenant, Box::new(Submitted::new(change, reply, place))) {
            return Err(StoreError::Closed);
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// See [`crate::TaskStore::wake_ups`].
    pub(super) fn wake_ups(&self, scope: &Scope) -> watch::Receiver<u64> {
        self.wake_ups.subscribe(scope)
    }

    /// How many commits there were.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// How many changes wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Accepts no more changes, and waits until the accepted ones are on disk and the file is closed.
    pub(super) async fn close(&self) {
        self.queue.close();
        self.ended.cancelled().await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
    }
}
