//! Shims that have kept a task to its end and take the next one.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::link::ShimLink;

/// How long a shim waits for another task. It ends with its connection.
const KEPT: Duration = Duration::from_secs(1);
/// The most that wait.
const LIMIT: usize = 64;

/// The connections to them.
#[derive(Debug, Default, Clone)]
pub(super) struct FreeShims {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when each is free, the newest last.
    links: VecDeque<(Instant, ShimLink)>,
    /// Whether somebody is about to let them go.
    watched: bool,
}

impl FreeShims {
    /// One that has become free; the last one that did, whose memory is still at hand.
    pub(super) fn take(&self) -> Option<ShimLink> {
        let mut state = self.state();
        std::iter::from_fn(|| state.links.pop_back()).map(|(_, link)| link).find(ShimLink::is_quiet)
    }

    /// Keeps one for a while.
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

    /// Lets those go that nobody takes, until there is none.
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

    /// When to let the next one go. None: there is none, and nobody watches any more.
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
