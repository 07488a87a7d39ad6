//! The honest tenant: short commands whose outcomes are all known.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::client::{Session, ended};

/// A session of the honest tenant.
#[derive(Clone)]
pub struct Honest {
    session: Session,
    runs: Arc<AtomicUsize>,
}

/// How long commands took, from the start to the answer that they have ended, in order.
pub struct Times(Vec<Duration>);

impl Honest {
    pub fn new(session: Session) -> Self {
        Self { session, runs: Arc::default() }
    }

    /// Runs this many commands.
    pub async fn runs(&self, count: usize) -> Times {
        let mut left = count;
        self.runs_until(|| {
            left = left.saturating_sub(1);
            left == 0
        })
        .await
    }

    /// Runs commands one after the other until `enough` returns true. Panics when a command ends otherwise than it must.
    pub async fn runs_until(&self, mut enough: impl FnMut() -> bool) -> Times {
        let mut times = Vec::new();
        loop {
            let number = self.runs.fetch_add(1, Ordering::Relaxed);
            let begun = Instant::now();
            let task = self.session.run(&format!("echo said {number}; exit {}", number % 8)).await;
            times.push(begun.elapsed());
            assert_eq!(ended(&task), format!("exited {}", number % 8));
            assert_eq!(self.session.text(&task).await, format!("said {number}\n"));
            if enough() {
                break;
            }
        }
        times.sort_unstable();
        Times(times)
    }
}

impl Times {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The 99th percentile.
    pub fn p99(&self) -> Duration {
        self.0[self.0.len() * 99 / 100]
    }
}
