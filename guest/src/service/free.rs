//! Free shims: they have supervised a task to its end and can take the next one.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::link::ShimLink;

/// How long a free shim waits for another task. The shim exits when its connection closes.
const KEPT: Duration = Duration::from_secs(1);
/// The most free shims that are kept.
const LIMIT: usize = 64;

/// The connections to free shims.
#[derive(Debug, Default, Clone)]
pub(super) struct FreeShims {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The connections, each with the time when its shim became free; the newest comes last.
    links: VecDeque<(Instant, ShimLink)>,
    /// Whether a task is running that closes connections when they expire.
    watched: bool,
}

impl FreeShims {
    /// Takes the shim that became free last: its memory is the most likely to be cached.
    pub(super) fn take(&self) -> Option<ShimLink> {
        let mut state = self.state();
        std::iter::from_fn(|| state.links.pop_back()).map(|(_, link)| link).find(ShimLink::is_quiet)
    }

    /// Keeps a free shim for a while.
    pub(super) fn put(&self, link: ShimLink) {
        let mut state = self.state();
        if state.links.len() == LIMIT {
            return;
        }
        state.links.push_back((Instant::now(), link));
        if !std::mem::replace(&mut state.watched, true) {
            tokio::spawn(self.clone().let_go());
        }
    }

    /// Closes connections that were not used in time, until there is none.
    async fn let_go(self) {
        loop {
            let Some(due) = self.next_due() else { return };
            tokio::time::sleep_until(due).await;
            let mut state = self.state();
            while state.links.front().is_some_and(|(since, _)| *since + KEPT <= Instant::now()) {
                state.links.pop_front();
            }
        }
    }

    /// When the next connection expires. None: there are no connections, and the expiry task ends.
    fn next_due(&self) -> Option<Instant> {
        let mut state = self.state();
        let due = state.links.front().map(|(since, _)| *since + KEPT);
        state.watched = due.is_some();
        due
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
